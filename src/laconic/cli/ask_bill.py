"""What ``laconic ask`` shows beside the answer: the passages that were read, and the bill."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from laconic.cli.ask_request import Request
from laconic.core.results import Answer, added, peak_memory_mb
from laconic.methods.poc.steering import Steered

SHOWN_PASSAGES = 3


def as_json(
    request: Request, backbone: str, answer: Answer, loading: dict[str, float], steered: Steered | None
) -> dict[str, Any]:
    context = answer.context
    return {
        "answer": answer.text,
        "method": request.method,
        "backbone": backbone,
        "document_tokens": context.document_tokens,
        "context_tokens": context.context_tokens,
        "requested_factor": request.factor if request.factor == "auto" else float(request.factor),
        "floor": request.floor,
        "predicted_retention": round(steered.choice.retention, 4) if steered else None,
        "promise": steered.promise if steered else None,
        "delivered_factor": round(context.delivered_factor, 3),
        "evidence": [{"start": s.start, "end": s.end, "text": s.text, "score": s.score} for s in context.evidence],
        "seconds": {stage: round(value, 4) for stage, value in added(loading, answer.stages).items()},
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "peak_cache_bytes": answer.peak_cache_bytes,
        "notes": context.notes,
    }


def show(people: Console, request: Request, answer: Answer, loading: dict[str, float]) -> None:
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
    stages = added(loading, answer.stages)
    table.add_row("seconds", "  ".join(f"{stage} {value:.2f}" for stage, value in stages.items()))
    table.add_row("peak memory", f"{peak_memory_mb():,.0f} MiB")
    people.print()
    people.print(table)


def _clipped(text: str, width: int = 300) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
