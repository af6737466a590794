"""Facts that can be hidden in any text, each with the question that only it answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


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
