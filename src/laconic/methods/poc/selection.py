"""The strongest compression that a predicted curve allows (PoC, arXiv 2603.19733; section 2.4 of its specification).

Two looks at the curve, 18 ratios each: the first finds which nineteenth of (0, 1] the floor is crossed in, the second
goes through that nineteenth. All ratios are multiples of 1/361, so for a curve that never falls the result is what
trying every one of them would give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

#: ratios of one look at a curve
POINTS = 18
PARTS = POINTS + 1
#: steps of the grid
GRID = PARTS * PARTS
#: below this, texts become empty
LEAST_RATIO = 0.02

Policy = Literal["first", "safe"]
#: from ratios in (0, 1) to the retention predicted at each
Curve = Callable[[Sequence[float]], Sequence[float]]


@dataclass(frozen=True)
class Choice:
    """A ratio, and why.

    Attributes:
        ratio: in (0, 1]; 1 leaves the text alone.
        retention: predicted there; exactly 1 at ratio 1, by definition.
        feasible: whether the floor can be met at all.
        curve: all that was asked of the curve, (ratio, retention) by rising ratio.
    """

    ratio: float
    retention: float
    feasible: bool
    policy: Policy
    curve: list[tuple[float, float]]


def select(
    curve: Curve, floor: float, *, policy: Policy = "first", least_ratio: float = LEAST_RATIO, points: int = POINTS
) -> Choice:
    """The smallest ratio at which the curve reaches the floor.

    Args:
        curve: asked twice at the most, for ``points`` ratios at the most.
        floor: retention that is wanted. Above 1 it cannot be promised, and the text is left alone.
        policy: ``first`` takes the first crossing, as the paper presumably does; ``safe`` the first from which on every
            ratio that was asked reaches the floor, for curves that fall again.
        least_ratio: no ratio below it is chosen.

    Raises:
        ValueError: a floor that is no number, a least ratio outside [0, 1], or no points.
    """
    if math.isnan(floor) or not 0 <= least_ratio <= 1 or points < 1:
        raise ValueError(f"floor {floor}, least ratio {least_ratio}, {points} points")
    if floor > 1:
        return Choice(1.0, 1.0, False, policy, [])
    parts = points + 1
    grid = parts * parts
    least = max(1, math.ceil(least_ratio * grid - 1e-9))
    found: dict[int, float] = {}

    def first_reaching(places: list[int]) -> int | None:
        """Of rising places on the grid, as the policy has it."""
        places = [place for place in places if place >= least]
        if places:
            found.update(zip(places, map(float, curve([place / grid for place in places])), strict=True))
        reaching = None
        for place in reversed(places):
            if found[place] >= floor:  # which nothing that is not a number is
                reaching = place
            elif policy == "safe":
                break
        return reaching

    coarse = [parts * i for i in range(1, parts)]
    upper = first_reaching(coarse) or grid
    finer = first_reaching([upper - parts + i for i in range(1, parts)])
    chosen = finer or upper
    told = sorted((place / grid, value) for place, value in found.items())
    return Choice(chosen / grid, found.get(chosen, 1.0), True, policy, told)
