"""PoC's predictor that ignores the text (invariant 6 of its specification)."""

from __future__ import annotations

import json
import random

import pytest

from laconic.errors import DataError
from laconic.eval.labelling import drawn_ratios
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.labels import Labels
from laconic.methods.poc.selection import select


def drawn(count: int = 40) -> list[Labels]:
    draw = random.Random(0)
    found = []
    for _ in range(count):
        whole, power = draw.uniform(0.2, 1.0), draw.uniform(0.1, 2.0)
        grid = draw.sample([number / 19 for number in range(1, 19)], 9)
        found.append(Labels(draw.choice(["qa", "summary"]), whole, {ratio: whole * ratio**power for ratio in grid}))
    return found


def test_at_a_labelled_ratio_it_is_the_labels_mean() -> None:
    labels = drawn()
    curve = AverageCurve.of(labels)
    for ratio in {ratio for one in labels for ratio in one.scores}:
        own = [one.scores[ratio] / one.whole for one in labels if ratio in one.scores]
        assert curve([ratio]) == pytest.approx([sum(own) / len(own)], abs=1e-12)
    assert sum(knot.count for knot in curve.knots) == sum(len(one.scores) for one in labels)
    assert curve([1.0]) == [1.0]
    first, last = curve.knots[0], curve.knots[-1]
    assert curve([first.ratio / 2]) == [first.retention]
    assert curve([(1 + last.ratio) / 2]) == pytest.approx([(1 + last.retention) / 2])


def test_ratios_that_were_drawn_anew_for_each_text_are_pooled() -> None:
    """One text to a ratio would be a curve of noise."""
    draw = random.Random(1)
    labels = []
    for number in range(300):
        ratios = drawn_ratios(8, random.Random(number))
        labels.append(Labels("qa", 1.0, {ratio: float(draw.random() < ratio**0.5) * 1.5 for ratio in ratios}))
    curve = AverageCurve.of(labels)
    assert len(curve.knots) == 19
    for ratio in (0.03, 0.1, 0.25, 0.5, 0.8, 0.97):
        assert curve([ratio])[0] == pytest.approx(ratio**0.5, abs=0.06)  # gains of half as much again count as 1
    assert all(0 < knot.error < 0.1 for knot in curve.knots)
    assert abs(sum(knot.count for knot in curve.knots) - sum(len(one.scores) for one in labels)) < 100


def test_means_of_ratios_are_not_ratios_of_means() -> None:
    labels = [Labels("qa", 1.0, {0.5: 0.5}), Labels("qa", 0.1, {0.5: 0.1})]
    assert AverageCurve.of(labels)([0.5]) == pytest.approx([0.75])
    assert AverageCurve.of(labels, ratio_of_means=True)([0.5]) == pytest.approx([0.6 / 1.1])
    assert AverageCurve.of(labels).knots[0].error == pytest.approx(0.25)


def test_every_text_gets_the_same_ratio_and_every_task_its_own() -> None:
    labels = drawn()
    tasks = AverageCurve.by_task(labels)
    assert set(tasks) == {"qa", "summary"}
    for task, curve in tasks.items():
        assert curve == AverageCurve.of([one for one in labels if one.task == task])
    curve = AverageCurve.of(labels)
    assert len({select(curve, 0.8).ratio for _ in labels}) == 1
    assert AverageCurve.from_dict(json.loads(json.dumps(curve.to_dict()))) == curve


def test_labels_that_say_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no retention"):
        Labels("qa", 0.0, {0.5: 0.0})
    for ratio in (0.0, 1.0, 1.5):
        with pytest.raises(DataError, match="between"):
            Labels("qa", 1.0, {ratio: 1.0})
    with pytest.raises(DataError, match="no texts"):
        AverageCurve.of([])
