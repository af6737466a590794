"""``laconic ask``: read a document, answer a question, show what was kept and what it cost."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from laconic.cli.loading import open_backbone
from laconic.cli.output import print_json
from laconic.core.results import Answer, Compressed, Stopwatch, peak_memory_mb
from laconic.core.segments import require_question
from laconic.data.documents import read_document
from laconic.errors import BudgetError, LaconicError, QuestionError
from laconic.generation.answer import Reader
from laconic.methods.budget import auto_budget
from laconic.methods.poc.calibration import Promise
from laconic.methods.poc.compressors import DEFAULT as STEERED
from laconic.methods.poc.compressors import SCORED, check_steerable, compressor_digest, load_steerable
from laconic.methods.poc.promises import check_promise
from laconic.methods.poc.steering import PoC, check_floor, load_predictor
from laconic.methods.registry import WHOLE, LoadedMethod, check_names, load_method, reader_name

SHOWN_PASSAGES = 3
DEFAULT = "ram"
#: suffix of the files that `laconic read` makes
MEMORY = ".memory"


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    documents: list[str]
    question: str
    #: what was asked for; None leaves it to the document
    wanted: str | None
    factor: str
    budget: int | None
    backbone: str | None
    adapter: str | None
    max_new_tokens: int
    dtype: str
    device: str
    floor: float | None = None
    promise: str = "mean"
    delta: float = 0.1
    predictor: str | None = None

    @property
    def method(self) -> str:
        """A memory file is CoMeT's; documents are read with RAM unless something else is wanted."""
        if self.wanted:
            return self.wanted
        return "comet" if self.of_memory else DEFAULT if self.floor is None else STEERED

    def check_floor(self) -> None:
        """Raise ``LaconicError`` for a floor that cannot be meant, before any work."""
        check_promise(self.promise, self.delta)
        if self.floor is None:
            if (self.promise, self.delta, self.predictor) != ("mean", 0.1, None):
                raise BudgetError(
                    "What is promised is a floor.", "Give --floor too, or leave --promise, --delta and --predictor out."
                )
            return
        check_floor(self.floor)
        check_steerable(self.method)
        if self.factor != "auto" or self.budget is not None:
            raise BudgetError("A floor says how much is to be kept.", "Leave --factor and --budget out.")

    @property
    def of_memory(self) -> bool:
        return any(name.endswith(MEMORY) for name in self.documents)

    def ratio(self) -> float | None:
        """1/factor, or None for auto; ``full`` has the ratio 1.

        Raises:
            BudgetError: a factor that is no number, or not above 1, or a saving asked of ``full``.
        """
        if self.method in WHOLE:
            if self.factor not in ("auto", "1") or self.budget is not None:
                raise BudgetError(
                    f"The method {self.method} takes the whole document in: its factor is 1.",
                    "Leave --factor and --budget out.",
                )
            return 1.0
        if self.factor == "auto":
            if self.budget is not None and self.budget < 1:
                raise BudgetError(f"The budget of {self.budget} tokens is too small.", "Give at least 1 token.")
            return None
        try:
            factor = float(self.factor)
        except ValueError:
            factor = math.nan
        if not 1 < factor < math.inf:
            raise BudgetError(f"The factor {self.factor!r} is not a number above 1.", "Give 4 for a quarter, or auto.")
        if self.budget is not None:
            raise BudgetError("Both --factor and --budget are given.", "Give one of them.")
        return 1 / factor


def run(request: Request, as_json: bool) -> None:
    """Answer and print: everything for people goes to stderr but the answer itself, JSON goes to stdout alone."""
    if request.of_memory:
        ask_memory(request, as_json)
        return
    ratio = request.ratio()
    check_names([request.method])
    request.check_floor()
    question = require_question(request.question)
    document = read_document(request.documents)
    people, out, watch = _consoles(as_json)
    people.print(Text(f"{document.name}: {len(document.text):,} characters", style="dim"))
    # a library that prints must not spoil the one JSON object
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        with _stage(people, "load the model"), watch("load"):
            backbone = open_backbone(request.backbone, request.dtype, request.device)
            method = load_method(request.method, backbone, request.adapter)
        room = _room(request, method, question)
        with _stage(people, f"compress with {request.method}"):
            if request.floor is not None:
                compressed = _to_floor(request, request.floor, method, document.text, room)
            elif ratio is None:
                compressed = method.compressor.compress(document.text, question, budget=room)
            else:
                if not method.reader.unbounded:
                    with watch("count"):
                        seen = math.floor(ratio * backbone.count_tokens(document.text))
                    _check_fits(request, seen, room)
                compressed = method.compressor.compress(document.text, question, ratio=ratio)
        answer = _answer(request, method.reader, compressed, people, out)
    _print(request, backbone.name, answer, watch.seconds, people, out, as_json)


