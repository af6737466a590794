"""Methods x tasks x factors, one item at a time, resumable.

Every finished item is a line of a journal beside the result, keyed by its setting and by a digest of its own content; a
run that was cut off goes on where it stopped. The result is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from laconic.core.files import write_whole
from laconic.core.results import Answer, Compressed
from laconic.data.schema import QAItem
from laconic.errors import BudgetError, DataError, LaconicError, QuestionError
from laconic.eval import metrics
from laconic.eval.environment import environment
from laconic.eval.journal import Journal, Line
from laconic.eval.watching import watched
from laconic.methods.registry import WHOLE, LoadedMethod

MEASURES = ("em", "f1", "rouge_l", "contains", "recall")
# what a method may refuse of one item; the others go on
REFUSALS = (BudgetError, QuestionError, DataError)
# batches are cut from this many waiting contexts, sorted by length, so that little of a batch is padding
POOL_BATCHES = 4


@dataclass(frozen=True)
class Setting:
    """One cell of the table."""

    task: str
    method: str
    version: str  # of a trained compressor
    factor: float
    reader: str
    backbone: str
    max_new_tokens: int
    dtype: str
    device: str

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
    against: Sequence[str] = (),
    notes: dict[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run every cell and write the result to ``out``; its items are kept in ``out`` with the suffix ``.items.jsonl``.

    Args:
        reader, backbone: content names of what answers; part of every item's key.
        against: methods that the others are compared to, item by item; by default ``full``, without it the first.
        notes: anything else to record (arguments, seeds).

    Raises:
        DataError: ``out`` cannot be written (found before the work).
    """
    journal = Journal(out)
    rows: list[Line] = []
    for task, items in tasks.items():
        cells: list[list[Line]] = []
        for name, method in methods.items():
            for factor in [1.0] if name in WHOLE else factors:
                dtype, device = str(method.reader.backbone.dtype), method.reader.backbone.device.type
                setting = Setting(task, name, method.version, factor, reader, backbone, max_new_tokens, dtype, device)
                left = [item for item in items if (setting.key, _digest(item)) not in journal.done]
                lines = _run(setting, method, left, batch_size)
                for line in watched(lines, len(left), f"{task}  {name}  {factor:g}x"):
                    journal.add(line)
                cells.append([journal.done[setting.key, _digest(item)] for item in items])
                rows.append(_row(setting, cells[-1]))
                say(_sentence(rows[-1]))
        _pair(rows[-len(cells) :], cells)
        _differences(rows[-len(cells) :], cells, against)
    result = {"rows": rows, "environment": environment(), "rouge": metrics.ROUGE_SETTINGS, "notes": notes or {}}
    write_whole(out, json.dumps(result, indent=1) + "\n")
    return result


def _digest(item: QAItem) -> str:
    """Of all a score rests on: ids can come twice, and a user's file can change under the same name."""
    return hashlib.sha256(json.dumps(asdict(item)).encode()).hexdigest()[:16]


def _run(setting: Setting, method: LoadedMethod, items: Sequence[QAItem], batch_size: int) -> Iterator[Line]:
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
                read = (item.document, replace(compressed, seconds={}))  # billed to the document's first question
            if compressed.already_read:
                yield _line(setting, item, method.reader.answer(compressed, item.question, setting.max_new_tokens))
                continue
        except REFUSALS as error:
            yield _skipped(setting, item, error)
            continue
        waiting.append((item, compressed))
        if len(waiting) == POOL_BATCHES * batch_size:
            yield from _answer_all(setting, method, waiting, batch_size)
            waiting = []
    yield from _answer_all(setting, method, waiting, batch_size)


def _answer_all(
    setting: Setting, method: LoadedMethod, waiting: Sequence[tuple[QAItem, Compressed]], batch_size: int
) -> Iterator[Line]:
    ordered = sorted(waiting, key=lambda one: one[1].context_tokens)
    for begin in range(0, len(ordered), batch_size):
        yield from _answer(setting, method, ordered[begin : begin + batch_size])


def _compress(method: LoadedMethod, item: QAItem, factor: float) -> Compressed:
    extra: dict[str, Any] = {"evidence": item.evidence} if getattr(method.compressor, "needs_evidence", False) else {}
    return method.compressor.compress(item.document, item.question, ratio=1 / factor, **extra)


def _answer(setting: Setting, method: LoadedMethod, waiting: Sequence[tuple[QAItem, Compressed]]) -> Iterator[Line]:
    contexts, questions = [c for _, c in waiting], [item.question for item, _ in waiting]
    try:
        answers = method.reader.answer_batch(contexts, questions, setting.max_new_tokens)
    except (BudgetError, QuestionError) as error:  # one of them is too long for the window: find out which
        if len(waiting) == 1:
            yield _skipped(setting, waiting[0][0], error)
            return
        for one in waiting:
            yield from _answer(setting, method, [one])
        return
    for (item, _), answer in zip(waiting, answers, strict=True):
        yield _line(setting, item, answer)


