"""Evaluation tasks that are made, not fetched: facts hidden in books that nothing was trained on.

A task's name says everything: ``passkey-16k``, ``number-64k-keys3`` (three needles of the kind, one asked for),
``number-64k-keys5-all`` (five, evenly over the text, each asked for: read once, asked at five depths), ``babi-qa1-32k``
(as in BABILong: the facts of a bAbI story, in order, in a book). Lengths are thousands of tokens,
counted as ``CHARACTERS`` characters each, so that the task is the same for every model; result rows say how many they
were.
"""

from __future__ import annotations

import os
import random
import re

from laconic.data.books import load_books
from laconic.data.haystacks import Haystacks
from laconic.data.needles import NEEDLES, Needle, draw_needles
from laconic.data.schema import QAItem
from laconic.data.stories import is_story, load_stories
from laconic.errors import DataError

# of English prose, per token of the embedded backbone
CHARACTERS = 4.3
DEPTHS = 10
NAME = re.compile(r"(?P<kind>[a-z]+|babi-qa\d+)-(?P<length>\d+)k(?:-keys(?P<keys>\d+)(?P<all>-all)?)?")
BOOKS = "books_val"
FORMS = (
    "passkey-16k, repeats-16k, number-64k-keys3, number-64k-keys5-all, place-4k, pair-4k, values-4k, variables-4k,"
    " babi-qa1-32k"
)


def is_generated(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def generate(name: str, folder: str | os.PathLike[str] | None, limit: int | None, seed: int) -> list[QAItem]:
    """The items of a generated task; without a limit ten, one at each depth, or one text of which everything is asked.

    Needles lie in the middle of each tenth of the text in turn, those of one text that are all asked for in the middle
    of even parts of it; an item's id ends in the tenth (``d0`` to ``d9``).

    Raises:
        DataError: a limit below 1, an unknown kind, or the books or stories are missing.
    """
    match = NAME.fullmatch(name)
    assert match is not None, f"{name} is no generated task"
    if limit is not None and limit < 1:
        raise DataError(f"A limit of {limit} leaves no questions.", "Give a limit of at least 1, or none.")
    kind, length, keys = match["kind"], round(int(match["length"]) * 1000 * CHARACTERS), int(match["keys"] or 1)
    if kind in NEEDLES:
        start = random.Random(f"{seed}/{name}")
        asked = keys if match["all"] else 1
        texts = -(-limit // asked) if limit else (1 if match["all"] else DEPTHS)
        sets = [draw_needles([NEEDLES[kind]], keys, random.Random(start.random())) for _ in range(texts)]
        even = [(number + 0.5) / keys for number in range(keys)]
        depths = [even if match["all"] else [(number % DEPTHS + 0.5) / DEPTHS] for number in range(texts)]
    elif is_story(kind):
        stories = load_stories(kind, folder, training=False)
        pick = random.Random(f"{seed}/{kind}")
        pick.shuffle(stories)
        sets = [[pick.choice(story)] for story in stories[: limit or DEPTHS]]
        asked, depths = 1, [[] for _ in sets]
    else:
        asked, sets, depths = 1, [[]], [[]]
    if kind in NEEDLES and (most := min(map(len, sets))) < keys:
        raise DataError(
            f"One text has no room for {keys} different needles of the kind {kind}, only for {most}.",
            f"Generated ones look like {FORMS}.",
        )
    if any(len(needles) != keys for needles in sets):
        raise DataError(f"There is no task {name!r}.", f"Generated ones look like {FORMS}.")
    books = Haystacks(load_books(BOOKS, folder), str)
    items = []
    for number, (needles, own) in enumerate(zip(sets, depths, strict=True)):
        # nothing but the story at length 0
        shortest = sum(len(sentence) for needle in needles for sentence in needle.sentences)
        draw = random.Random(f"{seed}/{name}/{number}")
        hidden = books.hide(needles, max(length, shortest), draw, depths=own)
        for place in range(asked):
            ident = f"{name}-{number * asked + place}" + (f"-d{int(own[place] * DEPTHS)}" if own else "")
            items.append(_item(ident, f"{name}-{number}", needles[place], hidden.text, hidden.starts[place]))
    return items[:limit]


def _item(ident: str, document: str, asked: Needle, hidden: str, starts: list[int]) -> QAItem:
    text = hidden.lstrip()
    cut = len(hidden) - len(text)
    spans = []
    for place, (sentence, start) in enumerate(zip(asked.sentences, starts, strict=True)):
        if asked.support is None or place in asked.support:
            spans.append((max(start - cut, 0), start + len(sentence) - cut))
    parts = list(asked.answers) if len(asked.answers) > 1 else []
    return QAItem(ident, text, asked.question, [asked.answer], spans, document, parts)
