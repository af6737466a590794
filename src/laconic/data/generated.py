"""Evaluation tasks that are made, not fetched: facts hidden in books that nothing was trained on.

A task's name says everything: ``passkey-16k``, ``number-64k-keys3`` (three needles of the kind, one asked for),
``babi-qa1-32k`` (BABILong: the facts of a bAbI story, in order, in a book). Lengths are thousands of tokens, counted as
``CHARACTERS`` characters each, so that the task is the same for every model; result rows say how many they were.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from laconic.data.books import load_books
from laconic.data.haystacks import Haystacks, insert
from laconic.data.jsonl import records
from laconic.data.needles import NEEDLES, draw_needles
from laconic.data.schema import QAItem
from laconic.errors import DataError

# of English prose, per token of the embedded backbone
CHARACTERS = 4.3
DEPTHS = 10
NAME = re.compile(r"(?P<kind>[a-z]+|babi-qa\d+)-(?P<length>\d+)k(?:-keys(?P<keys>\d+))?")
BOOKS = "books_val"
FORMS = "passkey-16k, number-64k-keys3, place-4k, babi-qa1-32k"


def is_generated(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def generate(name: str, folder: str | os.PathLike[str] | None, limit: int | None, seed: int) -> list[QAItem]:
    """The items of a generated task; without a limit ten, one at each depth.

    Needles lie in the middle of each tenth of the text in turn; an item's id ends in the tenth (``d0`` to ``d9``).

    Raises:
        DataError: an unknown kind, or the books or stories are missing.
    """
    match = NAME.fullmatch(name)
    assert match is not None, f"{name} is no generated task"
    kind, length, keys = match["kind"], round(int(match["length"]) * 1000 * CHARACTERS), int(match["keys"] or 1)
    make: Callable[[int, random.Random], QAItem]
    books = Haystacks(load_books(BOOKS, folder), str)
    if kind in NEEDLES and keys >= 1 and not (kind == "passkey" and keys > 1):

        def make(number: int, draw: random.Random) -> QAItem:
            tenth = number % DEPTHS
            needles = draw_needles([kind], keys, draw)
            hidden = books.hide(needles, max(length, 1), draw, depth=(tenth + 0.5) / DEPTHS)
            asked, ident = needles[0], f"{name}-{number}-d{tenth}"
            # the spans' order is the sentences'; one that is said twice (by chance) is found where it is first said
            spans = [_span(hidden.text, sentence, hidden.starts[0]) for sentence in asked.sentences]
            return QAItem(ident, hidden.text, asked.question, [asked.answer], spans, ident)

        return [make(number, random.Random(f"{seed}/{name}/{number}")) for number in range(limit or DEPTHS)]
    if kind.startswith("babi-") and keys == 1:
        stories = list(_stories(kind.removeprefix("babi-"), folder))
        random.Random(f"{seed}/{kind}").shuffle(stories)
        chosen = stories[: limit or DEPTHS]
        return [
            _babilong(f"{name}-{number}", story, books, length, random.Random(f"{seed}/{name}/{number}"))
            for number, story in enumerate(chosen)
        ]
    raise DataError(f"There is no task {name!r}.", f"Generated ones look like {FORMS}.")


def _span(text: str, sentence: str, begin: int) -> tuple[int, int]:
    start = text.index(sentence, begin)
    return start, start + len(sentence)


Story = tuple[list[str], str, str, set[int]]


def _stories(task: str, folder: str | os.PathLike[str] | None) -> list[Story]:
    """The first question of every bAbI story: facts before it, question, answer, numbers of the supporting facts."""
    path = Path(folder or os.environ.get("LACONIC_DATA") or "../shared/data") / "babi_test.jsonl.gz"
    found = []
    for _, record in records(path):
        if record["task"].split("_")[0] == task:
            found.append(_first_question(record["lines"]))
    if not found:
        raise DataError(f"{path} has no task {task}.", "There are qa1 to qa20.")
    return found


def _first_question(lines: list[dict[str, Any]]) -> Story:
    place = next(number for number, line in enumerate(lines) if "question" in line)
    facts, asked = lines[:place], lines[place]
    support = {number for number, fact in enumerate(facts) if fact["n"] in asked["support"]}
    return [fact["fact"] for fact in facts], asked["question"], asked["answer"], support


def _babilong(name: str, story: Story, books: Haystacks[str], length: int, draw: random.Random) -> QAItem:
    facts, question, answer, support = story
    pieces = [f" {fact}" for fact in facts]
    hay = books.cut(max(length - sum(map(len, pieces)), 0), draw)
    text, starts = insert(hay, pieces, sorted(draw.random() for _ in pieces))
    spans = [(starts[n], starts[n] + len(pieces[n])) for n in sorted(support)]
    return QAItem(name, text.lstrip(), question, [answer], _shifted(spans, len(text) - len(text.lstrip())), name)


def _shifted(spans: list[tuple[int, int]], by: int) -> list[tuple[int, int]]:
    return [(max(start - by, 0), end - by) for start, end in spans]
