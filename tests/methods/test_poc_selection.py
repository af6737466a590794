"""PoC's search for a ratio (invariants 1 to 5 of its specification)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from laconic.methods.poc.selection import GRID, LEAST_RATIO, Curve, Policy, select

POLICIES: list[Policy] = ["first", "safe"]


def step_at(place: float) -> Curve:
    return lambda ratios: [float(ratio >= place) for ratio in ratios]


def through(values: Sequence[float]) -> Curve:
    """A curve by its value at every place of the grid, ``values[k - 1]`` at k / 361."""
    return lambda ratios: [values[round(ratio * GRID) - 1] for ratio in ratios]


def rising(draw: random.Random) -> list[float]:
    power = draw.choice([0.2, 1.0, 5.0])
    return sorted(draw.random() ** power for _ in range(GRID))


@pytest.mark.parametrize("policy", POLICIES)
def test_of_a_curve_that_never_falls_it_is_what_trying_all_gives(policy: Policy) -> None:
    draw = random.Random(0)
    for _ in range(1000):
        values, floor = rising(draw), draw.random()
        reaching = [k for k in range(1, GRID) if values[k - 1] >= floor]
        wanted = (reaching[0] if reaching else GRID) / GRID
        assert select(through(values), floor, policy=policy, least_ratio=0).ratio == wanted


def test_a_higher_floor_never_compresses_more() -> None:
    draw = random.Random(1)
    floors = [number / 50 for number in range(51)]
    for _ in range(200):
        bumpy = [draw.random() for _ in range(GRID)]
        for values, policy in ((rising(draw), "first"), (bumpy, "safe")):
            ratios = [select(through(values), floor, policy=policy).ratio for floor in floors]  # type: ignore[arg-type]
            assert ratios == sorted(ratios)
    for floor in (0.0, -1.0):
        assert select(through(rising(draw)), floor, least_ratio=0).ratio == 1 / GRID
        assert select(through(rising(draw)), floor).ratio == math.ceil(LEAST_RATIO * GRID) / GRID


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_chosen_reaches_the_floor_or_is_the_text_itself(policy: Policy) -> None:
    draw = random.Random(2)
    for _ in range(500):
        values = [draw.choice([draw.random(), math.nan, 1.7]) for _ in range(GRID)]
        floor, least = draw.uniform(-0.2, 1.0), draw.choice([0, 0.02, 0.3, 0.99, 1.0])
        choice = select(through(values), floor, policy=policy, least_ratio=least)
        assert max(least, 1 / GRID) - 1e-9 <= choice.ratio <= 1
        assert choice.feasible
        if choice.ratio < 1:
            assert choice.retention == values[round(choice.ratio * GRID) - 1] >= floor
            if policy == "safe":
                assert all(value >= floor for ratio, value in choice.curve if ratio >= choice.ratio)
        else:
            assert choice.retention == 1


def test_two_looks_of_eighteen_ratios_at_the_most() -> None:
    draw = random.Random(3)
    for policy in POLICIES:
        for _ in range(100):
            asked: list[int] = []

            def counted(ratios: Sequence[float], curve: Curve = through(rising(draw))) -> Sequence[float]:
                asked.append(len(ratios))  # noqa: B023
                return curve(ratios)

            choice = select(counted, draw.random(), policy=policy)
            assert len(asked) <= 2
            assert max(asked) <= 18
            assert len(choice.curve) == sum(asked)


@pytest.mark.parametrize("policy", POLICIES)
def test_plain_curves(policy: Policy) -> None:
    def ratio(curve: Callable[[Sequence[float]], Sequence[float]], floor: float = 0.9, least: float = 0.0) -> float:
        return select(curve, floor, policy=policy, least_ratio=least).ratio

    assert ratio(lambda ratios: [1.0] * len(ratios)) == 1 / 361
    assert ratio(lambda ratios: [0.0] * len(ratios)) == 1
    assert ratio(lambda ratios: [0.9] * len(ratios)) == 1 / 361  # what just reaches the floor does
    for place in (0.001, 1 / 361, 0.0527, 18 / 19, 0.5, 0.7301, 0.999):
        assert ratio(step_at(place)) == math.ceil(361 * place - 1e-9) / 361
    assert ratio(step_at(0.001), least=0.25) == math.ceil(361 * 0.25) / 361


def test_first_and_safe_part_where_a_curve_falls_again() -> None:
    def dent(ratios: Sequence[float]) -> list[float]:
        return [0.0 if ratio < 0.2 or 0.5 < ratio < 0.6 else 1.0 for ratio in ratios]

    assert select(dent, 0.9, policy="first").ratio == math.ceil(361 * 0.2) / 361
    assert select(dent, 0.9, policy="safe").ratio == math.ceil(361 * 0.6) / 361


def test_a_floor_above_one_cannot_be_promised() -> None:
    def never(ratios: Sequence[float]) -> list[float]:
        raise AssertionError

    choice = select(never, 1.01)
    assert (choice.ratio, choice.feasible) == (1.0, False)
    assert select(step_at(2), 1.0).feasible
    for slip in ({"floor": math.nan}, {"floor": 0.5, "least_ratio": 1.5}, {"floor": 0.5, "points": 0}):
        with pytest.raises(ValueError, match="floor"):
            select(step_at(0.5), **slip)  # type: ignore[arg-type]
