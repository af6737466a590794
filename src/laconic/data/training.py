"""What may be trained on: the tasks' training files, and a user's own.

What is kept for tuning and evaluation is refused, by the task's name and as a file that is called like it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from laconic.core.files import names_lines
from laconic.data.generated import is_generated
from laconic.data.loaders import DERIVED, TASKS, load_file, load_task, occurrences
from laconic.data.problems import Problem, answer_step, stated_answer
from laconic.data.schema import QAItem
from laconic.data.segmenters import Segmenter, by_line
from laconic.data.solutions import SOLUTIONS, load_problem_file, load_problems
from laconic.errors import DataError

#: by the name of a task: what its file may be used for
USES: Mapping[str, str] = {name: task[0] for name, task in TASKS.items()} | {
    name: task[0] for name, task in SOLUTIONS.items()
}


def load_for_training(
    name: str, folder: str | os.PathLike[str] | None = None, limit: int | None = None, seed: int = 0
) -> list[QAItem]:
    """As ``load_task``, but refuses what must never be trained on.

    Of a user's file (``load_file``), a question's evidence is where the first of its answers that the document has
    stands first.

    Raises:
        DataError: the task is kept for tuning or evaluation.
    """
    if names_lines(name):
        _check_file(name)
        return [_with_evidence(item) for item in load_file(name, limit, seed)]
    if is_generated(name):
        raise DataError(f"{name} is made for evaluation and must not be trained on.", "Choose training data.")
    _check_use(name, DERIVED[name][0] if name in DERIVED else name)
    return load_task(name, folder, limit, seed)


def problems_for_training(name: str, folder: str | os.PathLike[str] | None = None) -> list[Problem]:
    """Problems of a task, or of a user's file, whether or not they have solutions.

    Raises:
        DataError: no such task or file, or it must not be trained on.
    """
    if not names_lines(name):
        return load_problems(name, folder, training=True)
    _check_file(name)
    return load_problem_file(name)


def load_written(path: str, segmenter: Segmenter | None = None) -> list[Problem]:
    """A user's problems with the solutions that are written there: ``steps``, or ``solution``, a text that is cut.

    The last step of each says the answer; where none does, that step is added.

    Raises:
        DataError: naming the line that is malformed, the problem that has no solution or whose solution says another
            answer, or the file that must not be trained on.
    """
    _check_file(path)
    problems = load_problem_file(path, segmenter=segmenter or by_line)
    return [_answered(problem, path) for problem in problems]


def _answered(problem: Problem, path: str) -> Problem:
    if not problem.steps:
        raise DataError(
            f"{path}: the problem {problem.id} has no solution to learn from.", "Give it steps, or solution."
        )
    stated = stated_answer(problem.steps[-1])
    if stated is None:
        return replace(problem, steps=[*problem.steps, answer_step(problem.answer)])
    if not problem.same(stated, problem.answer):
        raise DataError(
            f"{path}: the solution of problem {problem.id} says {stated!r}, and its answer is {problem.answer!r}.",
            "Mend one of them.",
        )
    return problem


def _with_evidence(item: QAItem) -> QAItem:
    places = [(at, at + len(answer)) for answer in item.answers for at in occurrences(item.document, answer)[:1]]
    return replace(item, evidence=places[:1])


def _check_file(path: str) -> None:
    _check_use(path, Path(path).name.removesuffix(".gz").removesuffix(".jsonl"))


def _check_use(name: str, task: str) -> None:
    use = USES.get(task, "train")
    if use != "train":
        raise DataError(f"{name} is kept for {use} and must not be trained on.", "Choose training data.")
