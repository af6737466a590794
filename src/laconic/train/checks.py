"""Small questions about values from a recipe."""

from __future__ import annotations


def positive(value: object) -> bool:
    """A whole number above 0 (to Python, True is one)."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
