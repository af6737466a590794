"""The rivals of PoC's predictor, on texts whose curves are known."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch

from laconic.errors import DataError
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.labels import Labels
from laconic.methods.poc.predictor import between_knots
from laconic.methods.poc.rivals import FeatureCurve, Threshold, _Knots, share_above

GRID = [number / 19 for number in range(1, 19)]


def drawn(count: int = 60) -> tuple[np.ndarray, list[Labels]]:
    """Texts whose curve hangs on their first feature."""
    draw = random.Random(0)
    given, labels = [], []
    for _ in range(count):
        power = draw.uniform(0.1, 1.5)
        given.append([power, draw.random(), 3.0])  # one that says all, one that says nothing, one that never changes
        ratios = draw.sample(GRID, 9)
        labels.append(Labels("qa", 0.5, {ratio: 0.5 * ratio**power for ratio in ratios}))
    return np.array(given), labels


def test_a_regression_on_what_matters_beats_the_mean_curve() -> None:
    given, labels = drawn(120)
    train, test = slice(0, 80), slice(80, None)
    fitted = FeatureCurve.fit(given[train], labels[train], ridge=0.1)
    average = AverageCurve.of(labels[train])

    def error(curves: list) -> float:  # type: ignore[type-arg]
        squares = [
            (curve([ratio])[0] - one.retention(ratio)) ** 2
            for curve, one in zip(curves, labels[test], strict=True)
            for ratio in one.scores
        ]
        return float(np.mean(squares))

    own = [fitted.curve(row) for row in given[test]]
    assert error(own) < 0.1 * error([average] * 40)
    for curve in own:
        values = curve([number / 200 for number in range(1, 201)])
        assert all(a <= b + 1e-12 for a, b in pairwise(values))
        assert values[-1] == 1


def test_its_knots_are_the_predictors() -> None:
    values = torch.rand(1, 21)
    wanted = between_knots(values, torch.tensor([GRID]))[0].tolist()
    assert _Knots(values[0].double().numpy())(GRID) == pytest.approx(wanted, abs=1e-6)


def test_a_threshold_keeps_more_where_more_is_worth_keeping() -> None:
    draw = random.Random(1)
    scores, labels = [], []
    for _ in range(40):
        dense = draw.uniform(0.1, 0.9)  # this share of the words is needed, and scores high
        scores.append([draw.uniform(0.6, 1) if place < dense * 100 else draw.uniform(0, 0.4) for place in range(100)])
        labels.append(Labels("qa", 1.0, {ratio: min(1.0, ratio / dense) for ratio in GRID}))
    found = Threshold.fit(scores, labels)
    ratios = [found.ratio(own, 0.95) for own in scores]
    kept = [
        min(1.0, ratio / (sum(score > 0.5 for score in own) / 100)) for ratio, own in zip(ratios, scores, strict=True)
    ]
    assert np.mean(kept) >= 0.94
    assert np.std(ratios) > 0.1  # not one ratio for all
    fixed = next(ratio for ratio in GRID if np.mean([one.retention(ratio) for one in labels]) >= 0.95)
    assert np.mean(ratios) < fixed
    assert found.ratio(scores[0], 1.1) == 1
    assert [found.ratio(scores[0], floor) for floor in (0.2, 0.5, 0.9)] == sorted(
        found.ratio(scores[0], floor) for floor in (0.2, 0.5, 0.9)
    )


def test_small_things() -> None:
    assert share_above([0.1, 0.5, 0.5, 0.9], 0.5) == 0.75
    assert share_above([0.1], 2.0) == 0
    given, labels = drawn(4)
    for slip in ([], labels[:2]):
        with pytest.raises(DataError):
            FeatureCurve.fit(given, slip)
        with pytest.raises(DataError):
            Threshold.fit([[0.1]] * 4, slip)


def test_a_thresholds_gains_make_up_for_no_losses() -> None:
    """One text gains threefold where another loses all: the mean kept is a half, not one and a half."""
    labels = [Labels("squad", 0.3, {0.5: 0.9}), Labels("squad", 1.0, {0.5: 0.0})]
    scores = [[0.9, 0.8, 0.2, 0.1]] * 2
    found = Threshold.fit(scores, labels)
    assert max(kept for level, kept in found.levels if level > 0.5) == pytest.approx(0.5)
    assert found.ratio(scores[0], 0.9) == 1.0