def _to_floor(request: Request, floor: float, method: LoadedMethod, text: str, room: int) -> Compressed:
    """The strongest compression that is predicted to keep the floor; what was chosen and promised is among its notes.

    Raises:
        BudgetError: what is left does not fit the window.
    """
    backbone = method.reader.backbone
    predictor, promises = load_predictor(backbone, request.predictor)
    # as labels are made: with the plain backbone as scorer, where there is one
    compressor = load_steerable(request.method, backbone) if request.method in SCORED else method.compressor
    steered = PoC(
        compressor,
        predictor,
        promises,
        compressor_digest=compressor_digest(request.method, compressor),
        reader=reader_name(backbone, request.adapter),
        prompt=method.reader.template,
    ).compress(text, request.question, floor=floor, promise=cast(Promise, request.promise), delta=request.delta)
    seen = steered.compressed.context_tokens
    if seen > room:
        raise BudgetError(
            f"To keep {floor:g} of the quality the decoder would see {seen} tokens; its window has room for {room}.",
            "Lower the floor, or use --factor auto.",
        )
    chosen = f"ratio {steered.choice.ratio:.3f} is predicted to keep {steered.choice.retention:.2f} of the quality"
    return replace(steered.compressed, notes=[*steered.compressed.notes, chosen, steered.promise])


def ask_memory(request: Request, as_json: bool) -> None:
    """Answer from a file that ``laconic read`` made; nothing is read but the question.

    Raises:
        LaconicError: documents beside it, another method, or a file that does not fit the model.
    """
    from laconic.methods.comet.files import load_memory, require_memory_file
    from laconic.methods.comet.reader import CoMeTReader

    if len(request.documents) > 1:
        raise LaconicError("A memory file is asked alone.", "Add documents with `laconic read --append`.")
    if request.method != "comet" or request.factor != "auto" or (request.budget, request.floor) != (None, None):
        raise LaconicError("A memory file is asked as it is.", "Leave --method, --factor, --budget and --floor out.")
    request.check_floor()
    require_memory_file(request.documents[0])
    question = require_question(request.question)
    people, out, watch = _consoles(as_json)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        with _stage(people, "load the model"), watch("load"):
            backbone = open_backbone(request.backbone, request.dtype, request.device)
            reader = load_method("comet", backbone, request.adapter).reader
        assert isinstance(reader, CoMeTReader)
        with _stage(people, "load the memory"), watch("memory"):
            saved = load_memory(request.documents[0], reader.comet)
        tokens = sum(source.read for source in saved.sources)
        whole = Compressed(tokens, tokens, requested_ratio=1.0, state=saved.stream)
        unfinished = [
            f"of {s.name} {s.read:,} of {s.tokens:,} tokens were read" for s in saved.sources if not s.complete
        ]
        answer = _answer(
            replace(request, question=question),
            reader,
            replace(reader.resume(saved.stream, whole), notes=unfinished),
            people,
            out,
        )
    _print(request, backbone.name, answer, watch.seconds, people, out, as_json)


def _consoles(as_json: bool) -> tuple[Console, Console, Stopwatch]:
    return Console(stderr=True, quiet=as_json), Console(quiet=as_json, highlight=False), Stopwatch()


def _answer(request: Request, reader: Reader, compressed: Compressed, people: Console, out: Console) -> Answer:
    for note in compressed.notes:
        people.print(Text(f"note: {note}", style="dim"))
    with people.status("read and answer") as status:

        def show(piece: str) -> None:
            status.stop()  # the spinner and the answer would write over each other
            out.print(Text(piece, "bold"), end="")

        return reader.answer(compressed, request.question, request.max_new_tokens, on_text=show)


