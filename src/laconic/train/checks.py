"""Small questions about values from a recipe."""

from __future__ import annotations

import math


def positive(value: object) -> bool:
    """A whole number above 0 (to Python, True is one)."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def above_zero(value: object) -> bool:
    """A number above 0, whole or not, and not infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
