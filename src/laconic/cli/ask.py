"""``laconic ask``: read a document, answer a question, show what was kept and what it cost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from laconic.backbone import load_backbone
from laconic.core.results import Answer, Stopwatch, peak_memory_mb
from laconic.core.segments import require_question
from laconic.data.documents import read_document
from laconic.errors import BudgetError, QuestionError
from laconic.methods.budget import auto_budget
from laconic.methods.registry import load_method

SHOWN_PASSAGES = 3
WHOLE = "full"


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    documents: list[str]
    question: str
    method: str
    factor: str
    budget: int | None
    backbone: str | None
    adapter: str | None
    max_new_tokens: int
    dtype: str
    device: str

    def ratio(self) -> float | None:
        """1/factor, or None for auto.

        Raises:
            BudgetError: a factor that is no number, or not above 1.
        """
        if self.factor == "auto":
            if self.budget is not None and self.budget < 1:
                raise BudgetError(f"The budget of {self.budget} tokens is too small.", "Give at least 1 token.")
            return None
        try:
            factor = float(self.factor)
        except ValueError:
            factor = math.nan
        if not (1 < factor < math.inf or (factor == 1 and self.method == WHOLE)):
            raise BudgetError(f"The factor {self.factor!r} is not a number above 1.", "Give 4 for a quarter, or auto.")
        if self.budget is not None:
            raise BudgetError("Both --factor and --budget are given.", "Give one of them.")
        return 1 / factor


def run(request: Request, as_json: bool) -> None:
    """Answer and print: everything for people goes to stderr but the answer itself, JSON goes to stdout alone."""
    ratio = request.ratio()
    question = require_question(request.question)
    document = read_document(request.documents)
    people = Console(stderr=True, quiet=as_json)
    watch = Stopwatch()
    with people.status("loading the model"), watch("load"):
        backbone = load_backbone(request.backbone, dtype=request.dtype, device=request.device)
        method = load_method(request.method, backbone, request.adapter)
    prompt = method.reader.prompt_tokens(question)
    if prompt + request.max_new_tokens >= method.reader.window:
        raise QuestionError(
            f"The question takes {prompt} tokens and the answer {request.max_new_tokens}: "
            f"more than the model's window of {method.reader.window}.",
            "Ask a shorter question.",
        )
    people.print(Text(f"{document.name}: {len(document.text):,} characters", style="dim"))
    with people.status(f"reading with {request.method}"):
        if ratio is None:
            room = auto_budget(method.reader.window, prompt, request.max_new_tokens, request.budget)
            compressed = method.compressor.compress(document.text, question, budget=room)
        else:
            compressed = method.compressor.compress(document.text, question, ratio=ratio)
    for note in compressed.notes:
        people.print(Text(f"note: {note}", style="dim"))
    out = Console(quiet=as_json, highlight=False)
    answer = method.reader.answer(
        compressed, question, request.max_new_tokens, on_text=lambda piece: out.print(Text(piece, "bold"), end="")
    )
    if as_json:
        print(json.dumps(_as_json(request, backbone.name, answer, watch.seconds), ensure_ascii=False))
        return
    out.print()
    _show(people, request, answer, watch.seconds)


def _as_json(request: Request, backbone: str, answer: Answer, loading: dict[str, float]) -> dict[str, Any]:
    context = answer.context
    return {
        "answer": answer.text,
        "method": request.method,
        "backbone": backbone,
        "document_tokens": context.document_tokens,
        "context_tokens": context.context_tokens,
        "requested_factor": request.factor if request.factor == "auto" else float(request.factor),
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
    people.print(Text(f"read word for word: {len(ranked)} passages, the best of them", style="dim"))
    for span in ranked[:SHOWN_PASSAGES]:
        text = " ".join(span.text.split())
        score = "" if span.score is None else f"{span.score:.2f}  "
        people.print(Text(f"  {score}[{span.start:,}-{span.end:,}] ", "cyan") + Text(_clipped(text)))
    table = Table(title="bill", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_row("document", f"{context.document_tokens:,} tokens")
    seen = f"{context.context_tokens:,} tokens ({context.delivered_factor:.1f}x shorter, asked: {request.factor})"
    table.add_row("decoder saw", seen)
    table.add_row("peak cache", f"{answer.peak_cache_tokens:,} tokens, {answer.peak_cache_bytes / 2**20:.1f} MiB")
    stages = loading | context.seconds | answer.seconds
    table.add_row("seconds", "  ".join(f"{stage} {value:.2f}" for stage, value in stages.items()))
    table.add_row("peak memory", f"{peak_memory_mb():,.0f} MiB")
    people.print()
    people.print(table)


def _clipped(text: str, width: int = 300) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
