"""Small questions about values from a recipe."""

from __future__ import annotations

import math


def positive(value: object) -> bool:
    """A whole number above 0 (to Python, True is one)."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def finite(value: object) -> bool:
    """A number above 0 that is none of infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
