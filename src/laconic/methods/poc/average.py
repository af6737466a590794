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

import numpy as np

from laconic.errors import DataError
from laconic.methods.poc.labels import Labels
from laconic.methods.poc.selection import LEAST_RATIO, PARTS

#: knots of a curve over ratios that were drawn
GRID_KNOTS = [place / PARTS for place in range(1, PARTS)]
#: so many different ratios are a list that all texts were labelled at
LIST = 24


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
        ratios = [ratio for one in labels for ratio in one.scores]
        distinct = sorted(set(ratios))
        # on one list of ratios its own means; ratios that were drawn anew for each text are hardly ever met twice
        listed = len(distinct) <= LIST
        places = distinct if listed else [LEAST_RATIO, *GRID_KNOTS]
        shares = np.array([_hats(ratio, [*places, 1.0])[:-1] for ratio in ratios])
        rest = 1 - shares.sum(1)  # of the end, where retention is 1
        wanted = np.array(_retentions(labels, ratio_of_means)) - rest
        normal = shares.T @ shares
        if not listed:  # where nothing was labelled the curve goes on straight; elsewhere this weighs nothing
            bends = np.diff(np.eye(len(places)), n=2, axis=0)
            normal += 1e-6 * bends.T @ bends
        values = np.linalg.solve(normal, shares.T @ wanted).clip(0.0, 1.0)
        apart = (wanted - shares @ values) ** 2
        knots = []
        for place, ratio in enumerate(places):
            weight = float(shares[:, place].sum())
            spread = math.sqrt(float(shares[:, place] @ apart) / max(weight - 1, 1))
            knots.append(Knot(ratio, float(values[place]), spread / math.sqrt(max(weight, 1)), round(weight)))
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


def _retentions(labels: Sequence[Labels], ratio_of_means: bool) -> list[float]:
    """Of all labelled ratios of all texts; a gain counts as 1, or as it is where scores are averaged first."""
    if not ratio_of_means:
        return [min(one.retention(ratio), 1.0) for one in labels for ratio in one.scores]
    units = {
        ratio: sum(whole) / len(whole)
        for ratio in {ratio for one in labels for ratio in one.scores}
        if (whole := [one.whole for one in labels if ratio in one.scores])
    }
    return [one.scores[ratio] / units[ratio] for one in labels for ratio in one.scores]


def _hats(ratio: float, places: Sequence[float]) -> list[float]:
    """How much of the value at each of rising places there is at a ratio; below the first, all of its."""
    found = [0.0] * len(places)
    above = next(place for place, other in enumerate(places) if ratio <= other)
    if above == 0:
        found[0] = 1.0
    else:
        low, high = places[above - 1], places[above]
        found[above] = (ratio - low) / (high - low)
        found[above - 1] = 1 - found[above]
    return found


def _between(points: Sequence[tuple[float, float]], ratio: float) -> float:
    if ratio <= points[0][0]:
        return points[0][1]
    for (low, value), (high, other) in pairwise(points):
        if ratio <= high:
            return value + (other - value) * (ratio - low) / (high - low)
    raise ValueError(f"ratio {ratio} is above 1")