def _skipped(setting: Setting, item: QAItem, error: LaconicError) -> Line:
    return {"setting": setting.key, "item": _digest(item), "id": item.id, "skipped": str(error)}


def _line(setting: Setting, item: QAItem, answer: Answer) -> Line:
    kept = [(span.start, span.end) for span in answer.context.evidence]
    return {
        "setting": setting.key,
        "item": _digest(item),
        "id": item.id,
        "answer": answer.text,
        "em": metrics.exact_match(answer.text, item.answers),
        "f1": metrics.f1(answer.text, item.answers),
        "rouge_l": metrics.rouge_l(answer.text, item.answers),
        "contains": metrics.contains(answer.text, item.answers, item.parts),
        "recall": metrics.evidence_recall(item.evidence, kept),  # nothing kept word for word recalls nothing
        "document_tokens": answer.context.document_tokens,
        "context_tokens": answer.context.context_tokens,
        "delivered_factor": round(answer.context.delivered_factor, 4),
        "generated_tokens": answer.generated_tokens,
        "peak_cache_tokens": answer.peak_cache_tokens,
        "seconds": {k: round(v, 4) for k, v in answer.stages.items()},
    }


def _row(setting: Setting, lines: Sequence[Line]) -> Line:
    scored = [line for line in lines if "skipped" not in line]
    row: Line = {**asdict(setting), "items": len(scored), "skipped": len(lines) - len(scored)}
    if not scored:
        return row
    for measure in MEASURES:
        values = [line[measure] for line in scored if line[measure] is not None]
        if values:
            row[measure] = metrics.percent(metrics.score_with_interval(values))
    tokens_in, tokens_seen = (sum(line[key] for line in scored) for key in ("document_tokens", "context_tokens"))
    row["delivered_factor"] = round(tokens_in / tokens_seen, 3)
    stages = dict.fromkeys(stage for line in scored for stage in line["seconds"])
    row["seconds"] = {s: round(sum(line["seconds"].get(s, 0.0) for line in scored) / len(scored), 4) for s in stages}
    return row


def _pair(rows: Sequence[Line], cells: Sequence[Sequence[Line]]) -> None:
    """Add the means over the items no row of the task skipped: rows that skipped different items do not compare."""
    common = [
        index for index, lines in enumerate(zip(*cells, strict=True)) if not any("skipped" in one for one in lines)
    ]
    for row, lines in zip(rows, cells, strict=True):
        row["paired"] = {"items": len(common)}
        for measure in MEASURES:
            values = [lines[index][measure] for index in common if lines[index][measure] is not None]
            if values:
                row["paired"][measure] = round(100 * sum(values) / len(values), 2)


def _differences(rows: Sequence[Line], cells: Sequence[Sequence[Line]], against: Sequence[str]) -> None:
    """Add each row's differences to the rows of ``against`` at its factor, item by item over those that both answered.

    Two rows answer the same questions, so the interval of their difference is narrower than those of the rows tell.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    references = list(against) or [next((name for name in methods if name == "full"), methods[0])]
    by_name = {(row["method"], row["factor"]): lines for row, lines in zip(rows, cells, strict=True)}
    for row, lines in zip(rows, cells, strict=True):
        row["against"] = []
        for name in references:
            factor = 1.0 if name in WHOLE else row["factor"]
            if name != row["method"] and (name, factor) in by_name:
                gap = {"method": name, "factor": factor, **_gap(lines, by_name[name, factor])}
                row["against"].append(gap)


def _gap(lines: Sequence[Line], others: Sequence[Line]) -> Line:
    both = [(a, b) for a, b in zip(lines, others, strict=True) if "skipped" not in a and "skipped" not in b]
    gap: Line = {"items": len(both)}
    for measure in MEASURES:
        gaps = [a[measure] - b[measure] for a, b in both if a[measure] is not None and b[measure] is not None]
        if gaps:
            gap[measure] = metrics.percent(metrics.mean_with_interval(gaps))
    return gap


def _sentence(row: Line) -> str:
    scores = "  ".join(f"{m} {row[m]['mean']:.1f}" for m in MEASURES if m in row)
    head = f"{row['task']}  {row['method']}  {row['factor']:g}x (delivered {row.get('delivered_factor', '-')}x)"
    return f"{head}  {scores}  items {row['items']}  skipped {row['skipped']}"
