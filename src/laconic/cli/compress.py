"""``laconic compress``: a document made short enough, as text for any language model."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from laconic.backbone import Backbone
from laconic.cli.loading import open_backbone
from laconic.cli.output import check_place, print_json
from laconic.cli.profile import reason_not_to
from laconic.core.files import write_whole
from laconic.core.results import Compressed, Stopwatch, added, whole
from laconic.core.segments import require_question, resolve_budget
from laconic.data.documents import read_document
from laconic.errors import BudgetError, DataError, LaconicError, QuestionError
from laconic.methods.poc.calibration import Promise
from laconic.methods.poc.compressors import ASKING, CLASSIFIER, check_steerable, compressor_digest, load_steerable
from laconic.methods.poc.predictor import CurvePredictor
from laconic.methods.poc.promises import Promises, check_promise
from laconic.methods.poc.selection import GRID, PARTS, Policy
from laconic.methods.poc.steering import PoC, Steered, check_floor, load_predictor
from laconic.methods.pruning.protect import check_protected
from laconic.methods.roles import Compressor

#: columns of the drawn curve
BAR = 40


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    documents: list[str]
    query: str | None
    floor: float | None
    ratio: float | None
    budget: int | None
    promise: str
    delta: float
    policy: str
    each_chunk: bool
    method: str
    protect: tuple[str, ...]
    auto: bool
    out: Path | None
    predictor: str | None
    classifier: str | None
    backbone: str | None
    dtype: str
    device: str

    def check(self) -> None:
        """Raise ``LaconicError`` for whatever is wrong, before a model is loaded."""
        contracts = [value for value in (self.floor, self.ratio, self.budget) if value is not None]
        if len(contracts) != 1:
            raise BudgetError(
                "Say what is wanted: a floor, a ratio or a budget, and one of them alone.",
                "--floor 0.9 keeps 90 % of the quality, --ratio 0.25 a quarter of the tokens, --budget 500 so many.",
            )
        check_steerable(self.method, self.protect, self.classifier)
        if self.method == "ram":
            raise LaconicError(
                "RAM leaves vectors for its own decoder beside text.",
                "Use `laconic ask --method ram`, or another method.",
            )
        check_protected(self.protect)
        check_promise(self.promise, self.delta)
        if self.policy not in ("first", "safe"):
            raise LaconicError(f"{self.policy!r} is no policy.", "Choose first or safe.")
        if self.policy == "first" and self.promise != "mean":
            raise LaconicError("Promises are calibrated with the policy safe.", "Leave --policy out.")
        if self.each_chunk and (self.floor is None or self.promise != "mean"):
            raise LaconicError(
                "A ratio for each chunk comes of a floor, and promises the mean.", "Give --floor, leave --promise out."
            )
        if self.floor is not None:
            check_floor(self.floor)
        elif self.policy != "safe":
            raise BudgetError("A policy looks for a floor.", "Give --floor instead, or leave --policy out.")
        elif (self.promise, self.delta, self.predictor) != ("mean", 0.1, None):
            raise BudgetError(
                "What is promised is a floor.", "Give --floor instead, or leave --promise, --delta and --predictor out."
            )
        else:  # of a text of one token; what is out of range is so for any
            resolve_budget(1, self.ratio, self.budget)
        if self.query is not None:
            require_question(self.query)
        elif self.method in ASKING:
            raise QuestionError(f"{self.method} shortens for a question.", "Say with --query what will be asked.")
        elif self.floor is not None and self.method == CLASSIFIER and self.classifier is None:
            raise QuestionError("A floor is of what will be asked.", "Say with --query what that is.")
        if self.out is not None:
            check_place(self.out)


@dataclass(frozen=True)
class Outcome:
    """What came of it; ``steered`` where a floor was given."""

    compressed: Compressed
    steered: Steered | None = None


def run(request: Request, as_json: bool) -> None:
    """Compress and print: the text goes to stdout (or a file), everything for people to stderr."""
    request.check()
    document = read_document(request.documents)
    people, watch = Console(stderr=True, quiet=as_json), Stopwatch()
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        with people.status("load the models"), watch("load"):
            backbone = open_backbone(request.backbone, request.dtype, request.device)
            compressor = load_steerable(
                request.method, backbone, protect=request.protect, classifier=request.classifier
            )
            predictor = load_predictor(backbone, request.predictor) if request.floor is not None else None
        with people.status("compress"):
            outcome = compress(request, backbone, compressor, predictor, document.text)
    text = outcome.compressed.text
    assert text is not None
    if request.out is not None:
        try:
            request.out.parent.mkdir(parents=True, exist_ok=True)
            write_whole(request.out, text)
        except OSError as error:
            raise DataError(
                f"{request.out} cannot be written: {error.strerror or error}.", "Choose another."
            ) from error
    if as_json:
        print_json(_as_json(request, outcome, watch.seconds))
        return
    if request.out is None:
        print(text)
    _show(people, request, document.name, outcome, watch.seconds)


def compress(
    request: Request,
    backbone: Backbone,
    compressor: Compressor,
    predictor: tuple[CurvePredictor, Promises] | None,
    text: str,
) -> Outcome:
    """The text under the contract that was asked for; with ``auto``, left alone where compressing it would not pay.

    Args:
        predictor: and what it promises, for a floor.
    """
    tokens = backbone.count_tokens(text)

    def skip(ratio: float) -> str | None:
        return reason_not_to(request.method, backbone, compressor, tokens, ratio) if request.auto else None

    if request.floor is None:
        ratio = request.ratio if request.ratio is not None else (request.budget or 0) / max(tokens, 1)
        if ratio < 1 and (reason := skip(ratio)):
            return Outcome(replace(whole(text, tokens, reason), requested_ratio=ratio))
        return Outcome(compressor.compress(text, request.query, ratio=request.ratio, budget=request.budget))
    assert predictor is not None, "a floor has one"
    steered = PoC(compressor, *predictor, compressor_digest=compressor_digest(request.method, compressor)).compress(
        text,
        request.query,
        floor=request.floor,
        promise=cast(Promise, request.promise),
        delta=request.delta,
        policy=cast(Policy, request.policy),
        each_chunk=request.each_chunk,
        skip=skip,
    )
    return Outcome(steered.compressed, steered)


def _as_json(request: Request, outcome: Outcome, loading: dict[str, float]) -> dict[str, Any]:
    compressed, steered = outcome.compressed, outcome.steered
    choice = steered.choice if steered else None
    seconds = added(loading, compressed.seconds)
    return {
        "text": compressed.text,
        "method": request.method,
        "document_tokens": compressed.document_tokens,
        "compressed_tokens": compressed.context_tokens,
        "requested_ratio": round(choice.ratio if choice else compressed.requested_ratio, 5),
        "delivered_ratio": round(compressed.delivered_ratio, 5),
        "floor": request.floor,
        "predicted_retention": round(choice.retention, 4) if choice else None,
        "curve": [[round(ratio, 5), round(value, 4)] for ratio, value in choice.curve] if choice else None,
        "feasible": choice.feasible if choice else True,
        "promise": steered.promise if steered else None,
        "reader": steered.reader if steered else None,
        "margin": round(steered.margin, 4) if steered else None,
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
        "notes": compressed.notes,
    }


def _show(people: Console, request: Request, name: str, outcome: Outcome, loading: dict[str, float]) -> None:
    compressed, steered = outcome.compressed, outcome.steered
    people.print()
    for note in compressed.notes:
        people.print(Text(f"note: {note}", style="dim"))
    table = Table(title="bill", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_row("document", f"{name}, {compressed.document_tokens:,} tokens")
    table.add_row("left", f"{compressed.context_tokens:,} tokens ({compressed.delivered_ratio:.1%})")
    if steered:
        table.add_row("floor", f"{request.floor:g}; {steered.promise}")
        aim = f" (aimed {steered.margin:.2f} above the floor)" if steered.margin else ""
        table.add_row("chosen", f"ratio {steered.choice.ratio:.3f}, predicted {steered.choice.retention:.2f}{aim}")
    seconds = added(loading, compressed.seconds)
    table.add_row("seconds", "  ".join(f"{stage} {value:.2f}" for stage, value in seconds.items()))
    people.print(table)
    if steered and steered.choice.curve:
        people.print(Text("predicted quality by share of tokens kept", style="dim"))
        for ratio, value in _shown(steered.choice.curve, steered.choice.ratio):
            bar = "█" * round(BAR * min(max(value, 0.0), 1.0))
            mark = "  <" if _same(ratio, steered.choice.ratio) else ""
            people.print(Text(f"  {ratio:6.1%}  {value:4.2f} ") + Text(bar, "cyan") + Text(mark, "bold"))


def _shown(curve: list[tuple[float, float]], chosen: float) -> list[tuple[float, float]]:
    """The search's first look, and what was chosen behind its second."""
    return [(ratio, value) for ratio, value in curve if round(ratio * GRID) % PARTS == 0 or _same(ratio, chosen)]


def _same(one: float, other: float) -> bool:
    return abs(one - other) < 1e-9
