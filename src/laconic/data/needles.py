"""Facts that can be hidden in any text, each with the question that only it answers."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Needle:
    """A fact and the question that only it answers.

    Attributes:
        sentences: they say it together, in this order; each may lie anywhere.
        answer: of several parts, they are in the order of the sentences, with commas between.
    """

    sentences: tuple[str, ...]
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


# what RULER asks for: values of one key, and names in one chain
_VALUES = 3
_CHAIN = 4


def passkey(draw: random.Random) -> Needle:
    """Five digits, said twice (the form that passkey tests have had since they were first used)."""
    key = str(draw.randrange(10_000, 100_000))
    return Needle((f" The passkey is {key}. Remember it. {key} is the passkey.",), "What is the passkey?", key)


def number(draw: random.Random) -> Needle:
    """The number of a person; other people's numbers can lie in the same haystack."""
    name, value = draw.choice(_NAMES.split()), str(draw.randrange(1_000, 10_000))
    return Needle((f" {name}'s number is {value}.",), f"What is {name}'s number?", value)


def place(draw: random.Random) -> Needle:
    """Where a person left a thing."""
    name, thing, where = draw.choice(_NAMES.split()), draw.choice(_THINGS.split()), draw.choice(_PLACES.split())
    return Needle(
        (f" {name} left the {thing} in the {where}.",), f"Where did {name} leave the {thing}?", f"in the {where}"
    )


def values(draw: random.Random) -> Needle:
    """Several values of one key, each said somewhere else (RULER's multi-value)."""
    name = draw.choice(_NAMES.split())
    said = [str(value) for value in draw.sample(range(1_000, 10_000), _VALUES)]
    sentences = tuple(f" One of {name}'s codes is {value}." for value in said)
    return Needle(sentences, f"What are all of {name}'s codes?", ", ".join(said))


def variables(draw: random.Random) -> Needle:
    """A value handed from name to name, each step said somewhere else (RULER's variable tracking)."""
    names = ["".join(draw.choices(string.ascii_uppercase, k=3)) for _ in range(_CHAIN)]
    value = str(draw.randrange(10_000, 100_000))
    given = [value, *names]
    sentences = tuple(f" Let {name} be {what}." for name, what in zip(names, given, strict=False))
    return Needle(sentences, f"Which names stand for {value}?", ", ".join(names))


NEEDLES: dict[str, Callable[[random.Random], Needle]] = {
    "passkey": passkey,
    "number": number,
    "place": place,
    "values": values,
    "variables": variables,
}


def draw_needles(kinds: Sequence[str], count: int, draw: random.Random) -> list[Needle]:
    """Needles of these kinds, no two with one question: fewer where there are not so many (there is one passkey)."""
    needles: dict[str, Needle] = {}
    for _ in range(20 * count):
        if len(needles) < count:
            needle = NEEDLES[draw.choice(kinds)](draw)
            needles.setdefault(needle.question, needle)
    return list(needles.values())
