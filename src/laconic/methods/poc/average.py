"""The predictor that ignores the text: the mean curve of a population (PoC, arXiv 2603.19733; section 2.2).

A floor then means one ratio for every text. That is compression at a fixed ratio with the ratio looked up, and what a
predictor that reads the text has to beat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from laconic.errors import DataError
from laconic.methods.poc.labels import Labels


@dataclass(frozen=True)
class Knot:
    """Mean retention of so many texts at one ratio, and its standard error."""

    ratio: float
    retention: float
    error: float
    count: int


@dataclass(frozen=True)
class AverageCurve:
    """Straight lines between knots, up to retention 1 at ratio 1; below the first knot, its retention."""

    knots: tuple[Knot, ...]

    @classmethod
    def of(cls, labels: Sequence[Labels], *, ratio_of_means: bool = False) -> AverageCurve:
        """The mean curve of these texts.

        Args:
            ratio_of_means: mean score over mean score of whole texts, which is less noisy where some of these are
                small; otherwise the mean of the texts' own retentions, as in the paper.

        Raises:
            DataError: there are no labels.
        """
        if not labels:
            raise DataError("An average of no texts.", "Label some first.")
        knots = []
        for ratio in sorted({ratio for one in labels for ratio in one.scores}):
            own = [one for one in labels if ratio in one.scores]
            unit = sum(one.whole for one in own) / len(own) if ratio_of_means else None
            values = [one.scores[ratio] / (unit or one.whole) for one in own]
            mean = sum(values) / len(values)
            spread = math.sqrt(sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1))
            knots.append(Knot(ratio, mean, spread / math.sqrt(len(values)), len(values)))
        return cls(tuple(knots))

    @classmethod
    def by_task(cls, labels: Sequence[Labels], *, ratio_of_means: bool = False) -> dict[str, AverageCurve]:
        """A curve for each task."""
        tasks = dict.fromkeys(one.task for one in labels)
        return {
            task: cls.of([one for one in labels if one.task == task], ratio_of_means=ratio_of_means) for task in tasks
        }

    def __call__(self, ratios: Sequence[float]) -> list[float]:
        """Retention at each ratio in (0, 1]."""
        points = [(knot.ratio, knot.retention) for knot in self.knots] + [(1.0, 1.0)]
        return [_between(points, ratio) for ratio in ratios]

    def to_dict(self) -> dict[str, Any]:
        return {"knots": [[k.ratio, k.retention, k.error, k.count] for k in self.knots]}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> AverageCurve:
        return cls(tuple(Knot(*knot) for knot in saved["knots"]))


def _between(points: Sequence[tuple[float, float]], ratio: float) -> float:
    if ratio <= points[0][0]:
        return points[0][1]
    for (low, value), (high, other) in pairwise(points):
        if ratio <= high:
            return value + (other - value) * (ratio - low) / (high - low)
    raise ValueError(f"ratio {ratio} is above 1")
