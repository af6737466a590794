"""What PoC promises, on texts whose curves are known (invariant 13 of its specification)."""

from __future__ import annotations

import random

import pytest

from laconic.errors import DataError
from laconic.methods.poc.calibration import mean_above, quantile_margin, risk_margin
from laconic.methods.poc.selection import GRID, select

FLOOR = 0.8


def margins(floor: float, count: int = 51) -> list[float]:
    """An even grid from 0 to just above ``1 - floor``, where the text is left alone and nothing is lost."""
    return [(1 - floor + 1e-6) * number / (count - 1) for number in range(count)]


class Text:
    """Its true curve, and one predicted of it: a straight line, off by an error that is its own."""

    def __init__(self, draw: random.Random) -> None:
        self.start = draw.uniform(0.0, 0.9)
        error = draw.gauss(0.03, 0.15)
        self.bumps = [draw.gauss(0, 0.05) for _ in range(GRID)]
        self.guess = [min(1.0, max(0.0, self.start + (1 - self.start) * k / GRID + error)) for k in range(1, GRID)]

    def kept(self, margin: float) -> float:
        """Retention of what is chosen with this margin."""
        choice = select(lambda ratios: [self.guess[round(r * GRID) - 1] for r in ratios], FLOOR + margin)
        place = round(choice.ratio * GRID)
        if place == GRID:
            return 1.0
        return min(1.0, max(0.0, self.start + (1 - self.start) * place / GRID + self.bumps[place]))


def drawn(draw: random.Random, count: int, grid: list[float]) -> list[list[float]]:
    return [[one.kept(margin) for margin in grid] for one in (Text(draw) for _ in range(count))]


def test_violations_stay_below_what_is_promised_and_stricter_promises_cost_more() -> None:
    draw, grid = random.Random(0), margins(FLOOR, 21)
    trials, delta = 200, 0.2
    population = drawn(draw, 1500, grid)
    violated = 0
    for _ in range(trials):
        *calibration, new = draw.sample(population, 40)
        margin = quantile_margin(calibration, grid, FLOOR, delta)
        violated += new[grid.index(margin)] < FLOOR
    sigma = (delta * (1 - delta) / trials) ** 0.5
    assert violated / trials <= delta + 3 * sigma
    assert sum(one[0] < FLOOR for one in population) / len(population) > delta + 3 * sigma  # without, it is broken
    found = [quantile_margin(population[:200], grid, FLOOR, share) for share in (0.4, 0.2, 0.1, 0.05, 0.02)]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_the_mean_is_kept_with_the_confidence_that_is_promised() -> None:
    draw, grid = random.Random(1), margins(FLOOR, 21)
    population = drawn(draw, 1500, grid)
    true_means = [sum(one[place] for one in population) / len(population) for place in range(len(grid))]
    assert true_means[0] < FLOOR  # without a margin, it is not
    broken = 0
    for _ in range(200):
        margin = risk_margin(draw.sample(population, 60), grid, FLOOR, 0.1)
        broken += true_means[grid.index(margin)] < FLOOR
    assert broken / 200 <= 0.1 + 3 * (0.1 * 0.9 / 200) ** 0.5
    assert risk_margin(population, grid, FLOOR) < grid[-1]  # and it is no more than needed
    assert risk_margin(population[:60], grid, FLOOR, 0.01) >= risk_margin(population[:60], grid, FLOOR, 0.5)


def test_the_probability_of_a_mean_this_low() -> None:
    assert mean_above([0.5] * 10, 0.5) == 1
    # nothing lost by 50 texts while a tenth may be lost: (1 - 0.1) ** 50 by Hoeffding
    assert mean_above([0.0] * 50, 0.1) == pytest.approx(0.9**50)
    draw = random.Random(2)
    falls = sum(mean_above([float(draw.random() < 0.1) for _ in range(80)], 0.1) <= 0.1 for _ in range(400))
    assert falls / 400 <= 0.1


def test_a_margin_past_a_gap_is_not_taken() -> None:
    """A text that falls below the floor again at a larger margin is not kept by a smaller one."""
    grid = [0.0, 0.1, 0.2]
    assert quantile_margin([[1.0, 0.0, 1.0]] * 9, grid, 0.9) == 0.2
    assert quantile_margin([[1.0, 1.0, 1.0]] * 9, grid, 0.9) == 0.0
    assert risk_margin([[1.0, 0.0, 1.0]] * 99, grid, 0.9) == 0.2


def test_texts_of_one_document_count_as_one() -> None:
    """Documents of ten texts alike: treated as apart they seem to prove what they do not."""
    draw, grid = random.Random(3), margins(FLOOR, 21)
    population = drawn(draw, 600, grid)
    trials, delta, violated, naive = 200, 0.2, 0, 0
    for _ in range(trials):
        *calibration, new = draw.sample(population, 20)
        texts = [one for one in calibration for _ in range(10)]
        documents = [str(number) for number in range(19) for _ in range(10)]
        margin = quantile_margin(texts, grid, FLOOR, delta, documents)
        assert margin == quantile_margin(calibration, grid, FLOOR, delta)
        violated += new[grid.index(margin)] < FLOOR
        apart = risk_margin(texts, grid, FLOOR, 0.1)
        naive += apart < risk_margin(texts, grid, FLOOR, 0.1, documents)
    assert violated / trials <= delta + 3 * (delta * (1 - delta) / trials) ** 0.5
    assert naive > trials / 2
    with pytest.raises(DataError, match="2 documents for 3 texts"):
        risk_margin([[1.0] * len(grid)] * 3, grid, FLOOR, 0.1, ["a", "b"])


def test_a_documents_texts_below_the_floor_count_by_their_share() -> None:
    grid, kept, lost = [0.0, 0.1], [1.0, 1.0], [0.0, 1.0]
    texts, documents = [kept, lost] + [kept] * 18, ["a", "a", *(str(n) for n in range(18))]
    assert quantile_margin(texts, grid, 0.9, 0.076, documents) == 0.0  # (0.5 + 1) / 20 = 0.075
    assert quantile_margin(texts, grid, 0.9, 0.074, documents) == 0.1


def test_too_few_texts_promise_nothing() -> None:
    grid = margins(0.9)
    with pytest.raises(DataError, match="too few"):
        risk_margin([[1.0] * len(grid)] * 5, grid, 0.9)
    with pytest.raises(DataError, match="at least 9"):
        quantile_margin([[1.0] * len(grid)] * 8, grid, 0.9)
    assert quantile_margin([[1.0] * len(grid)] * 9, grid, 0.9) == 0
    for outcomes in ([], [[1.0]]):
        with pytest.raises(DataError):
            risk_margin(outcomes, grid, 0.9)
    with pytest.raises(DataError, match="delta"):
        risk_margin([[1.0] * len(grid)], grid, 0.9, 0.0)
    with pytest.raises(DataError, match="largest"):
        quantile_margin([[0.0, 0.0]] * 20, [0.0, 0.1], 0.9)
