"""Loaders: every question-answering file becomes a list of ``QAItem``.

The folder is ``$LACONIC_DATA``, else ``../shared/data``; ``samples_folder()`` holds a few records of each task, so that
tests and examples need nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from laconic.core.files import names_lines
from laconic.core.segments import whole_characters
from laconic.data.folder import data_file
from laconic.data.generated import FORMS, generate, is_generated
from laconic.data.jsonl import Record, parsed, records
from laconic.data.mixing import around_evidence, excerpts, mixed_passages, paragraphs
from laconic.data.schema import QAItem, by_document
from laconic.errors import DataError

Use = Literal["train", "dev", "eval"]


def _squad(record: Record) -> Iterator[QAItem]:
    paragraphs = record["document"].split("\n\n")
    starts, position = [], 0
    for paragraph in paragraphs:
        starts.append(position)
        position += len(paragraph) + 2
    for number, qa in enumerate(record["qas"]):
        # the training file carries no question ids, the dev file not for all
        name = qa["id"] or f"{record['id']}-{number}"
        begin, paragraph = starts[qa["paragraph"]], paragraphs[qa["paragraph"]]
        # the file does not say which occurrence is meant: the first
        spans = [(begin + at, begin + at + len(a)) for a in qa["answers"] for at in occurrences(paragraph, a)[:1]]
        yield QAItem(name, record["document"], qa["question"], qa["answers"], _unique(spans), record["id"])


def _passages(record: Record, passages: Iterable[tuple[str, str, list[str]]], answers: list[str]) -> Iterator[QAItem]:
    """Passages (title, text, evidence strings) joined as ``title text`` lines."""
    document, spans = "", []
    for title, text, marked in passages:
        line = f"{title} {text}"
        for words in marked:
            spans += [(len(document) + at, len(document) + at + len(words)) for at in occurrences(line, words)]
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


def _pairs(record: Record) -> Iterator[QAItem]:
    """Lost in the middle's key-value retrieval: one JSON object, one of its values."""
    pairs, key, value = record["ordered_kv_records"], record["key"], record["value"]
    document = json.dumps(dict(pairs), indent=1)
    start = document.index(f'"{key}": "{value}"')
    spans = [(start, start + len(f'"{key}": "{value}"'))]
    yield QAItem(key, document, f'What is the value of "{key}"?', [value], spans, key)


TASKS: dict[str, tuple[Use, Callable[[Record], Iterator[QAItem]]]] = {
    "squad_articles_train": ("train", _squad),
    "squad_articles_dev": ("eval", _squad),
    "nq_multidoc_20_gold_spread": ("eval", _nq),
    "kv_retrieval_140_keys": ("eval", _pairs),
    "hotpotqa_train_sample": ("train", _hotpot),
    "musique_train_sample": ("train", _musique),
    "squality_train": ("train", _squality),
    "squality_dev": ("dev", _squality),
    "squality_test": ("eval", _squality),
    "qmsum_train": ("train", _qmsum),
    "qmsum_val": ("dev", _qmsum),
    "qmsum_test": ("eval", _qmsum),
}

# made from the items of another task
DERIVED: dict[str, tuple[str, Callable[[list[QAItem]], list[QAItem]]]] = {
    "squad_passages_train": ("squad_articles_train", mixed_passages),
    "squad_paragraphs_train": ("squad_articles_train", paragraphs),
    "squad_paragraphs_dev": ("squad_articles_dev", paragraphs),
    "squad_excerpts_train": ("squad_articles_train", excerpts),
    "squad_excerpts_dev": ("squad_articles_dev", excerpts),
    "qmsum_excerpts_train": ("qmsum_train", around_evidence),
    "qmsum_excerpts_test": ("qmsum_test", around_evidence),
}

#: what may be trained on
TRAINABLE = tuple(name for name in (*TASKS, *DERIVED) if TASKS[DERIVED.get(name, (name,))[0]][0] == "train")


def samples_folder() -> Path:
    """The folder of small attributed samples inside the package."""
    return Path(str(files("laconic") / "data" / "samples"))