def _print(
    request: Request,
    backbone: str,
    answer: Answer,
    loading: dict[str, float],
    people: Console,
    out: Console,
    as_json: bool,
) -> None:
    if as_json:
        print_json(_as_json(request, backbone, answer, loading))
        return
    out.print()
    _show(people, request, answer, loading)


@contextmanager
def _stage(people: Console, name: str) -> Iterator[None]:
    """A spinner while it lasts, a line with its seconds when it is done."""
    start = time.perf_counter()
    with people.status(name):
        yield
    people.print(Text(f"{name}: {time.perf_counter() - start:.1f} s", style="dim"))


def _room(request: Request, method: LoadedMethod, question: str) -> int:
    """Context tokens the decoder may see.

    Raises:
        QuestionError: the question and the answer fill the window.
        LaconicError: the method needs to know where the answer is.
    """
    if getattr(method.compressor, "needs_evidence", False):
        raise LaconicError(
            f"The method {request.method} must be told where the answer is.",
            "It is for `laconic eval` only.",
        )
    prompt = method.reader.prompt_tokens(question)
    if method.reader.unbounded:
        return sys.maxsize
    if prompt + request.max_new_tokens >= method.reader.window:
        raise QuestionError(
            f"The question takes {prompt} tokens and the answer {request.max_new_tokens}: "
            f"more than the model's window of {method.reader.window}.",
            "Ask a shorter question or lower --max-new-tokens.",
        )
    return auto_budget(method.reader.window, prompt, request.max_new_tokens, request.budget)


def _check_fits(request: Request, seen: int, room: int) -> None:
    """Raise ``BudgetError`` where the factor asked for leaves too much to read, before anything is read."""
    if seen > room and request.method == "full":
        raise BudgetError(
            f"The document has {seen} tokens, and the decoder's window has room for {room}.",
            "Choose a --method that compresses, such as ram.",
        )
    if seen > room:
        raise BudgetError(
            f"At factor {request.factor} the decoder would see {seen} tokens, and its window has room for {room}.",
            f"Use --factor auto, or at least {math.ceil(10 * float(request.factor) * seen / room) / 10:g}.",
        )


def _as_json(request: Request, backbone: str, answer: Answer, loading: dict[str, float]) -> dict[str, Any]:
    context = answer.context
    return {
        "answer": answer.text,
        "method": request.method,
        "backbone": backbone,
        "document_tokens": context.document_tokens,
        "context_tokens": context.context_tokens,
        "requested_factor": request.factor if request.factor == "auto" else float(request.factor),
        "floor": request.floor,
        "delivered_factor": round(context.delivered_factor, 3),
        "evidence": [{"start": s.start, "end": s.end, "text": s.text, "score": s.score} for s in context.evidence],
        "seconds": {stage: round(value, 4) for stage, value in (loading | context.seconds | answer.seconds).items()},
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "peak_cache_bytes": answer.peak_cache_bytes,
        "notes": context.notes,
    }


def _show(people: Console, request: Request, answer: Answer, loading: dict[str, float]) -> None:
    context = answer.context
    ranked = sorted(context.evidence, key=lambda span: -(span.score or 0.0))
    people.print()
    if ranked:
        people.print(Text(f"read word for word: {len(ranked)} passages, the best of them", style="dim"))
    for span in ranked[:SHOWN_PASSAGES]:
        text = " ".join(span.text.split())
        score = "" if span.score is None else f"{span.score:.2f}  "
        people.print(Text(f"  {score}[{span.start:,}-{span.end:,}] ", "cyan") + Text(_clipped(text)))
    table = Table(title="bill", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_row("document", f"{context.document_tokens:,} tokens")
    asked = f"asked: {request.factor}" if request.floor is None else f"floor: {request.floor:g}"
    seen = f"{context.context_tokens:,} tokens ({context.delivered_factor:.1f}x shorter, {asked})"
    table.add_row("decoder saw", seen)
    table.add_row("peak cache", f"{answer.peak_cache_tokens:,} tokens, {answer.peak_cache_bytes / 2**20:.1f} MiB")
    stages = loading | context.seconds | answer.seconds
    table.add_row("seconds", "  ".join(f"{stage} {value:.2f}" for stage, value in stages.items()))
    table.add_row("peak memory", f"{peak_memory_mb():,.0f} MiB")
    people.print()
    people.print(table)


def _clipped(text: str, width: int = 300) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
