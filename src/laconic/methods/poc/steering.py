"""State the quality you need, get the strongest compression that is predicted to keep it (PoC, arXiv 2603.19733)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from laconic.backbone import Backbone
from laconic.core.results import Compressed, Stopwatch, added, whole
from laconic.core.segments import require_question, require_text
from laconic.errors import AdapterError, BudgetError, DataError
from laconic.methods.poc.calibration import Promise
from laconic.methods.poc.chunked import choose_each, compress_each
from laconic.methods.poc.labels import Made
from laconic.methods.poc.predictor import CurvePredictor, TextCurve
from laconic.methods.poc.promises import Promises, check_promise
from laconic.methods.poc.selection import LEAST_RATIO, PARTS, Choice, Curve, Policy, select
from laconic.methods.registry import shipped_adapter
from laconic.methods.roles import Compressor, Telling


@dataclass(frozen=True)
class Steered:
    """A text compressed to a floor.

    Attributes:
        promise: what the floor means, in words.
        margin: how far above the floor was aimed.
        reader: content name of whoever's quality is meant: who read the labelled texts.
    """

    compressed: Compressed
    choice: Choice
    promise: str
    margin: float
    reader: str


class PoC:
    """A compressor, the predictor that steers it, and what may be promised with both.

    Raises:
        AdapterError: the predictor was made for another compressor or reader.
    """

    def __init__(
        self,
        compressor: Compressor,
        predictor: CurvePredictor,
        promises: Promises,
        *,
        compressor_digest: str,
        reader: str | None = None,
        prompt: str | None = None,
    ) -> None:
        """
        Args:
            compressor_digest: what the compressor is (``compressors.compressor_digest``).
            reader, prompt: who will read what is left (``registry.reader_name``), and what it is asked with
                (``Reader.template``); None: whoever and whatever, at the user's own risk.
        """
        made = promises.made
        wanted = Made(
            predictor.backbone.content_hash,
            made.reader if reader is None else reader,
            compressor_digest,
            made.prompt if prompt is None else prompt,
            {},
        )
        wanted.require(made, "The predictor")
        self.compressor, self.predictor, self.promises = compressor, predictor, promises

    def compress(
        self,
        context: str,
        query: str | None = None,
        *,
        floor: float,
        promise: Promise = "mean",
        delta: float = 0.1,
        policy: Policy = "safe",
        least_ratio: float = LEAST_RATIO,
        each_chunk: bool = False,
        skip: Callable[[float], str | None] = lambda ratio: None,
    ) -> Steered:
        """The shortest context that is predicted to keep ``floor`` of the quality.

        Args:
            floor: retention in [0, 1]: the score of the compressed text over that of the whole.
            promise: what the floor means, see ``calibration``.
            delta: risk that is left, for ``risk`` and ``quantile``.
            policy: see ``select``; promises but ``mean`` are calibrated with ``safe``.
            least_ratio: no ratio below it is chosen; promises but ``mean`` are calibrated with the default.
            each_chunk: a ratio for each chunk of the predictor's; promises are calibrated with one for all of a text.
            skip: told a ratio, may say why the text had better be left alone; asked for the least one before anything
                is predicted, and for the one that was chosen.

        Raises:
            BudgetError: a floor or least ratio out of range.
            DocumentError: the text is empty.
            QuestionError: the compressor or the predictor reads questions, and there is none.
            LaconicError: no such promise.

        Where too few texts were held out to prove a promise, nothing is cut, and a note says so.
        """
        check_floor(floor)
        check_promise(promise, delta)
        if not 0 <= least_ratio <= 1:
            raise BudgetError(f"The least ratio {least_ratio} is not in [0, 1].", f"Leave it at {LEAST_RATIO}.")
        if promise != "mean" and (each_chunk or policy != "safe" or least_ratio != LEAST_RATIO):
            raise BudgetError(
                f"{promise} is calibrated with one ratio for a text, the policy safe and no ratio below {LEAST_RATIO}.",
                "Promise mean, or leave these as they are.",
            )
        require_text(context)
        if self.compressor.query_aware:  # what was labelled knew what it was for
            require_question(query)
        if (reason := skip(least_ratio)) is not None:  # it pays at no ratio, so there is nothing to predict
            return self._left_alone(context, policy, floor, promise, delta, reason)
        try:
            margin = self.promises.margin(floor, promise, delta)
        except DataError as error:
            reason = f"{error.problem.rstrip('.')}: the text is as it was"
            return self._left_alone(context, policy, floor, promise, delta, reason)
        watch = Stopwatch(self.predictor.backbone.device)
        with watch("score"):  # the compressor's own pass, which is remembered
            features = self._features(context, query)
        with watch("predict"):
            predicted = self.predictor.curve(context, query, features)
            curve = Remembered(predicted, () if promise == "mean" else self.promises.ratios)
            if each_chunk:
                choices, choice = choose_each(predicted, floor, policy, least_ratio)
            else:
                choices, choice = [], self._choose(curve, floor + margin, policy, least_ratio, promise)
        choice = choice if choice.curve else replace(choice, curve=told(curve))
        if choices and choice.ratio < 1 and skip(choice.ratio) is None:
            ratios = [one.ratio for one in choices]
            compressed = compress_each(self.compressor, self.predictor, context, query, ratios)
        else:
            compressed, ratio = self._at(choice.ratio, context, query, skip, promise)
            if ratio != choice.ratio:
                choice = self._moved(choice, ratio, curve)
        compressed = replace(compressed, seconds=added(watch.seconds, compressed.seconds))
        return self._steered(compressed, choice, floor, promise, delta, margin)

    def curve(self, context: str, query: str | None = None) -> TextCurve:
        """What is predicted of a text at any ratio."""
        return self.predictor.curve(context, query, self._features(context, query))

    def _features(self, context: str, query: str | None) -> Sequence[float] | None:
        if self.predictor.config.features and isinstance(self.compressor, Telling):
            return self.compressor.features(context, query)
        return None

    def _left_alone(
        self, context: str, policy: Policy, floor: float, promise: Promise, delta: float, reason: str
    ) -> Steered:
        compressed = whole(context, self.predictor.backbone.count_tokens(context), reason)
        return self._steered(compressed, Choice(1.0, 1.0, True, policy, []), floor, promise, delta, 0.0)

    def _steered(
        self, compressed: Compressed, choice: Choice, floor: float, promise: Promise, delta: float, margin: float
    ) -> Steered:
        words = self.promises.words(floor, promise, delta)
        return Steered(compressed, choice, words, margin, self.promises.made.reader)

    def _choose(self, curve: Curve, aim: float, policy: Policy, least_ratio: float, promise: Promise) -> Choice:
        """One ratio for the text; under a promise, one that was measured."""
        # above 1 selection gives up, yet the text as it is meets every floor up to 1
        found = select(curve, aim if aim <= 1.0 else math.inf, policy=policy, least_ratio=least_ratio)
        choice, ratio = replace(found, feasible=True), self.promises.ratio(found.ratio, promise)
        return choice if ratio == choice.ratio else self._moved(choice, ratio, curve)

    def _moved(self, choice: Choice, ratio: float, curve: Curve) -> Choice:
        """The same at another ratio, which its curve then has too."""
        if ratio >= 1:
            return replace(choice, ratio=1.0, retention=1.0)
        retention = float(curve([ratio])[0])
        others = [point for point in choice.curve if abs(point[0] - ratio) > 1e-9]  # it may have been asked before
        return replace(choice, ratio=ratio, retention=retention, curve=sorted([*others, (ratio, retention)]))

    def _at(
        self, ratio: float, context: str, query: str | None, skip: Callable[[float], str | None], promise: Promise
    ) -> tuple[Compressed, float]:
        """The text at a ratio, or at the next gentler one that leaves some of it, and that ratio; or left alone: 1."""
        reason = "nothing may be cut: the text is as it was" if ratio >= 1 else skip(ratio)
        while reason is None:
            try:
                return self.compressor.compress(context, query, ratio=ratio), ratio
            except BudgetError:  # less than one segment: the next gentler ratio of the search's first look, or measured
                ratio = self.promises.ratio((math.floor(ratio * PARTS + 1e-9) + 1) / PARTS, promise)
                reason = "no part of it is short enough: the text is as it was" if ratio >= 1 else skip(ratio)
        return whole(context, self.predictor.backbone.count_tokens(context), reason), 1.0


class Remembered:
    """A curve that is asked about some ratios along with the first others, and about none a second time.

    A search has two looks at a curve; what else there is to know of it comes with the first.
    """

    def __init__(self, curve: Curve, along: Sequence[float]) -> None:
        self.curve, self.along = curve, along
        self.known: dict[float, float] = {}

    def __call__(self, ratios: Sequence[float]) -> list[float]:
        if not self.known.keys() >= set(ratios):
            asked = [ratio for ratio in dict.fromkeys([*ratios, *self.along]) if ratio not in self.known]
            self.known |= zip(asked, map(float, self.curve(asked)), strict=True)
        return [self.known[ratio] for ratio in ratios]


def told(curve: Curve) -> list[tuple[float, float]]:
    """A curve at a few ratios, for people."""
    ratios = [place / PARTS for place in range(1, PARTS)]
    return list(zip(ratios, map(float, curve(ratios)), strict=True))


def check_floor(floor: float) -> None:
    """Raise ``BudgetError`` for a floor outside [0, 1]."""
    if not 0 <= floor <= 1:
        raise BudgetError(f"The floor {floor} is not in [0, 1].", "0.9 keeps 90 % of the quality.")


def load_predictor(backbone: Backbone, folder: str | os.PathLike[str] | None = None) -> tuple[CurvePredictor, Promises]:
    """A trained predictor and its promises; None: what is shipped for the backbone.

    Raises:
        AdapterError: there is none, it is damaged, or made for another backbone.
    """
    found = Path(folder) if folder is not None else shipped_adapter(backbone, CurvePredictor.name)
    if found is None:
        raise AdapterError(
            f"There is no predictor for {backbone.name}.",
            "Label texts with `laconic label`, train one with recipes/poc/cpu.yaml, and name it with --predictor.",
        )
    return served(backbone, found), Promises.load(found)


def served(backbone: Backbone, folder: str | os.PathLike[str]) -> CurvePredictor:
    """A saved predictor as it is asked: what promises are found out with, to the last rounding."""
    return CurvePredictor.from_pretrained(folder, backbone).merge()
