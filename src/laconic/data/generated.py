"""Evaluation tasks that are made, not fetched: facts hidden in books that nothing was trained on.

A task's name says everything: ``passkey-16k``, ``number-64k-keys3`` (three needles of the kind, one asked for),
``babi-qa1-32k`` (as in BABILong: the facts of a bAbI story, in order, in a book). Lengths are thousands of tokens,
counted as ``CHARACTERS`` characters each, so that the task is the same for every model; result rows say how many they
were.
"""

from __future__ import annotations

import os
import random
import re

from laconic.data.books import load_books
from laconic.data.haystacks import Haystacks, Hidden
from laconic.data.needles import NEEDLES, Needle, draw_needles
from laconic.data.schema import QAItem
from laconic.data.stories import is_story, load_stories
from laconic.errors import DataError

# of English prose, per token of the embedded backbone
CHARACTERS = 4.3
DEPTHS = 10
NAME = re.compile(r"(?P<kind>[a-z]+|babi-qa\d+)-(?P<length>\d+)k(?:-keys(?P<keys>\d+))?")
BOOKS = "books_val"
FORMS = "passkey-16k, number-64k-keys3, place-4k, pair-16k-keys9, values-4k, variables-4k, babi-qa1-32k"


def is_generated(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def generate(name: str, folder: str | os.PathLike[str] | None, limit: int | None, seed: int) -> list[QAItem]:
    """The items of a generated task; without a limit ten, one at each depth.

    Needles lie in the middle of each tenth of the text in turn; an item's id ends in the tenth (``d0`` to ``d9``).

    Raises:
        DataError: a limit below 1, an unknown kind, or the books or stories are missing.
    """
    match = NAME.fullmatch(name)
    assert match is not None, f"{name} is no generated task"
    if limit is not None and limit < 1:
        raise DataError(f"A limit of {limit} leaves no questions.", "Give a limit of at least 1, or none.")
    kind, length, keys = match["kind"], round(int(match["length"]) * 1000 * CHARACTERS), int(match["keys"] or 1)
    if kind in NEEDLES:
        limit, start = limit or DEPTHS, random.Random(f"{seed}/{name}")
        sets = [draw_needles({kind: NEEDLES[kind]}, keys, random.Random(start.random())) for _ in range(limit)]
        depths: list[float | None] = [(number % DEPTHS + 0.5) / DEPTHS for number in range(limit)]
    elif is_story(kind):
        stories = load_stories(kind, folder, training=False)
        pick = random.Random(f"{seed}/{kind}")
        pick.shuffle(stories)
        sets = [[pick.choice(story)] for story in stories[: limit or DEPTHS]]
        depths = [None] * len(sets)
    else:
        sets, depths = [[]], [None]
    if any(len(needles) != keys for needles in sets):
        raise DataError(f"There is no task {name!r}.", f"Generated ones look like {FORMS}.")
    books = Haystacks(load_books(BOOKS, folder), str)
    items = []
    for number, (needles, depth) in enumerate(zip(sets, depths, strict=True)):
        # nothing but the story at length 0
        shortest = sum(len(sentence) for needle in needles for sentence in needle.sentences)
        draw = random.Random(f"{seed}/{name}/{number}")
        hidden = books.hide(needles, max(length, shortest), draw, depth=depth)
        ident = f"{name}-{number}" + (f"-d{number % DEPTHS}" if depth is not None else "")
        items.append(_item(ident, needles[0], hidden))
    return items


def _item(ident: str, asked: Needle, hidden: Hidden[str]) -> QAItem:
    text = hidden.text.lstrip()
    cut = len(hidden.text) - len(text)
    spans = []
    for place, (sentence, start) in enumerate(zip(asked.sentences, hidden.starts[0], strict=True)):
        if asked.support is None or place in asked.support:
            spans.append((max(start - cut, 0), start + len(sentence) - cut))
    parts = list(asked.answers) if len(asked.answers) > 1 else []
    return QAItem(ident, text, asked.question, [asked.answer], spans, ident, parts)
