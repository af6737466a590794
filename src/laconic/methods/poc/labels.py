"""What predictors learn from: how a text scored whole, and compressed to several ratios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from laconic.errors import DataError


@dataclass(frozen=True)
class Labels:
    """What became of one text: its score whole, and at each ratio.

    Attributes:
        task: name of the task, whose metric the scores are of.
        whole: score of the text as it is, s(1), above 0.
        scores: by ratio in (0, 1).
    """

    task: str
    whole: float
    scores: Mapping[float, float]

    def __post_init__(self) -> None:
        if not self.whole > 0:
            raise DataError("A text that scores nothing when whole has no retention.", "Leave it out, and count it.")
        if not all(0 < ratio < 1 for ratio in self.scores):
            raise DataError("Ratios of labels must lie between 0 and 1.", "At ratio 1 retention is 1 by definition.")

    def retention(self, ratio: float) -> float:
        return self.scores[ratio] / self.whole