def load_task(
    name: str, folder: str | os.PathLike[str] | None = None, limit: int | None = None, seed: int = 0
) -> list[QAItem]:
    """Load a task; with ``limit``, a seeded sample taken evenly over its documents.

    Raises:
        DataError: an unknown task, a limit below 1, or a file that is missing or malformed.
    """
    if name in DERIVED:
        source, derive = DERIVED[name]
        return evenly(derive(load_task(source, folder)), limit, seed)
    if is_generated(name):
        return generate(name, folder, limit, seed)
    if name not in TASKS:
        if names_lines(name):
            raise DataError(f"There is no file {name}.", "Check the path.")
        known = ", ".join([*TASKS, *DERIVED, FORMS])
        raise DataError(f"There is no task {name!r}.", f"Choose from: {known}; or name a .jsonl file.")
    made = parsed(data_file(name, folder), name, lambda record: list(TASKS[name][1](record)))
    return evenly([item for items in made for item in items], limit, seed)


def load_file(path: str | os.PathLike[str], limit: int | None = None, seed: int = 0) -> list[QAItem]:
    """Load a user's own JSON lines, plain or gzipped.

    Each has a ``question``, ``answers`` (a list, or one string) and a ``document``, or ``ctxs`` (a list of passages
    with ``title`` and ``text``); an ``id`` is optional.

    Raises:
        DataError: naming the line that is malformed.
    """
    items: list[QAItem] = []
    lines: dict[str, int] = {}
    for number, record in records(Path(path)):
        try:
            item = _own(record, number)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: {error}.", "Each needs question, answers, and document or ctxs."
            ) from error
        if item.id in lines:  # results are kept by id
            raise DataError(
                f"{path}, line {number}: the id {item.id!r} is that of line {lines[item.id]}.", "Make the ids unique."
            )
        lines[item.id] = number
        items.append(item)
    if not items:
        raise DataError(f"{path} holds no records.", "Give one JSON object a line.")
    return evenly(items, limit, seed)


def _own(record: Record, number: int) -> QAItem:
    answers = record.get("answers")
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(answers, list) or not answers or not all(_is_text(answer) for answer in answers):
        raise ValueError("answers is not a text or a list of texts")
    passages = record.get("ctxs")
    if record.get("document") is None and passages is not None:
        if not isinstance(passages, list) or not all(isinstance(p, dict) and _is_text(p.get("text")) for p in passages):
            raise ValueError("ctxs is not a list of passages with a text")
        document: Any = "\n".join(f"{p.get('title') or ''} {p['text']}".strip() for p in passages)
    else:
        document = record.get("document")
    for field, value in (("document", document), ("question", record.get("question"))):
        if not _is_text(value):
            raise ValueError(f"no {field}, or it is not a text")
    name = str(number if record.get("id") is None else record["id"])
    document = whole_characters(document)
    digest = hashlib.sha256(document.encode()).hexdigest()[:16]
    return QAItem(name, document, whole_characters(record["question"]), answers, [], digest)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def evenly(items: list[QAItem], limit: int | None, seed: int) -> list[QAItem]:
    """Take ``limit`` items, one document after the other, so that no document dominates; grouped by document."""
    if limit is not None and limit < 1:
        raise DataError(f"A limit of {limit} leaves no questions.", "Give a limit of at least 1, or none.")
    if limit is None or limit >= len(items):
        return items
    documents = by_document(items)
    draw = random.Random(seed)
    for own in documents.values():
        draw.shuffle(own)
    # with fewer items than documents, chance and not the file's order says which documents
    order = draw.sample(list(documents), len(documents))
    taken: dict[str, int] = dict.fromkeys(order, 0)
    left = limit
    while left:
        for document in order:
            if left and taken[document] < len(documents[document]):
                taken[document] += 1
                left -= 1
    return [item for document in order for item in documents[document][: taken[document]]]


def occurrences(text: str, words: str) -> list[int]:
    """Where ``words`` begins in ``text``: as whole words (the answer "2" is not in "2018"), else wherever it stands."""
    found, at = [], text.find(words) if words else -1
    while at >= 0:
        found.append(at)
        at = text.find(words, at + 1)
    return [at for at in found if not (_inside_word(text, at) or _inside_word(text, at + len(words)))] or found


def _inside_word(text: str, at: int) -> bool:
    return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()


def _unique(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return sorted(set(spans))
