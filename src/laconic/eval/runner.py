"""Methods x tasks x factors, one item at a time, resumable.

Every finished item is a line of a journal beside the result, keyed by all that could change it; a run that was cut off
goes on where it stopped. The result is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from laconic.core.results import Answer, Compressed
from laconic.data.schema import QAItem
from laconic.errors import BudgetError, DataError
from laconic.eval import metrics
from laconic.methods.registry import LoadedMethod

MEASURES = ("em", "f1", "rouge_l", "contains", "recall")
WHOLE = ("full",)  # methods without a factor


@dataclass(frozen=True)
class Setting:
    """One cell of the table."""

    task: str
    method: str
    factor: float
    reader: str
    backbone: str
    max_new_tokens: int

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def evaluate(
    methods: dict[str, LoadedMethod],
    tasks: dict[str, list[QAItem]],
    factors: Sequence[float],
    out: Path,
    *,
    reader: str,
    backbone: str,
    max_new_tokens: int = 32,
    batch_size: int = 8,
    notes: dict[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run every cell and write the result to ``out``; its items are kept in ``out`` with the suffix ``.items.jsonl``.

    Args:
        reader, backbone: content names of what answers; part of every item's key.
        notes: anything else to record (arguments, seeds).

    Raises:
        DataError: ``out`` cannot be written (found before the work).
    """
    journal = out.with_suffix(".items.jsonl")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        journal.open("a").close()
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error}.", "Choose a file in a folder you may write to.") from error
    done = {(line["setting"], line["id"]): line for line in map(json.loads, journal.read_text().splitlines())}
    rows = []
    with journal.open("a") as book:
        for task, items in tasks.items():
            for name, method in methods.items():
                for factor in [1.0] if name in WHOLE else factors:
                    setting = Setting(task, name, factor, reader, backbone, max_new_tokens)
                    left = [item for item in items if (setting.key, item.id) not in done]
                    for line in _run(setting, method, left, batch_size):
                        book.write(json.dumps(line) + "\n")
                        book.flush()
                        done[(line["setting"], line["id"])] = line
                    rows.append(_row(setting, [done[(setting.key, item.id)] for item in items]))
                    say(_sentence(rows[-1]))
    result = {"rows": rows, "environment": environment(), "rouge": metrics.ROUGE_SETTINGS, "notes": notes or {}}
    part = out.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(part, out)
    return result


def _run(setting: Setting, method: LoadedMethod, items: Sequence[QAItem], batch_size: int) -> Any:
    waiting: list[tuple[QAItem, Compressed]] = []
    read: tuple[str, Compressed] | None = None
    for item in items:
        try:
            if method.compressor.query_aware:
                compressed = _compress(method, item, setting.factor)
            else:
                if read is None or read[0] != item.document:
                    read = (item.document, method.reader.read(_compress(method, item, setting.factor)))
                compressed = read[1]
            if compressed.cache is not None:
                yield _line(setting, item, method.reader.answer(compressed, item.question, setting.max_new_tokens))
                continue
        except BudgetError as error:
            yield {"setting": setting.key, "id": item.id, "skipped": str(error)}
            continue
        waiting.append((item, compressed))
        if len(waiting) == batch_size:
            yield from _answer(setting, method, waiting)
            waiting = []
    if waiting:
        yield from _answer(setting, method, waiting)


def _compress(method: LoadedMethod, item: QAItem, factor: float) -> Compressed:
    extra: dict[str, Any] = {"evidence": item.evidence} if getattr(method.compressor, "needs_evidence", False) else {}
    return method.compressor.compress(item.document, item.question, ratio=1 / factor, **extra)


def _answer(setting: Setting, method: LoadedMethod, waiting: Sequence[tuple[QAItem, Compressed]]) -> Any:
    contexts, questions = [c for _, c in waiting], [item.question for item, _ in waiting]
    try:
        answers = method.reader.answer_batch(contexts, questions, setting.max_new_tokens)
    except BudgetError as error:  # one of them is too long for the window: find out which
        if len(waiting) == 1:
            yield {"setting": setting.key, "id": waiting[0][0].id, "skipped": str(error)}
            return
        for one in waiting:
            yield from _answer(setting, method, [one])
        return
    for (item, _), answer in zip(waiting, answers, strict=True):
        yield _line(setting, item, answer)


def _line(setting: Setting, item: QAItem, answer: Answer) -> dict[str, Any]:
    kept = [(span.start, span.end) for span in answer.context.evidence]
    return {
        "setting": setting.key,
        "id": item.id,
        "answer": answer.text,
        "em": metrics.exact_match(answer.text, item.answers),
        "f1": metrics.f1(answer.text, item.answers),
        "rouge_l": metrics.rouge_l(answer.text, item.answers),
        "contains": metrics.contains(answer.text, item.answers),
        "recall": metrics.evidence_recall(item.evidence, kept) if kept else None,
        "document_tokens": answer.context.document_tokens,
        "context_tokens": answer.context.context_tokens,
        "generated_tokens": answer.generated_tokens,
        "peak_cache_tokens": answer.peak_cache_tokens,
        "seconds": {k: round(v, 4) for k, v in (answer.context.seconds | answer.seconds).items()},
    }


def _row(setting: Setting, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    scored = [line for line in lines if "skipped" not in line]
    row: dict[str, Any] = {**asdict(setting), "items": len(scored), "skipped": len(lines) - len(scored)}
    if not scored:
        return row
    for measure in MEASURES:
        values = [line[measure] for line in scored if line[measure] is not None]
        if values:
            mean, low, high = metrics.mean_with_interval(values)
            row[measure] = {"mean": round(100 * mean, 2), "low": round(100 * low, 2), "high": round(100 * high, 2)}
    tokens_in, tokens_seen = (sum(line[key] for line in scored) for key in ("document_tokens", "context_tokens"))
    row["delivered_factor"] = round(tokens_in / tokens_seen, 3)
    return row


def _sentence(row: dict[str, Any]) -> str:
    scores = "  ".join(f"{m} {row[m]['mean']:.1f}" for m in MEASURES if m in row)
    head = f"{row['task']}  {row['method']}  {row['factor']:g}x (delivered {row.get('delivered_factor', '-')}x)"
    return f"{head}  {scores}  items {row['items']}  skipped {row['skipped']}"


def environment() -> dict[str, Any]:
    """What a number depends on besides the code."""
    names = ("laconic", "torch", "transformers", "bm25s", "rouge_score")
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "date": str(date.today()),
        "commit": commit,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
