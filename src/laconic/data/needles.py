"""Facts hidden in real text: passkeys and needles, as many tokens apart from their question as wanted.

Offline and seeded: the same generator state gives the same example. A haystack is a list of token ids, so lengths and
depths are exact.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from laconic.backbone import Backbone
from laconic.errors import DataError


@dataclass(frozen=True)
class Needle:
    """A sentence, and the question that only it answers."""

    sentence: str
    question: str
    answer: str


_NAMES = """
    Ada Basil Clara Dorian Edith Felix Greta Hugo Iris Jasper Kate Leon Mabel Nora Oscar Paula Quentin Rosa Tilda
"""
_THINGS = """
    anchor basket candle compass drum fiddle hammer kettle ladder lantern mirror needle orchid pearl ring saddle
"""
_PLACES = """
    barn bakery cellar chapel garden harbour kitchen library market mill orchard stable tower vineyard
"""


def passkey(draw: random.Random) -> Needle:
    """Five digits, said twice (the form that passkey tests have had since they were first used)."""
    key = str(draw.randrange(10_000, 100_000))
    return Needle(f" The passkey is {key}. Remember it. {key} is the passkey.", "What is the passkey?", key)


def number(draw: random.Random) -> Needle:
    """The number of a person; other people's numbers can lie in the same haystack."""
    name, value = draw.choice(_NAMES.split()), str(draw.randrange(1_000, 10_000))
    return Needle(f" {name}'s number is {value}.", f"What is {name}'s number?", value)


def place(draw: random.Random) -> Needle:
    """Where a person left a thing."""
    name, thing, where = draw.choice(_NAMES.split()), draw.choice(_THINGS.split()), draw.choice(_PLACES.split())
    return Needle(
        f" {name} left the {thing} in the {where}.", f"Where did {name} leave the {thing}?", f"in the {where}"
    )


NEEDLES: dict[str, Callable[[random.Random], Needle]] = {"passkey": passkey, "number": number, "place": place}


@dataclass(frozen=True)
class Hidden:
    """A haystack with its needle.

    Attributes:
        ids: token ids of the whole text.
        depth: tokens before the needle.
    """

    ids: list[int]
    needle: Needle
    depth: int


class Haystacks:
    """Cuts haystacks from books and hides needles in them.

    Args:
        texts: of the books.

    Raises:
        DataError: there is no text at all.
    """

    def __init__(self, backbone: Backbone, texts: Sequence[str]) -> None:
        self.backbone = backbone
        self.books = [ids for ids in (backbone.token_ids(text) for text in texts) if ids]
        if not self.books:
            raise DataError("There is no book to hide a needle in.", "Name a set of books.")

    def text(self, length: int, draw: random.Random) -> list[int]:
        """So many tokens of running text; books follow one another where one is too short."""
        book = draw.randrange(len(self.books))
        ids = self.books[book]
        start = draw.randrange(max(len(ids) - length, 0) + 1)
        taken = ids[start : start + length]
        while len(taken) < length:
            book = (book + 1) % len(self.books)
            taken = taken + self.books[book][: length - len(taken)]
        return taken

    def hide(
        self, kind: str, length: int, draw: random.Random, *, depth: float | None = None, distractors: int = 0
    ) -> Hidden:
        """A needle in ``length`` tokens, the needle among them.

        Args:
            depth: where, from 0 (first) to 1 (last); drawn where left out.
            distractors: needles of the same kind with other questions, anywhere.
        """
        needles = [NEEDLES[kind](draw)]
        while len(needles) < 1 + distractors:
            other = NEEDLES[kind](draw)
            if other.question not in {needle.question for needle in needles}:
                needles.append(other)
        spelled = [self.backbone.token_ids(needle.sentence) for needle in needles]
        room = length - sum(map(len, spelled))
        if room < 0:
            raise DataError(f"{length} tokens are too few for the needles.", "Ask for more.")
        hay = self.text(room, draw)
        at = round((draw.random() if depth is None else depth) * room)
        places = [at, *(draw.randrange(room + 1) for _ in needles[1:])]
        ids: list[int] = []
        begin, where = 0, 0
        for place_, number_ in sorted(zip(places, range(len(needles)), strict=True)):
            ids += hay[begin:place_]
            where = len(ids) if number_ == 0 else where
            ids += spelled[number_]
            begin = place_
        return Hidden(ids + hay[begin:], needles[0], where)
