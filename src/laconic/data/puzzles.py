"""Problems that are solved one step at a time, made offline, each with its steps written out.

A problem states a few rules and how often to go through them, so that the statement is short, the solution as long as
``difficulty`` says, and no step can be had without the one before it: what a finished step leaves behind must hold the
state exactly.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator

from laconic.data.problems import Problem, answer_step, same_number, same_words
from laconic.errors import DataError

_COLOURS = ["red", "blue", "green", "black", "white", "pink", "gold", "grey", "brown", "orange"]
_NAMES = ["Anna", "Ben", "Carl", "Dora", "Emma", "Fred", "Gina", "Hugo", "Ivan", "Jane"]
_PLACES = ["kitchen", "garden", "office", "cellar", "attic", "garage"]
_LETTERS = ["A", "B", "C", "D", "E", "F", "G", "H"]

State = list[str]
#: what a rule is called, what it makes of a state, and how a step says so
Rule = tuple[str, Callable[[State], State], Callable[[State], str]]

_MOVES: list[Rule] = [
    ("the first goes to the end", lambda s: [*s[1:], s[0]], lambda s: f"{s[0]} goes to the end"),
    ("the last goes to the front", lambda s: [s[-1], *s[:-1]], lambda s: f"{s[-1]} goes to the front"),
    ("the first two swap", lambda s: [s[1], s[0], *s[2:]], lambda s: f"{s[0]} and {s[1]} swap"),
    ("the last two swap", lambda s: [*s[:-2], s[-1], s[-2]], lambda s: f"{s[-2]} and {s[-1]} swap"),
    ("the ends swap", lambda s: [s[-1], *s[1:-1], s[0]], lambda s: f"{s[0]} and {s[-1]} swap"),
]


def _turns(state: State, rules: list[Rule], difficulty: int) -> Iterator[tuple[int, str, State]]:
    """Two rules by turns: the number of each turn, what is done, and the state it leaves."""
    for turn in range(difficulty):
        _, change, told = rules[turn % 2]
        said, state = told(state), change(state)
        yield turn + 1, said, state


def shuffle(draw: random.Random, difficulty: int) -> tuple[str, list[str], str]:
    """Balls in a row that change places."""
    state = draw.sample(_COLOURS, 4)
    rules = draw.sample(_MOVES, 2)
    question = (
        f"Balls in a row: {', '.join(state)}. {difficulty} moves, taking turns: {rules[0][0]}, {rules[1][0]}. "
        "What is the row then?"
    )
    turns = list(_turns(state, rules, difficulty))
    steps = [f"Move {number}: {said}, the row is {', '.join(row)}." for number, said, row in turns]
    return question, steps, ", ".join(turns[-1][2])


def arithmetic(draw: random.Random, difficulty: int) -> tuple[str, list[str], str]:
    """A number that is added to and subtracted from in turns."""
    value, more, less = draw.randrange(3, 40), draw.randrange(2, 10), draw.randrange(1, 10)
    question = (
        f"A tank holds {value} litres. On odd days {more} litres flow in, on even days {less} flow out. How many "
        f"litres are there after {difficulty} days? It is never less than nothing."
    )
    steps = []
    for day in range(1, difficulty + 1):
        before = value
        if day % 2:
            value = before + more
            steps.append(f"Day {day} is odd, {more} litres flow in: {before} + {more} = {value}.")
        else:
            value = max(before - less, 0)
            steps.append(f"Day {day} is even, {less} litres flow out: {before} - {less} = {value}.")
    return question, steps, str(value)


def variables(draw: random.Random, difficulty: int) -> tuple[str, list[str], str]:
    """Things that change hands in turns, and who has which."""
    people = draw.sample(_NAMES, 3)
    holds = dict(zip(people, draw.sample(_COLOURS, 3), strict=True))
    order = draw.sample([(people[0], people[1]), (people[1], people[2]), (people[0], people[2])], 2)
    said = ", ".join(f"{name} has the {thing} card" for name, thing in holds.items())
    question = (
        f"{said}. {difficulty} times two of them trade cards, taking turns: {order[0][0]} and {order[0][1]}, "
        f"{order[1][0]} and {order[1][1]}. Which card has {people[0]} then?"
    )
    steps = []
    for turn in range(difficulty):
        one, other = order[turn % 2]
        gives = f"{one} gives {holds[one]} to {other} for {holds[other]}"
        holds[one], holds[other] = holds[other], holds[one]
        now = ", ".join(f"{name} has {thing}" for name, thing in holds.items())
        steps.append(f"Trade {turn + 1}: {gives}, now {now}.")
    return question, steps, holds[people[0]]


def machine(draw: random.Random, difficulty: int) -> tuple[str, list[str], str]:
    """A walk through rooms by a table of doors, and how often one of them was entered."""
    rooms = draw.sample(_PLACES, 4)
    to = {room: draw.choice([other for other in rooms if other != room]) for room in rooms}
    at = rooms[0]
    asked = to[to[at]]  # a room it does come into
    count = 0
    table = ", ".join(f"from the {room} to the {to[room]}" for room in rooms)
    question = (
        f"A cat starts in the {at} and always walks {table}. It walks {difficulty} times. How often does it come into "
        f"the {asked}?"
    )
    steps = []
    for turn in range(1, difficulty + 1):
        before, at = at, to[at]
        count += at == asked
        steps.append(f"Walk {turn}, from the {before} to the {at}: it has come into the {asked} {count} times.")
    return question, steps, str(count)


def lists(draw: random.Random, difficulty: int) -> tuple[str, list[str], str]:
    """A list of letters that loses some and gets others."""
    state = draw.sample(_LETTERS, 5)
    front, end = draw.sample(_LETTERS, 2)
    changes: list[Rule] = [
        (f"drop the first and add {end} at the end", lambda s: [*s[1:], end], lambda s: f"drop {s[0]}, add {end}"),
        (f"drop the last and add {front} in front", lambda s: [front, *s[:-1]], lambda s: f"drop {s[-1]}, add {front}"),
        ("move the first to the end", lambda s: [*s[1:], s[0]], lambda s: f"move {s[0]} to the end"),
    ]
    rules = draw.sample(changes, 2)
    question = (
        f"A list: {' '.join(state)}. {difficulty} times, taking turns: {rules[0][0]}; {rules[1][0]}. "
        "What is the list then?"
    )
    turns = list(_turns(state, rules, difficulty))
    steps = [f"Time {number}: {said}, which leaves {' '.join(left)}." for number, said, left in turns]
    return question, steps, " ".join(turns[-1][2])


#: by name: what makes a puzzle, and what checks its answer
PUZZLES: dict[str, tuple[Callable[[random.Random, int], tuple[str, list[str], str]], Callable[[str, str], bool]]] = {
    "shuffle": (shuffle, same_words),
    "arithmetic": (arithmetic, same_number),
    "variables": (variables, same_words),
    "machine": (machine, same_number),
    "lists": (lists, same_words),
}


def puzzle(name: str, draw: random.Random, difficulty: int, *, training: bool, ident: str = "") -> Problem:
    """A problem of this kind whose solution takes ``difficulty`` steps, and one more that says the answer.

    Args:
        training: one to train on. What is asked in evaluation, a fifth of all, is never among those.

    Raises:
        DataError: there is no such kind, or no step at all.
    """
    if name not in PUZZLES:
        raise DataError(f"There is no puzzle {name!r}.", f"Choose from: {', '.join(PUZZLES)}.")
    if difficulty < 1:
        raise DataError(f"A puzzle of {difficulty} steps is none.", "Ask for 1 or more.")
    make, same = PUZZLES[name]
    while True:
        question, steps, answer = make(draw, difficulty)
        if _held_out(question) != training:
            return Problem(ident, question, [*steps, answer_step(answer)], answer, same)


def _held_out(question: str) -> bool:
    return hashlib.sha256(question.encode()).digest()[0] < 51
