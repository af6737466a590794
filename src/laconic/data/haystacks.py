"""Facts hidden in real text, at the depth wanted.

Offline and seeded: the same generator state gives the same haystack. Text is either a list of token ids, for training,
where lengths must be exact, or a string, for evaluation, where any model may read it; lengths count its units.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from laconic.data.needles import Needle
from laconic.errors import DataError

Text = TypeVar("Text", str, list[int])


@dataclass(frozen=True)
class Hidden(Generic[Text]):
    """A haystack, and where each sentence of each of its needles begins."""

    text: Text
    starts: list[list[int]]


class Haystacks(Generic[Text]):
    """Cuts haystacks from books and hides needles in them.

    Args:
        books: whole texts.
        spell: turns a sentence into such a text.

    Raises:
        DataError: there is no text at all.
    """

    def __init__(self, books: Sequence[Text], spell: Callable[[str], Text]) -> None:
        self.books: list[Text] = [book for book in books if len(book)]
        self.spell: Callable[[str], Text] = spell
        if not self.books:
            raise DataError("There is no book to hide a needle in.", "Name a set of books.")

    def cut(self, length: int, draw: random.Random) -> Text:
        """Running text of this length; books follow one another where one is too short."""
        book = draw.randrange(len(self.books))
        start = draw.randrange(max(len(self.books[book]) - length, 0) + 1)
        taken = self.books[book][start : start + length]
        while len(taken) < length:
            book = (book + 1) % len(self.books)
            taken = taken + self.books[book][: length - len(taken)]
        return taken

    def hide(
        self, needles: Sequence[Needle], length: int, draw: random.Random, *, depths: Sequence[float] = ()
    ) -> Hidden[Text]:
        """Needles in ``length`` units of text, their sentences among them.

        Args:
            needles: about different things; their sentences lie anywhere, those of one in their order.
            depths: where the first sentences of the first needles lie, from 0 (first) to 1 (last); those of all others
                are drawn.

        Raises:
            DataError: the text is too short for the needles.
        """
        pieces: list[Text] = []
        places: list[float] = []
        firsts: list[int] = []
        for number, needle in enumerate(needles):
            first = depths[number] if number < len(depths) else None
            others: list[float] = [draw.uniform(first or 0, 1) for _ in needle.sentences[first is not None :]]
            firsts.append(len(pieces))
            pieces += [self.spell(sentence) for sentence in needle.sentences]
            places += sorted(others if first is None else [first, *others])
        hay = length - sum(map(len, pieces))
        if hay < 0:
            raise DataError(f"A text of {length} is too short for its needles.", "Make it longer.")
        text, starts = insert(self.cut(hay, draw), pieces, places)
        return Hidden(
            text, [starts[at : at + len(needle.sentences)] for at, needle in zip(firsts, needles, strict=True)]
        )


def insert(hay: Text, pieces: Sequence[Text], depths: Sequence[float]) -> tuple[Text, list[int]]:
    """Put pieces into a text, between words; of two at one depth the first given comes first.

    Args:
        depths: of each piece, from 0 (behind the first word) to 1 (behind the last).

    Returns:
        The text, and where each piece begins in it.
    """
    places = [between_words(hay, round(depth * len(hay))) for depth in depths]
    text, begin = hay[:0], 0
    starts = [0] * len(pieces)
    for place, number in sorted(zip(places, range(len(pieces)), strict=True)):
        text = text + hay[begin:place]
        starts[number] = len(text)
        text = text + pieces[number]
        begin = place
    return text + hay[begin:], starts


def between_words(hay: str | list[int], place: int) -> int:
    """The next place between two words (the first is behind a word); tokens may be parted anywhere."""
    if isinstance(hay, list):
        return place
    space = hay.find(" ", place)
    return len(hay) if space < 0 else space
