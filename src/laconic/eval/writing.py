"""Solutions that a method writes itself, for others to be trained on.

What a teacher says to each problem is what its student learns: sequence-level distillation (Kim and Rush, 2016,
arXiv 1606.07947). Answers can be checked here, so wrong solutions are left out, and with several drawn a problem it is
rejection sampling. Solutions are lines of a journal beside the file, so that a run that was cut off goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.core.files import names_lines, write_whole
from laconic.data.problems import Problem
from laconic.data.puzzles import PUZZLES
from laconic.data.solutions import TRAINABLE
from laconic.data.training import problems_for_training
from laconic.errors import DataError, LaconicError
from laconic.eval.journal import Journal, Line
from laconic.eval.reasoning import FORMS, PUZZLES_ASKED, check_fit, digest_of, some_puzzles
from laconic.methods.thinking.model import Thinker


@dataclass(frozen=True)
class Drawing:
    """How solutions are drawn.

    Attributes:
        samples: of each problem.
        temperature: 0 takes the likeliest word each time.
        max_new_tokens: of the longest solution.
        together: solutions that are written side by side. At a temperature, what is drawn follows from what else is
            written beside it: with another number, or other problems, others are drawn.

    Raises:
        LaconicError: several of a problem, and all would be the same.
    """

    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int = 512
    together: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples > 1 and self.temperature <= 0:
            raise LaconicError(
                f"At temperature 0 all {self.samples} solutions of a problem are one.", "Set --temperature, 1 say."
            )


def problems_to_train_on(
    name: str, limit: int | None = None, seed: int = 0, folder: str | os.PathLike[str] | None = None
) -> list[Problem]:
    """As ``reasoning.reasoning_task``, of what may be trained on: puzzles that evaluations never ask, training files,
    and a user's own.

    Raises:
        DataError: there is no such task, or it must not be trained on.
    """
    kind, _, moves = name.rpartition("-")
    if kind in PUZZLES and moves.isdecimal():
        draw = random.Random(f"written/{seed}/{name}")
        return some_puzzles(name, draw, limit or PUZZLES_ASKED, training=True)
    try:
        problems = problems_for_training(name, folder)
    except DataError as error:
        if name in TRAINABLE or names_lines(name):
            raise
        raise DataError(error.problem, f"Choose from {', '.join(TRAINABLE)}. {FORMS}") from error
    return random.Random(f"written/{seed}").sample(problems, min(limit or len(problems), len(problems)))


def write_solutions(
    thinker: Thinker,
    tasks: Mapping[str, Sequence[Problem]],
    out: Path,
    drawing: Drawing,
    say: Callable[[str], None] = print,
) -> dict[str, int]:
    """Solve all problems, and write the right solutions to ``out``, those of a problem that are alike once.

    They are lines of JSON with ``id``, ``question``, ``steps`` and ``answer``, as recipes take them. What was cut off
    is left out, whatever it says, and what holds the end of a step within one.

    Returns:
        How many were written down, were wrong, did not end, and were there already.

    Raises:
        DataError: ``out`` cannot be written, a problem fills the window, or no solution is right, so that there is
            nothing to train on.
    """
    check_fit(thinker, tasks)
    journal, setting = Journal(out), _setting(thinker, drawing)
    wanted = [
        (f"{task}/{digest_of(problem)}/{number}", task, problem)
        for task, problems in tasks.items()
        for problem in problems
        for number in range(drawing.samples)
    ]
    left = sorted(wanted, key=lambda one: len(one[2].question))
    if not drawing.temperature:  # what is drawn has to be cut alike in every run, whatever is done already
        left = [one for one in left if (setting, one[0]) not in journal.done]
    for first in range(0, len(left), drawing.together):
        some = left[first : first + drawing.together]
        if all((setting, item) in journal.done for item, _, _ in some):
            continue
        solutions = thinker.solve(
            [problem.question for _, _, problem in some],
            max_new_tokens=drawing.max_new_tokens,
            temperature=drawing.temperature,
            seed=random.Random(f"{drawing.seed}/{first}").getrandbits(31),
        )
        for (item, _, problem), solution in zip(some, solutions, strict=True):
            whole = solution.bill.stopped_by == "end"
            whole = whole and not any(thinker.config.step_end in step for step in solution.steps)
            found = {"whole": whole, "right": problem.solved_by(solution.text), "steps": solution.steps}
            journal.add({"setting": setting, "item": item} | found)
        say(f"{len(wanted) - len(left) + first + len(some)} of {len(wanted)} solutions")
    kept: dict[tuple[str, str, tuple[str, ...]], Line] = {}
    counts = {"written": 0, "wrong": 0, "unfinished": 0, "twice": 0}
    for item, task, problem in wanted:
        line = journal.done[setting, item]
        key = (task, problem.question, tuple(line["steps"]))
        if not line["whole"]:
            counts["unfinished"] += 1
        elif not line["right"]:
            counts["wrong"] += 1
        elif key in kept:
            counts["twice"] += 1
        else:
            kept[key] = {"id": item, "question": problem.question, "steps": line["steps"], "answer": problem.answer}
    counts["written"] = len(kept)
    if not kept:
        raise DataError("No solution is right, so there is nothing to train on.", "Ask a better method, or easier.")
    write_whole(out, "".join(json.dumps(line) + "\n" for line in kept.values()))
    return counts


def _setting(thinker: Thinker, drawing: Drawing) -> str:
    backbone = thinker.backbone
    how: list[Any] = [thinker.identity, thinker.config.to_dict() | thinker.decoding, backbone.content_hash]
    how += [str(backbone.dtype), backbone.device.type, vars(drawing)]
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:12]
