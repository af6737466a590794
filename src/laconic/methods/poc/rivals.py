"""What a predictor that reads the text must beat to earn its keep (PoC's specification, sections 2.5 and 5).

- ``FeatureCurve``: a ridge regression on what the compressor's pass has found anyway (``pruning.summary``).
- ``Threshold``: one score, the same for all texts, above which words stay; no curve at all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laconic.errors import DataError
from laconic.methods.poc.labels import Labels

Array = np.ndarray


@dataclass(frozen=True)
class FeatureCurve:
    """Retention at knots ``(k / K) ** 2`` as a linear function of features, straight lines between, never falling.

    Attributes:
        weights: ``[F + 1, K]``, of all knots below ratio 1; the last row is the constant.
        mean, scale: of the features, ``[F]``.
    """

    weights: Array
    mean: Array
    scale: Array

    @classmethod
    def fit(cls, given: Array, labels: Sequence[Labels], *, knots: int = 20, ridge: float = 1.0) -> FeatureCurve:
        """By least squares over all labelled ratios of all texts.

        Args:
            given: features of the labels' texts, ``[n, F]``.

        Raises:
            DataError: there are none, or another number of features than of labels.
        """
        if not len(labels) or len(given) != len(labels):
            raise DataError(f"{len(given)} rows of features for {len(labels)} labels.", "Give one for each.")
        mean, scale = given.mean(0), given.std(0) + 1e-9
        ones = np.ones((len(given), 1))
        known = np.concatenate([(given - mean) / scale, ones], axis=1)
        rows, targets = [], []
        for own, one in zip(known, labels, strict=True):
            for ratio in one.scores:
                hats = _hats(ratio, knots)
                # the last knot is 1 by definition, so what it contributes is no unknown
                rows.append(np.outer(own, hats[:-1]).ravel())
                targets.append(min(max(one.retention(ratio), 0.0), 1.0) - hats[-1])
        design, wanted = np.array(rows), np.array(targets)
        penalty = np.diag(np.full(design.shape[1], float(ridge)))
        # the mean curve is free, and goes on straight where nothing was labelled
        bends = np.diff(np.eye(knots), n=2, axis=0)
        penalty[-knots:, -knots:] = 1e-3 * bends.T @ bends
        solved = np.linalg.lstsq(design.T @ design + penalty, design.T @ wanted, rcond=None)[0]
        return cls(solved.reshape(known.shape[1], knots), mean, scale)

    def curve(self, given: Array) -> _Knots:
        """The curve of a text with these features ``[F]``."""
        known = np.append((given - self.mean) / self.scale, 1.0)
        values = np.append(np.clip(known @ self.weights, 0, 1), 1.0)
        return _Knots(np.maximum.accumulate(values))


@dataclass(frozen=True)
class _Knots:
    values: Array

    def __call__(self, ratios: Sequence[float]) -> list[float]:
        return [float(_hats(ratio, len(self.values) - 1) @ self.values) for ratio in ratios]


@dataclass(frozen=True)
class Threshold:
    """Scores above which words stay, by the mean retention they had: strongest compression first.

    Attributes:
        levels: (score, mean retention), scores falling.
    """

    levels: tuple[tuple[float, float], ...]

    @classmethod
    def fit(cls, scores: Sequence[Sequence[float]], labels: Sequence[Labels], *, count: int = 100) -> Threshold:
        """Try scores spread over those of all texts; retention between labelled ratios is by straight lines.

        Raises:
            DataError: there are none, or another number of texts than of labels.
        """
        if not len(labels) or len(scores) != len(labels):
            raise DataError(f"Scores of {len(scores)} texts for {len(labels)} labels.", "Give one for each.")
        levels = np.quantile(np.concatenate([np.asarray(own, dtype=float) for own in scores]), np.linspace(1, 0, count))
        found = []
        for level in levels:
            kept = [_interpolated(one, share_above(own, level)) for own, one in zip(scores, labels, strict=True)]
            found.append((float(level), float(np.mean(kept))))
        return cls(tuple(found))

    def ratio(self, scores: Sequence[float], floor: float) -> float:
        """The share of a text's words that stay at the first level from which on the floor is met."""
        chosen = None
        for level, retention in reversed(self.levels):
            if retention < floor:
                break
            chosen = level
        return 1.0 if chosen is None else share_above(scores, chosen)


def share_above(scores: Sequence[float], level: float) -> float:
    """The share of scores at or above a level."""
    ranked = sorted(scores)
    return 1 - bisect_left(ranked, level) / len(ranked)


def _interpolated(labels: Labels, ratio: float) -> float:
    ratios = sorted(labels.scores)
    known = [0.0, *ratios, 1.0]
    values = [labels.retention(ratios[0]), *map(labels.retention, ratios), 1.0]
    return float(
        np.interp(ratio, known, np.clip(values, 0.0, 1.0))
    )  # as all that is predicted: a gain makes up for no loss


def _hats(ratio: float, knots: int) -> Array:
    """How much of each of the values at ``(k / K) ** 2``, k = 0..K, there is at a ratio."""
    found = np.zeros(knots + 1)
    below = min(int(np.sqrt(ratio) * knots + 1e-12), knots - 1)
    low, high = (below / knots) ** 2, ((below + 1) / knots) ** 2
    share = min(max((ratio - low) / (high - low), 0.0), 1.0)
    found[below], found[below + 1] = 1 - share, share
    return found
