"""What a stage that trains on reasoning is made from, as recipes name it: puzzles and solutions in files."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from laconic.core.files import names_lines
from laconic.core.thoughts import Trace
from laconic.data.problems import Problem
from laconic.data.puzzles import PUZZLES, puzzle
from laconic.data.segmenters import SEGMENTERS, Segmenter, Tokens, by_tokens
from laconic.data.solutions import TRAINABLE, load_problems
from laconic.data.training import load_written, problems_for_training
from laconic.errors import RecipeError
from laconic.methods.thinking.model import Thinker
from laconic.train.checks import above_zero, positive
from laconic.train.thinking import Drawn, Row

#: what all stages on problems say besides their name and loop, and what those do that learn from written solutions
SHARED = ("task", "difficulty", "limit", "rows", "soft_rate")
WRITTEN = ("segmenter", "pack")
#: puzzles of one kind and difficulty that are laid out before anything is trained
PUZZLES_TRIED = 4
#: problems of one task whose solutions are about as long as each other, from which a step's rows are drawn
NEIGHBOURS = 64


def check_problems(stage: dict[str, Any], where: str, look: str) -> None:
    """Raise ``RecipeError`` for a slip in the keys of all stages on problems."""
    task, difficulty = stage["task"], stage["difficulty"]
    known = (*PUZZLES, *TRAINABLE)
    if not isinstance(task, list) or not task or not all(isinstance(name, str) for name in task):
        raise RecipeError(f"{where}: task must be a list of names.", look)
    if unknown := [name for name in task if name not in known and not names_lines(name)]:
        raise RecipeError(
            f"{where}: there is no task {unknown[0]!r} to train on.", f"Name a .jsonl file, or {', '.join(known)}."
        )
    if not isinstance(difficulty, list) or not difficulty or not all(map(positive, difficulty)):
        raise RecipeError(f"{where}: difficulty must be a list of numbers of steps.", look)
    if not positive(stage["limit"]) or not positive(stage["rows"]):
        raise RecipeError(f"{where}: limit and rows must be whole numbers above 0.", look)
    if not above_zero(stage["soft_rate"]):
        raise RecipeError(f"{where}: soft_rate must be a number above 0.", look)


def check_written(stage: dict[str, Any], where: str, look: str) -> None:
    """Raise ``RecipeError`` for a slip in the keys of stages on written solutions."""
    cut = stage["segmenter"]
    if cut is not None and not positive(cut) and not (isinstance(cut, str) and cut in SEGMENTERS):
        names = ", ".join(SEGMENTERS)
        raise RecipeError(f"{where}: segmenter must be null, one of {names}, or a number of tokens.", look)
    if stage["pack"] is not None and not positive(stage["pack"]):
        raise RecipeError(f"{where}: pack must be null, or a whole number of tokens.", look)


def load_solutions(stage: dict[str, Any], tokenizer: Tokens | None = None) -> dict[str, list[Problem]]:
    """Problems of the stage's files by name, shorter solutions first.

    Args:
        tokenizer: for steps of a number of tokens; without it, solutions are cut as each file is written.

    Raises:
        DataError: a file is missing, or must not be trained on.
    """
    asked = stage.get("segmenter")
    if isinstance(asked, int):
        cut = by_tokens(asked, tokenizer) if tokenizer is not None else None
    else:
        cut = SEGMENTERS[asked] if asked else None
    names = [name for name in stage["task"] if name not in PUZZLES]
    found = {
        name: load_problems(name, training=True, segmenter=cut) if name in TRAINABLE else _own_file(name, stage, cut)
        for name in names
    }
    return {name: sorted(problems, key=lambda p: sum(map(len, p.steps))) for name, problems in found.items()}


def _own_file(name: str, stage: dict[str, Any], cut: Segmenter | None) -> list[Problem]:
    """A user's problems: of those that a method answers itself, solutions need not be written."""
    if "segmenter" not in stage and not stage["given"]:
        return problems_for_training(name)
    return load_written(name, cut)


def some_puzzles(stage: dict[str, Any]) -> dict[str, list[Problem]]:
    """A few of each of the stage's puzzles at each difficulty, by their names, to see whether they can be laid out."""
    kinds = [name for name in dict.fromkeys(stage["task"]) if name in PUZZLES]
    return {
        f"{kind} of {moves} moves": [
            puzzle(kind, random.Random(number), moves, training=True) for number in range(PUZZLES_TRIED)
        ]
        for kind in kinds
        for moves in stage["difficulty"]
    }


def draw_problems(
    stage: dict[str, Any], files: dict[str, list[Problem]], draw: random.Random, count: int
) -> list[Problem]:
    """Problems of one of the stage's tasks, all about as long as each other."""
    task = draw.choice(stage["task"])
    if task in PUZZLES:
        difficulty = draw.choice(stage["difficulty"])
        return [puzzle(task, draw, difficulty, training=True) for _ in range(count)]
    start = draw.randrange(max(1, len(files[task]) - NEIGHBOURS + 1))
    near = files[task][start : start + NEIGHBOURS]
    return [draw.choice(near) for _ in range(count)]


def thinking_examples(
    thinker: Thinker, stage: dict[str, Any], files: dict[str, list[Problem]], seed: int
) -> Callable[[int], list[Row]]:
    """Steps of all tasks, as often one as the other; the rows of a step are of one task and about one length.

    Which problems a step has follows from the recipe's seed, the stage's name and the step alone, so all methods see
    the same; what a method draws for a trace (shortcuts, how far foresight tokens guess) is drawn apart from that, anew
    each time.
    """

    def drawn(trace: Trace, draw: random.Random) -> Drawn:
        offset = draw.randint(1, thinker.guesses) if thinker.guesses else None
        return Drawn(trace, thinker.training_reaches(len(trace.steps), draw), offset)

    def look(number: int) -> list[Row]:
        own = f"{seed}/{stage['name']}/{number}"
        draw = random.Random(f"{own}/{type(thinker).name}")
        chosen = draw_problems(stage, files, random.Random(own), stage["rows"])
        traces = [thinker.trace(p.question, p.steps, stage["limit"]) for p in chosen]
        rows = [[drawn(trace, draw)] for trace in traces]
        return packed(rows, stage["pack"]) if stage["pack"] else list(rows)

    return look


def packed(rows: Sequence[Row], tokens: int) -> list[Row]:
    """The same traces in fewer rows: as many to a row as fit so many words, longest first."""
    fuller: list[list[Drawn]] = []
    for drawn in sorted((one for row in rows for one in row), key=_words, reverse=True):
        for row in fuller:
            if sum(map(_words, row)) + _words(drawn) <= tokens:
                row.append(drawn)
                break
        else:
            fuller.append([drawn])
    return list(fuller)


def _words(drawn: Drawn) -> int:
    return len(drawn.trace.prompt) + sum(map(len, drawn.trace.steps))
