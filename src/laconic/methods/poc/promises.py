"""What a predictor was found to be worth on texts held out from its training, and what may be promised with it.

The whole selection is run on each held-out text for every target of a fixed grid, once, when the predictor is made.
With that, a margin can be found for any floor and any risk later on. Promises but ``mean`` choose among the ratios that
all held-out texts were labelled at, so that they rest on what was measured and on nothing between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import AdapterError, LaconicError
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.calibration import Promise, quantile_margin, risk_margin
from laconic.methods.poc.labels import Labelled, Labels, Made, Split, split_of
from laconic.methods.poc.selection import GRID, LEAST_RATIO, Curve, select

FILE = "promises.json"
#: retention that selection is run for; beyond 1 the text is left alone
TARGETS = (*(round(0.02 * step, 2) for step in range(51)), 1.000001)


@dataclass(frozen=True)
class Promises:
    """How selection did on held-out texts.

    Attributes:
        made: who made the labels; the predictor is for these alone.
        outcomes: retention of each held-out text at each target, ``[texts][targets]``.
        documents: the one that each held-out text is of.
        ratios: that promises but ``mean`` choose among, rising; 1, at which the text is left alone, goes without
            saying.
        average: mean curve of the training texts, and of each task's.
    """

    made: Made
    outcomes: list[list[float]]
    documents: list[str]
    ratios: list[float]
    average: AverageCurve
    by_task: Mapping[str, AverageCurve]

    def margin(self, floor: float, promise: Promise, delta: float) -> float:
        """How far above the floor selection has to aim. Errors as ``calibration``."""
        if promise == "mean":
            return 0.0
        first = next((place for place, target in enumerate(TARGETS) if target >= floor - 1e-9), len(TARGETS) - 1)
        grid = [max(target - floor, 0.0) for target in TARGETS[first:]]
        if promise == "risk" and floor >= 1:  # no number of texts proves that nothing is ever lost, but cutting nothing
            return grid[-1]
        outcomes = [one[first:] for one in self.outcomes]
        find = risk_margin if promise == "risk" else quantile_margin
        return find(outcomes, grid, floor, delta, self.documents)

    def ratio(self, ratio: float, promise: Promise) -> float:
        """The ratio that a promise allows for one that was chosen: the next gentler one that was measured."""
        return ratio if promise == "mean" else gentler(self.ratios, ratio)

    def words(self, floor: float, promise: Promise, delta: float) -> str:
        """The promise, said to a person."""
        texts, documents = len(self.outcomes), len(set(self.documents))
        those = f"{texts} held-out ones" if texts == documents else f"{texts} held-out ones of {documents} documents"
        those += ", read by the model that labelled them,"
        kept, risk = percent(floor), percent(delta)
        if promise == "risk":
            sure = percent(1 - delta)
            return (
                f"risk: with {sure} confidence, texts like the {those} keep {kept} of their quality or more in the mean"
            )
        if promise == "quantile":
            return (
                f"quantile: a text like the {those} keeps less than {kept} of its quality with a probability of {risk} "
                "at the most"
            )
        return f"mean: what is predicted for this text reaches {kept}; of a single text nothing is promised"

    def to_text(self) -> str:
        """What the file of a saved predictor says."""
        content = asdict(self) | {
            "average": self.average.to_dict(),
            "by_task": {task: curve.to_dict() for task, curve in self.by_task.items()},
            "outcomes": [[round(value, 4) for value in one] for one in self.outcomes],
        }
        return json.dumps(content) + "\n"

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Promises:
        """Raises ``AdapterError`` where the file is missing or damaged."""
        path = Path(folder) / FILE
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found = cls(
                Made(**content["made"]),
                content["outcomes"],
                content["documents"],
                content["ratios"],
                AverageCurve.from_dict(content["average"]),
                {task: AverageCurve.from_dict(curve) for task, curve in content["by_task"].items()},
            )
            if any(len(one) != len(TARGETS) for one in found.outcomes) or len(found.documents) != len(found.outcomes):
                raise ValueError("other targets")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise AdapterError(
                f"{path} is missing or damaged ({type(error).__name__}): nothing can be promised without it.",
                "Train with recipes/poc/cpu.yaml, which makes it.",
            ) from error
        return found


def percent(share: float) -> str:
    """A share as it was asked for: nothing is promised that is only nearly so."""
    return f"{100 * share:.6g}%"


def outcomes_of(curve: Curve, labels: Labels, ratios: Sequence[float]) -> list[float]:
    """Retention of one text, in [0, 1], at each target: where selection would have taken it, at one of these ratios.

    Args:
        ratios: rising, all of them labelled.
    """
    looked_up = tabled(curve)
    chosen = [select(looked_up, target, policy="safe", least_ratio=LEAST_RATIO).ratio for target in TARGETS]
    return [_measured(labels, gentler(ratios, ratio)) for ratio in chosen]


def common_ratios(texts: Sequence[Labelled]) -> list[float]:
    """The ratios that all of these were labelled at, rising."""
    return sorted(set.intersection(*(set(one.scores) for one in texts))) if texts else []


def gentler(ratios: Sequence[float], ratio: float) -> float:
    """The least of some ratios that is no stronger than one; 1 if there is none."""
    return min((known for known in ratios if known >= ratio - 1e-9), default=1.0)


def tabled(curve: Curve) -> Curve:
    """The same curve, asked once for all ratios of the search's grid."""
    values = [*curve([place / GRID for place in range(1, GRID)]), 1.0]
    return lambda ratios: [values[round(ratio * GRID) - 1] for ratio in ratios]


def _measured(labels: Labels, ratio: float) -> float:
    return 1.0 if ratio >= 1 else min(max(labels.retention(ratio), 0.0), 1.0)


def retention_at(labels: Labels, ratios: Sequence[float]) -> list[float]:
    """Retention at any ratios, by straight lines between labelled ones: for pictures."""
    known = sorted(labels.scores)
    values = [labels.retention(ratio) for ratio in known]
    return [float(value) for value in np.interp(ratios, [*known, 1.0], [*values, 1.0])]


def check_promise(promise: str, delta: float) -> None:
    """Raise ``LaconicError`` for what is no promise."""
    if promise not in ("mean", "risk", "quantile"):
        raise LaconicError(f"{promise!r} is no promise.", "Choose mean, risk or quantile.")
    if not 0 < delta < 1:
        raise LaconicError(f"delta is {delta}.", "Choose a probability between 0 and 1, 0.1 say.")


def split(labelled: Sequence[Labelled], name: Split) -> list[Labelled]:
    """Texts of a split that have a retention."""
    return [one for one in labelled if one.labels is not None and split_of(one.document) == name]
