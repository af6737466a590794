"""What predictors learn from: how a text scored whole, and compressed to several ratios.

Labels hold for one reader, compressor, prompt and metric alone (``Made``); files of labels carry who made them, and so
do predictors. Zero-scoring texts have no retention and are left out, and counted; no document is in two splits.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from laconic.errors import AdapterError, DataError

Split = Literal["train", "validation", "calibration"]
#: shares of the documents, in this order
SPLITS: tuple[tuple[Split, float], ...] = (("train", 0.7), ("validation", 0.1), ("calibration", 0.2))


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
        if not self.scores or not all(0 < ratio < 1 for ratio in self.scores):
            raise DataError(
                "Labels need ratios, and all of them between 0 and 1.", "At ratio 1 retention is 1 by definition."
            )

    def retention(self, ratio: float) -> float:
        return self.scores[ratio] / self.whole


@dataclass(frozen=True)
class Made:
    """Who made labels.

    Attributes:
        backbone, reader: content names of the decoder and of what it was adapted to.
        compressor: name and digest.
        prompt: what stands between context and answer.
        metrics: by task, the metric and the longest answer it was taken of.
    """

    backbone: str
    reader: str
    compressor: str
    prompt: str
    metrics: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Without the metrics of single tasks: a predictor is for the tasks it has seen, and others like them."""
        known = {name: value for name, value in asdict(self).items() if name != "metrics"}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]

    def require(self, other: Made, what: str) -> None:
        """Raise ``AdapterError`` unless both are of one reader, compressor and prompt, and tasks of one metric."""
        for name in ("backbone", "reader", "compressor", "prompt"):
            if getattr(self, name) != getattr(other, name):
                raise AdapterError(
                    f"{what} was made with the {name} {getattr(other, name)!r}, not {getattr(self, name)!r}.",
                    "Label and train anew for this one, or use that one.",
                )
        for task in self.metrics.keys() & other.metrics.keys():
            if self.metrics[task] != other.metrics[task]:
                raise AdapterError(
                    f"{what} measured {task} by {other.metrics[task]}, not by {self.metrics[task]}.", "Label it anew."
                )


@dataclass(frozen=True)
class Labelled:
    """A text with its labels.

    Attributes:
        document: the same for all questions about one document.
        whole, scores: score of the text as it is, and by ratio.
        delivered: delivered ratio by requested one.
        features: what the compressor found in it (``roles.Telling``); empty if it is none that tells.
    """

    id: str
    task: str
    document: str
    context: str
    question: str
    whole: float
    scores: Mapping[float, float]
    delivered: Mapping[float, float]
    features: Sequence[float] = ()

    @property
    def labels(self) -> Labels | None:
        """None for a text that scores nothing when whole, and so has no retention, or that no ratio was possible of."""
        return Labels(self.task, self.whole, self.scores) if self.whole > 0 and self.scores else None


def source_of(document: str) -> str:
    """The document that an excerpt is of, whose id goes on behind a #; any other is its own."""
    return document.partition("#")[0]


def split_of(document: str) -> Split:
    """Which split a document is in, for ever; its excerpts are with it."""
    document = source_of(document)
    place = int(hashlib.sha256(document.encode()).hexdigest()[:8], 16) / 16**8
    for name, share in SPLITS:
        if place < share:
            return name
        place -= share
    return SPLITS[-1][0]


def read_labels(paths: Sequence[str | Path]) -> tuple[Made, list[Labelled]]:
    """All labels of files that ``laconic label`` wrote, shards of one run or runs over several tasks.

    Raises:
        DataError: a file is missing, no file of labels, or not finished.
        AdapterError: they were made by different readers, compressors, prompts or metrics.
    """
    found: dict[tuple[str, str], Labelled] = {}
    made: Made | None = None
    for path in map(Path, paths):
        content = _content(path)
        own = _made(content["made"], path)
        if made is not None:
            made.require(own, str(path))
            own = Made(**{**asdict(own), "metrics": {**made.metrics, **own.metrics}})
        made = own
        for line in content["items"]:
            one = _labelled(line, path)
            before = found.get((one.task, one.id))
            found[one.task, one.id] = one if before is None else _together(before, one, path)
    if made is None:
        raise DataError("No files of labels.", "Make some with `laconic label`.")
    return made, list(found.values())


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not {"made", "items"} <= set(content) or not isinstance(content["items"], list):
            raise ValueError("no labels in it")
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.", "Make it with `laconic label`, or let that finish.") from error
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no file of labels ({error}).", "Make one with `laconic label`.") from error
    return dict(content)


def _made(content: Mapping[str, Any], path: Path) -> Made:
    try:
        return Made(**content)
    except TypeError as error:
        raise DataError(
            f"{path} does not say who made its labels ({error}).", "Make them with `laconic label`."
        ) from error


def _labelled(line: Mapping[str, Any], path: Path) -> Labelled:
    try:
        scores = {float(ratio): float(score) for ratio, score in line["scores"].items()}
        delivered = {float(ratio): float(share) for ratio, share in line["delivered"].items()}
        texts = (str(line[name]) for name in ("id", "task", "document", "context", "question"))
        ident, task, document, context, question = texts
        features = [float(value) for value in line.get("features", [])]
        if not all(map(math.isfinite, (float(line["whole"]), *scores.values(), *delivered.values(), *features))):
            raise ValueError("not all of it are finite numbers")
        return Labelled(ident, task, document, context, question, float(line["whole"]), scores, delivered, features)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} has an item that is no label ({type(error).__name__}: {error}).", "Make it with `laconic label`."
        ) from error


def _together(one: Labelled, other: Labelled, path: Path) -> Labelled:
    """The same text labelled at other ratios too.

    Raises:
        DataError: they are different texts of one name, or were scored differently.
    """
    twice = one.scores.keys() & other.scores.keys()
    same = all(one.scores[ratio] == other.scores[ratio] for ratio in twice)
    if not same or (one.context, one.question, one.whole) != (other.context, other.question, other.whole):
        raise DataError(
            f"{path} has another text {one.id!r} of {one.task}, or scored it otherwise, than a file before.",
            "Read files of one set of texts and one reader, and leave one out where a ratio was labelled twice.",
        )
    return replace(one, scores={**one.scores, **other.scores}, delivered={**one.delivered, **other.delivered})
