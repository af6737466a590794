"""``laconic ask``: read a document, answer a question, show what was kept and what it cost."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from typing import cast

from rich.console import Console
from rich.text import Text

from laconic.cli import ask_bill
from laconic.cli.ask_request import Request
from laconic.cli.loading import open_backbone
from laconic.cli.output import print_json
from laconic.cli.profile import reason_not_to
from laconic.core.results import Answer, Compressed, Stopwatch
from laconic.core.segments import require_question
from laconic.data.documents import read_document
from laconic.errors import BudgetError, LaconicError, QuestionError
from laconic.generation.answer import Reader
from laconic.methods.budget import auto_budget
from laconic.methods.poc.calibration import Promise
from laconic.methods.poc.compressors import SCORED, compressor_digest, load_steerable
from laconic.methods.poc.steering import PoC, Steered, load_predictor
from laconic.methods.registry import LoadedMethod, check_names, load_method, reader_name


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
    steered: Steered | None = None
    people.print(Text(f"{document.name}: {len(document.text):,} characters", style="dim"))
    # a library that prints must not spoil the one JSON object
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        with _stage(people, "load the model"), watch("load"):
            backbone = open_backbone(request.backbone, request.dtype, request.device)
            method = load_method(request.method, backbone, request.adapter)
        room = _room(request, method, question)
        with _stage(people, f"compress with {request.method}"):
            if request.floor is not None:
                steered = _to_floor(request, request.floor, method, document.text, room, watch)
                compressed = steered.compressed
            elif ratio is None:
                compressed = method.compressor.compress(document.text, question, budget=room)
            else:
                if not method.reader.unbounded:
                    with watch("count"):
                        seen = math.floor(ratio * backbone.count_tokens(document.text))
                    _check_fits(request, seen, room)
                compressed = method.compressor.compress(document.text, question, ratio=ratio)
        answer = _answer(request, method.reader, compressed, people, out)
    _print(request, backbone.name, answer, watch.seconds, people, out, as_json, steered)


def _to_floor(request: Request, floor: float, method: LoadedMethod, text: str, room: int, watch: Stopwatch) -> Steered:
    """The strongest compression that is predicted to keep the floor; what was chosen and promised is among its notes.

    Raises:
        BudgetError: what is left does not fit the window.
    """
    backbone = method.reader.backbone
    with watch("load"):
        predictor, promises = load_predictor(backbone, request.predictor)
        # as labels are made: with the plain backbone as scorer, where there is one
        compressor = load_steerable(request.method, backbone) if request.method in SCORED else method.compressor
    tokens = backbone.count_tokens(text)

    def skip(ratio: float) -> str | None:
        if not request.auto or tokens > room:  # which cannot be read whole
            return None
        return reason_not_to(request.method, backbone, compressor, tokens, ratio)

    steered = PoC(
        compressor,
        predictor,
        promises,
        compressor_digest=compressor_digest(request.method, compressor),
        reader=reader_name(backbone, request.adapter),
        prompt=method.reader.template,
    ).compress(
        text, request.question, floor=floor, promise=cast(Promise, request.promise), delta=request.delta, skip=skip
    )
    seen = steered.compressed.context_tokens
    if seen > room:
        raise BudgetError(
            f"To keep {floor:g} of the quality the decoder would see {seen} tokens; its window has room for {room}.",
            "Lower the floor, or use --factor auto.",
        )
    chosen = f"ratio {steered.choice.ratio:.3f} is predicted to keep {steered.choice.retention:.2f} of the quality"
    notes = [*steered.compressed.notes, chosen, steered.promise]
    return replace(steered, compressed=replace(steered.compressed, notes=notes))


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
    steered: Steered | None = None,
) -> None:
    if as_json:
        print_json(ask_bill.as_json(request, backbone, answer, loading, steered))
        return
    out.print()
    ask_bill.show(people, request, answer, loading)


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
