"""P@R and what goes with it (invariant 12 of PoC's specification)."""

from __future__ import annotations

import numpy as np
import pytest

from laconic.eval.tradeoff import Outcomes, best_for_budget, common_range, compare, performance_at_ratio
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.labels import Labels
from laconic.methods.poc.selection import select

GRID = np.arange(1, 19) / 19
FLOORS = [number / 50 for number in range(25, 51)]


def truth(texts: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores at every ratio of the grid, and of whole texts; curves go up and down."""
    draw = np.random.default_rng(seed)
    whole = draw.uniform(0.3, 1.0, texts)
    power = draw.uniform(0.05, 2.0, texts)
    scores = whole[:, None] * GRID[None] ** power[:, None] + draw.normal(0, 0.1, (texts, len(GRID)))
    return scores.clip(0, 1), whole


def fixed(scores: np.ndarray, whole: np.ndarray, places: list[int]) -> Outcomes:
    texts = len(whole)
    return Outcomes(np.array([[GRID[place]] * texts for place in places]), scores[:, places].T, whole)


def test_the_area_of_plain_lines() -> None:
    whole = np.ones(3)
    flat = Outcomes(np.full((1, 3), 0.2), np.full((1, 3), 0.5), whole)
    assert performance_at_ratio(flat, 0.2) == pytest.approx(0.75)
    assert performance_at_ratio(flat, 0.6) == pytest.approx(0.875)
    assert performance_at_ratio(flat, 0.2, 0.6) == pytest.approx(0.625)
    for low, high in ((0.1, 1.0), (0.5, 0.5), (0.3, 1.2)):
        with pytest.raises(ValueError, match="policy"):
            performance_at_ratio(flat, low, high)


def test_a_curve_that_ignores_the_text_is_a_fixed_ratio() -> None:
    scores, whole = truth()
    labels = [Labels("qa", w, dict(zip(GRID, own, strict=True))) for own, w in zip(scores, whole, strict=True)]
    curve = AverageCurve.of(labels)
    places = []
    for floor in FLOORS:
        ratio = select(curve, floor, points=18).ratio
        places.append(int(np.searchsorted(GRID, ratio - 1e-9)))
    places = [place for place in places if place < len(GRID)]
    agnostic = Outcomes(
        np.array([[GRID[place]] * len(whole) for place in places]), np.array([scores[:, p] for p in places]), whole
    )
    low, _ = common_range({"agnostic": agnostic})
    same = fixed(scores, whole, sorted(set(places)))
    assert performance_at_ratio(agnostic, low) == pytest.approx(performance_at_ratio(same, low))


def test_no_policy_beats_the_oracle() -> None:
    scores, whole = truth()
    draw = np.random.default_rng(1)
    oracle = best_for_budget(np.tile(GRID, (len(whole), 1)), scores, whole, np.linspace(0, 40, 400).tolist())
    policies = {"oracle": oracle, "fixed": fixed(scores, whole, list(range(len(GRID))))}
    for number in range(20):
        places = np.sort(draw.integers(0, len(GRID), (8, len(whole))), axis=0)
        own = np.array([scores[np.arange(len(whole)), place] for place in places])
        policies[f"chance {number}"] = Outcomes(GRID[places], own, whole)
    low, high = common_range(policies)
    values = {name: performance_at_ratio(one, low, high) for name, one in policies.items()}
    assert all(values["oracle"] >= value - 1e-9 for value in values.values())
    assert values["oracle"] > values["fixed"] + 0.02


def test_the_oracle_needs_negative_prices_where_cutting_a_little_helps() -> None:
    ratios, scores, whole = np.array([[0.2, 0.9]]), np.array([[1.0, 0.99]]), np.array([0.5])
    plain = Outcomes(np.array([[0.2], [0.9]]), np.array([[1.0], [0.99]]), whole)
    prices = [-9.0, -0.5, -0.01, 0.0, 0.01, 0.5, 9.0]
    oracle = best_for_budget(ratios, scores, whole, prices)
    assert performance_at_ratio(oracle, 0.2) >= performance_at_ratio(plain, 0.2) - 1e-9
    without = best_for_budget(ratios, scores, whole, [price for price in prices if price >= 0])
    assert performance_at_ratio(without, 0.2) < performance_at_ratio(plain, 0.2)


def test_the_oracle_pays_for_what_is_delivered() -> None:
    """Two texts of which one is delivered longer than was asked for: there the whole text is as cheap."""
    ratios, scores, whole = np.array([[0.2], [1.0]]), np.array([[0.9], [0.9]]), np.array([1.0, 1.0])
    oracle = best_for_budget(ratios, scores, whole, [0.5])
    assert oracle.ratios.tolist() == [[0.2, 1.0]]
    assert oracle.scores.tolist() == [[0.9, 1.0]]
    own = best_for_budget(np.array([[0.2], [0.6]]), scores, np.zeros(2), [0.5])
    assert own.ratios.tolist() == [[0.2, 0.6]]  # each text's own


def test_comparisons_are_paired() -> None:
    scores, whole = truth(80)
    plain = fixed(scores, whole, list(range(len(GRID))))
    better = Outcomes(plain.ratios, plain.scores + 0.02, plain.whole)
    found = compare({"plain": plain, "better": better}, "plain", draws=200)
    assert found["plain"].difference == found["plain"].low == found["plain"].high == 0
    assert 0 < found["better"].low <= found["better"].difference <= found["better"].high
    assert found["better"].high - found["better"].low < 0.005  # the texts' own spread is gone


def test_a_policy_that_hardly_ever_compresses_can_be_compared() -> None:
    """Of texts drawn anew, those that it leaves alone can be all."""
    scores, whole = truth(12)
    plain = fixed(scores, whole, list(range(len(GRID))))
    ratios = np.ones((1, 12))
    ratios[0, 3] = 0.2
    rarely = Outcomes(ratios, whole[None], whole)
    found = compare({"plain": plain, "rarely": rarely}, "plain", draws=100)
    assert found["rarely"].low <= found["rarely"].high
