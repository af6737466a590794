"""Making labels: texts x ratios x a reader, cached text by text, in shards, with what it will cost.

Every text is compressed to all of its ratios after one look of the compressor; what comes out the same at two ratios is
read once. Finished texts are lines of a journal beside the result, so that a run that was cut off goes on. The journal
has digests, ratios and scores, and none of the texts: whoever has those makes the result from it without reading any.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from laconic.core.files import write_whole
from laconic.core.results import Compressed, whole
from laconic.data.schema import QAItem
from laconic.errors import BudgetError, DataError, LaconicError, QuestionError
from laconic.eval import metrics
from laconic.eval.environment import environment
from laconic.eval.journal import Journal, Line
from laconic.methods.poc.compressors import STEERABLE
from laconic.methods.poc.labels import Made
from laconic.methods.poc.selection import LEAST_RATIO, PARTS
from laconic.methods.registry import LoadedMethod
from laconic.methods.roles import Compressor, Telling

#: by name: the metric, and the tokens of the longest answer
METRICS: dict[str, tuple[Callable[[str, Sequence[str]], float], int]] = {
    "f1": (metrics.f1, 32),
    "rouge_l": (metrics.rouge_l, 64),
}
#: tasks whose answers are summaries begin so
SUMMARIES = ("squality", "qmsum")
#: texts that are worked on together, and contexts that are read together
POOL, TOGETHER = 8, 24


def metric_of(task: str) -> str:
    return "rouge_l" if Path(task).name.startswith(SUMMARIES) else "f1"


def drawn_ratios(count: int, draw: random.Random) -> list[float]:
    """Half of them on the grid of the search's first look, half log-uniform from the least ratio up; rising."""
    half = min((count + 1) // 2, PARTS - 1)
    grid = [k / PARTS for k in draw.sample(range(1, PARTS), half)]  # exactly those that selection looks at
    free = [math.exp(draw.uniform(math.log(LEAST_RATIO), 0.0)) for _ in range(count - half)]
    return sorted({*grid, *(round(min(ratio, 0.99), 4) for ratio in free)})


@dataclass(frozen=True)
class Plan:
    """What is asked of each text.

    Attributes:
        ratios: these for all, or so many drawn anew for each.
        shard: which part of how many.
    """

    ratios: Sequence[float] | int
    shard: tuple[int, int] = (0, 1)
    seed: int = 0

    def of(self, item: QAItem) -> list[float]:
        if not isinstance(self.ratios, int):
            return sorted(self.ratios)
        return drawn_ratios(self.ratios, random.Random(f"{self.seed}/{_digest(item)}"))

    def own(self, items: Sequence[QAItem]) -> list[QAItem]:
        part, parts = self.shard
        return list(items[part::parts])


def build_labels(
    method: LoadedMethod,
    tasks: Mapping[str, Sequence[QAItem]],
    plan: Plan,
    out: Path,
    *,
    backbone: str,
    reader: str,
    compressor: str,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Label every text of every task and write the result to ``out``.

    Args:
        backbone, reader, compressor: content names of who makes them, see ``Made``.

    Raises:
        DataError: ``out`` cannot be written, or there is nothing to label.
    """
    made = Made(backbone, reader, compressor, method.reader.template, {task: _measure(task) for task in tasks})
    journal = Journal(out)
    wanted = [(task, item) for task, items in tasks.items() for item in plan.own(items)]
    if not wanted:
        raise DataError("There is nothing to label.", "Raise the limit, or have fewer shards.")
    left = [(task, item) for task, item in wanted if (_key(made, task, plan), _digest(item)) not in journal.done]
    say(_estimate(method, plan, left, len(wanted)))
    started, read = time.monotonic(), 0
    for first in range(0, len(left), POOL):
        pool = left[first : first + POOL]
        for line in _label(method, made, plan, pool):
            read += line.get("tokens_read", 0)
            journal.add(line)
        done, seconds = first + len(pool), time.monotonic() - started
        if first // POOL % 3 == 0 or done == len(left):
            ahead = seconds / done * (len(left) - done)
            say(f"{done} of {len(left)} texts, {read / seconds:,.0f} tokens/s, {ahead / 60:.0f} min to go")
    lines = [journal.done[_key(made, task, plan), _digest(item)] | _texts(item) for task, item in wanted]
    kept = [line for line in lines if "skipped" not in line]
    counts = {
        "texts": len(kept),
        "score nothing when whole": sum(line["whole"] == 0 for line in kept),
        "skipped": len(lines) - len(kept),
    }
    say(", ".join(f"{name}: {count}" for name, count in counts.items()))
    result = {"made": asdict(made), "counts": counts, "environment": environment(), "items": kept}
    write_whole(out, json.dumps(result) + "\n")
    return result


def _label(method: LoadedMethod, made: Made, plan: Plan, pool: Sequence[tuple[str, QAItem]]) -> list[Line]:
    """Lines of a few texts, whose contexts are read side by side."""
    lines: list[Line] = []
    waiting: list[tuple[int, str, Compressed]] = []  # line, text, context
    for task, item in pool:
        line: Line = {"setting": _key(made, task, plan), "item": _digest(item), "id": item.id, "task": task}
        lines.append(line)
        try:
            contexts = {1.0: whole(item.document, method.reader.backbone.count_tokens(item.document))}
            for ratio in plan.of(item):
                with suppress(BudgetError):  # a segment does not fit a few tokens: nothing is known there
                    contexts[ratio] = method.compressor.compress(item.document, item.question, ratio=ratio)
            if len(contexts) == 1:
                raise BudgetError("No ratio leaves any of it.", "Label longer texts, or gentler ratios.")
            _check_window(method, item, contexts[1.0], METRICS[metric_of(task)][1])
        except (BudgetError, QuestionError) as error:
            line["skipped"] = str(error)
            continue
        texts = {ratio: _content(ratio, context) for ratio, context in contexts.items()}
        distinct = {texts[ratio]: context for ratio, context in contexts.items()}
        line |= {
            "delivered": {ratio: round(one.delivered_ratio, 5) for ratio, one in contexts.items() if ratio < 1},
            "features": features_of(method.compressor, item),
            "tokens_read": sum(one.context_tokens for one in distinct.values()),
            "texts": texts,
        }
        waiting += [(len(lines) - 1, text, context) for text, context in distinct.items()]
    answers = _answers(method, [item for _, item in pool], [task for task, _ in pool], waiting)
    for place, ((task, item), line) in enumerate(zip(pool, lines, strict=True)):
        if "skipped" in line:
            continue
        score = METRICS[metric_of(task)][0]
        found = {ratio: score(answers[place, text], item.answers) for ratio, text in line.pop("texts").items()}
        line |= {"whole": found.pop(1.0), "scores": found}
    return lines


def _texts(item: QAItem) -> Line:
    return {"document": item.document_id, "context": item.document, "question": item.question}


def features_of(compressor: Compressor | None, item: QAItem) -> list[float]:
    """What the compressor's look has found in a text, rounded; nothing if it does not tell."""
    if not isinstance(compressor, Telling):
        return []
    return [round(value, 5) for value in compressor.features(item.document, item.question)]


def _answers(
    method: LoadedMethod,
    items: Sequence[QAItem],
    tasks: Sequence[str],
    waiting: Sequence[tuple[int, str, Compressed]],
) -> dict[tuple[int, str], str]:
    """The answer to each context, by line and text; those of about one length are read together."""
    found: dict[tuple[int, str], str] = {}
    for longest in {METRICS[metric_of(task)][1] for task in tasks}:
        own = [one for one in waiting if METRICS[metric_of(tasks[one[0]])][1] == longest]
        own.sort(key=lambda one: one[2].context_tokens)
        for first in range(0, len(own), TOGETHER):
            some = own[first : first + TOGETHER]
            questions = [items[place].question for place, _, _ in some]
            answers = method.reader.answer_batch([context for _, _, context in some], questions, longest)
            found |= {(place, text): one.text for (place, text, _), one in zip(some, answers, strict=True)}
    return found


def _content(ratio: float, context: Compressed) -> str:
    """What tells a context from others of its text: its own text, or, of vectors, the ratio."""
    if context.text is None and context.embeddings is None:
        raise LaconicError(
            "A text that a method has read already cannot be labelled beside others.",
            f"Choose one of {', '.join(STEERABLE)}.",
        )
    return context.text if context.text is not None else f"vectors at {ratio}"


def _check_window(method: LoadedMethod, item: QAItem, whole: Compressed, new: int) -> None:
    """Raise ``BudgetError`` where the whole text cannot be read, so that there is nothing to compare with."""
    needed = whole.context_tokens + method.reader.prompt_tokens(item.question) + new
    if needed > method.reader.window:
        raise BudgetError(f"The whole text needs {needed} tokens of {method.reader.window}.", "Label shorter ones.")


def _estimate(method: LoadedMethod, plan: Plan, left: Sequence[tuple[str, QAItem]], total: int) -> str:
    backbone = method.reader.backbone
    some = left[:: max(1, len(left) // 50)]
    tokens = sum(backbone.count_tokens(item.document) * (1 + sum(plan.of(item))) for _, item in some)
    tokens *= len(left) / max(len(some), 1)
    return f"{total - len(left)} of {total} texts are labelled; about {tokens:,.0f} tokens to read for the others"


def _measure(task: str) -> str:
    name = metric_of(task)
    return f"{name} of {METRICS[name][1]} tokens"


def _key(made: Made, task: str, plan: Plan) -> str:
    ratios = plan.ratios if isinstance(plan.ratios, int) else sorted(plan.ratios)
    content = [made.digest, task, made.metrics[task], ratios, plan.seed]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _digest(item: QAItem) -> str:
    return hashlib.sha256(json.dumps(asdict(item)).encode()).hexdigest()[:16]
