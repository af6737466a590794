"""Loaders: every question-answering file becomes a list of ``QAItem``.

The folder is ``$LACONIC_DATA``, else ``../shared/data``; ``samples_folder()`` holds a few records of each task, so that
tests and examples need nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from laconic.data.schema import QAItem
from laconic.errors import DataError

Record = dict[str, Any]
Use = Literal["train", "dev", "eval"]


def _squad(record: Record) -> Iterator[QAItem]:
    paragraphs = record["document"].split("\n\n")
    starts, position = [], 0
    for paragraph in paragraphs:
        starts.append(position)
        position += len(paragraph) + 2
    for qa in record["qas"]:
        begin = starts[qa["paragraph"]]
        found = [begin + paragraphs[qa["paragraph"]].find(answer) for answer in qa["answers"]]
        spans = [(at, at + len(a)) for at, a in zip(found, qa["answers"], strict=True) if at >= begin]
        yield QAItem(qa["id"], record["document"], qa["question"], qa["answers"], _unique(spans), record["id"])


def _passages(record: Record, passages: Iterable[tuple[str, str, list[str]]], answers: list[str]) -> Iterator[QAItem]:
    """Passages (title, text, evidence strings) joined as ``title text`` lines."""
    document, spans = "", []
    for title, text, marked in passages:
        line = f"{title} {text}"
        for words in marked:
            spans += [(len(document) + at, len(document) + at + len(words)) for at in _occurrences(line, words)]
        document += line + "\n"
    yield QAItem(record["id"], document.rstrip("\n"), record["question"], answers, _unique(spans), record["id"])


def _nq(record: Record) -> Iterator[QAItem]:
    """Evidence: where an accepted answer stands in the gold passage."""
    passages = [(c["title"], c["text"], record["answers"] if c["isgold"] else []) for c in record["ctxs"]]
    return _passages(record, passages, record["answers"])


def _hotpot(record: Record) -> Iterator[QAItem]:
    facts = {(title, number) for title, number in record["supporting_facts"]}
    passages = [
        (title, "".join(sentences), [s.strip() for n, s in enumerate(sentences) if (title, n) in facts])
        for title, sentences in record["context"]
    ]
    return _passages(record, passages, [record["answer"]])


def _musique(record: Record) -> Iterator[QAItem]:
    passages = [
        (p["title"], p["paragraph_text"], [p["paragraph_text"]] if p["is_supporting"] else [])
        for p in record["paragraphs"]
    ]
    return _passages(record, passages, [record["answer"], *record["answer_aliases"]])


def _squality(record: Record) -> Iterator[QAItem]:
    for number, qa in enumerate(record["qas"]):
        yield QAItem(f"{record['id']}-{number}", record["document"], qa["question"], qa["answers"], [], record["id"])


def _qmsum(record: Record) -> Iterator[QAItem]:
    starts, position = [], 0
    lines = record["document"].split("\n")
    for line in lines:
        starts.append(position)
        position += len(line) + 1
    for number, qa in enumerate(record["qas"]):
        spans = [(starts[a], starts[b] + len(lines[b])) for a, b in qa.get("relevant_lines") or []]
        name = f"{record['id']}-{number}"
        yield QAItem(name, record["document"], qa["question"], qa["answers"], spans, record["id"])


TASKS: dict[str, tuple[Use, Callable[[Record], Iterator[QAItem]]]] = {
    "squad_articles_train": ("train", _squad),
    "squad_articles_dev": ("eval", _squad),
    "nq_multidoc_20_gold_spread": ("eval", _nq),
    "hotpotqa_train_sample": ("train", _hotpot),
    "musique_train_sample": ("train", _musique),
    "squality_train": ("train", _squality),
    "squality_dev": ("dev", _squality),
    "squality_test": ("eval", _squality),
    "qmsum_train": ("train", _qmsum),
    "qmsum_val": ("dev", _qmsum),
    "qmsum_test": ("eval", _qmsum),
}


def samples_folder() -> Path:
    """The folder of small attributed samples inside the package."""
    return Path(str(files("laconic") / "data" / "samples"))


def load_task(
    name: str, folder: str | os.PathLike[str] | None = None, limit: int | None = None, seed: int = 0
) -> list[QAItem]:
    """Load a task; with ``limit``, a seeded sample taken evenly over its documents.

    Raises:
        DataError: an unknown task, or its file is missing or malformed.
    """
    if name not in TASKS:
        raise DataError(f"There is no task {name!r}.", f"Choose from: {', '.join(TASKS)}; or name a .jsonl file.")
    root = Path(folder or os.environ.get("LACONIC_DATA") or "../shared/data")
    path = root / f"{name}.jsonl.gz"
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Name the folder of the data with --data or $LACONIC_DATA.")
    return _evenly([item for record in _records(path) for item in TASKS[name][1](record)], limit, seed)


def load_for_training(
    name: str, folder: str | os.PathLike[str] | None = None, limit: int | None = None, seed: int = 0
) -> list[QAItem]:
    """As ``load_task``, but refuses what must never be trained on.

    Raises:
        DataError: the task is kept for tuning or evaluation.
    """
    if name in TASKS and TASKS[name][0] != "train":
        raise DataError(f"{name} is kept for {TASKS[name][0]} and must not be trained on.", "Choose training data.")
    return load_task(name, folder, limit, seed)


def load_file(path: str | os.PathLike[str], limit: int | None = None, seed: int = 0) -> list[QAItem]:
    """Load a user's own JSON lines with the fields document, question and answers (a list, or one string).

    Raises:
        DataError: naming the line that is malformed.
    """
    items = []
    for number, record in enumerate(_records(Path(path)), 1):
        missing = [key for key in ("document", "question", "answers") if not record.get(key)]
        if missing:
            raise DataError(f"{path}, record {number}: no {missing[0]}.", "Each needs document, question and answers.")
        answers = [record["answers"]] if isinstance(record["answers"], str) else list(record["answers"])
        document = record["document"]
        items.append(
            QAItem(
                str(record.get("id", number)),
                document,
                record["question"],
                answers,
                [],
                hashlib.sha256(document.encode()).hexdigest()[:16],
            )
        )
    if not items:
        raise DataError(f"{path} holds no records.", "Give one JSON object a line.")
    return _evenly(items, limit, seed)


def _records(path: Path) -> Iterator[Record]:
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Check the path.")
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, 1):  # noqa: B007 (named in the error below)
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError("not an object")
                    yield record
        except (ValueError, OSError) as error:
            raise DataError(f"{path}, line {number}: {error}.", "Each line must be one JSON object.") from error


def _evenly(items: list[QAItem], limit: int | None, seed: int) -> list[QAItem]:
    """Take ``limit`` items, one document after the other, so that no document dominates; grouped by document."""
    if limit is None or limit >= len(items):
        return items
    by_document: dict[str, list[QAItem]] = {}
    for item in items:
        by_document.setdefault(item.document_id, []).append(item)
    draw = random.Random(seed)
    for own in by_document.values():
        draw.shuffle(own)
    # with fewer items than documents, chance and not the file's order says which documents
    order = draw.sample(list(by_document), len(by_document))
    taken: dict[str, int] = dict.fromkeys(order, 0)
    left = limit
    while left:
        for document in order:
            if left and taken[document] < len(by_document[document]):
                taken[document] += 1
                left -= 1
    return [item for document in order for item in by_document[document][: taken[document]]]


def _occurrences(text: str, words: str) -> Iterator[int]:
    at = text.find(words) if words else -1
    while at >= 0:
        yield at
        at = text.find(words, at + 1)


def _unique(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return sorted(set(spans))
