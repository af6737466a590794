"""Facts that can be hidden in any text, each with the question that only it answers."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Needle:
    """A fact and the question that only it answers.

    Attributes:
        sentences: they say it together, in this order; each may lie anywhere.
        answers: what is asked for; of several, all of it, in the order of the sentences.
        about: what it says something of; no two needles in one text may share any of it, or they could contradict
            each other.
        support: which sentences bear the answer; all of them where left out.
    """

    sentences: tuple[str, ...]
    question: str
    answers: tuple[str, ...]
    about: tuple[str, ...]
    support: tuple[int, ...] | None = None

    @property
    def answer(self) -> str:
        """All of it in one line."""
        return ", ".join(self.answers)


#: makes a needle
Maker = Callable[[random.Random], Needle]

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

# how long a passkey is, and how likely a digit is the one before it again in those that repeat
_DIGITS = 5
_AGAIN = 0.5


def passkey(draw: random.Random) -> Needle:
    """Five digits, said twice (the form that passkey tests have had since they were first used)."""
    return _passkey(str(draw.randrange(10_000, 100_000)))


def repeats(draw: random.Random) -> Needle:
    """A passkey in which every second digit or so is the one before it again: what a lossy memory gets wrong first."""
    key = str(draw.randrange(1, 10))
    while len(key) < _DIGITS:
        key += key[-1] if draw.random() < _AGAIN else str(draw.randrange(10))
    return _passkey(key)


def _passkey(key: str) -> Needle:
    said = f" The passkey is {key}. Remember it. {key} is the passkey."
    return Needle((said,), "What is the passkey?", (key,), ("passkey",))


def number(draw: random.Random) -> Needle:
    """The number of a person; other people's numbers can lie in the same haystack."""
    name, value = draw.choice(_NAMES.split()), str(draw.randrange(1_000, 10_000))
    return Needle((f" {name}'s number is {value}.",), f"What is {name}'s number?", (value,), (f"{name}'s number",))


def place(draw: random.Random) -> Needle:
    """Where a person left a thing."""
    name, thing, where = (draw.choice(words.split()) for words in (_NAMES, _THINGS, _PLACES))
    said = f" {name} left the {thing} in the {where}."
    return Needle((said,), f"Where did {name} leave the {thing}?", (f"in the {where}",), (f"{name}'s {thing}",))


def pair(draw: random.Random) -> Needle:
    """A key and its value, both without meaning (key-value retrieval)."""
    key, value = (str(uuid.UUID(int=draw.getrandbits(128), version=4)) for _ in range(2))
    return Needle((f' "{key}": "{value}",',), f'What is the value of "{key}"?', (value,), (key,))


def values(draw: random.Random) -> Needle:
    """Several values of one key, each said somewhere else (RULER's multi-value)."""
    name = draw.choice(_NAMES.split())
    said = tuple(str(value) for value in draw.sample(range(1_000, 10_000), _VALUES))
    sentences = tuple(f" One of {name}'s codes is {value}." for value in said)
    return Needle(sentences, f"What are all of {name}'s codes?", said, (f"{name}'s codes",))


def variables(draw: random.Random) -> Needle:
    """A value handed from name to name, each step said somewhere else (RULER's variable tracking)."""
    names: list[str] = []
    while len(names) < _CHAIN:
        name = "".join(draw.choices(string.ascii_uppercase, k=3))
        names += [name] * (name not in names)
    value = str(draw.randrange(10_000, 100_000))
    sentences = tuple(f" Let {name} be {what}." for name, what in zip(names, [value, *names], strict=False))
    return Needle(sentences, f"Which names stand for {value}?", tuple(names), (value, *names))


NEEDLES: dict[str, Maker] = {
    "passkey": passkey,
    "repeats": repeats,
    "number": number,
    "place": place,
    "pair": pair,
    "values": values,
    "variables": variables,
}


def draw_needles(makers: Sequence[Maker], count: int, draw: random.Random) -> list[Needle]:
    """Needles of these kinds, drawn evenly, no two about one thing: fewer where there are not so many."""
    needles: list[Needle] = []
    taken: set[str] = set()
    for _ in range(20 * count):
        needle = draw.choice(makers)(draw)
        if len(needles) < count and taken.isdisjoint(needle.about):
            needles.append(needle)
            taken |= set(needle.about)
    return needles
