"""Loaders of problems with solutions: every file becomes a list of ``Problem``.

What must never be trained on (GSM8K's test, BBH, MMLU, ProsQA's test) is refused to a trainer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from typing import Literal

from laconic.data.folder import data_file
from laconic.data.jsonl import Record, parsed, records
from laconic.data.problems import Problem, answer_step, bare, same_number, same_text, same_words, stated_answer
from laconic.data.segmenters import SEGMENTERS, Segmenter
from laconic.errors import DataError

Use = Literal["train", "eval"]
#: of a choice, as an answer
_LETTER = re.compile(r"\(?([A-Z])\)?")


def _gsm8k(record: Record, cut: Segmenter) -> Iterator[Problem]:
    """Lines without the calculator's notes; the last, ``#### final``, in our form."""
    worked = re.sub(r"<<.*?>>", "", record["answer"].partition("####")[0])
    steps = [*cut(worked), answer_step(record["final"])]
    yield Problem(record["id"], record["question"], steps, record["final"], same_number)


def _rationale(record: Record, cut: Segmenter) -> Iterator[Problem]:
    steps = [*cut(record["rationale"]), answer_step(record["answer"])]
    yield Problem(record["id"], record["question"], steps, record["answer"], same_words)


def _prosqa(record: Record, cut: Segmenter) -> Iterator[Problem]:
    """The chain is given step by step and is not cut anew."""
    answer = record["answer"].rstrip(".")
    yield Problem(record["id"], record["question"], [*record["steps"], answer_step(answer)], answer, same_words)


def _unsolved(record: Record, cut: Segmenter) -> Iterator[Problem]:
    """BBH and MMLU as LightThinker evaluates them: no solution is given."""
    yield Problem(record["id"], record["question"], [], record["answer"], _same_choice)


def _same_choice(given: str, answer: str) -> bool:
    """The same words; of a choice named by its letter, the letter counts that is in brackets or stands alone."""
    letter = _LETTER.fullmatch(answer)
    if letter is None:
        return same_words(given, answer)
    found = re.match(r"(?:(?:option|choice)\s+)?(?:\(([a-z])\)|([a-z])(?=$|[).:,]))", given.strip(), re.IGNORECASE)
    return found is not None and (found[1] or found[2]).upper() == letter[1]


def _own(record: Record, number: int, cut: Segmenter | None) -> Problem:
    """A user's record; an answer that is one number is compared as one, a choice's letter as that."""
    answer, steps = record.get("answer"), record.get("steps", [])
    if cut is not None and record.get("solution") is not None:
        if steps:
            raise ValueError("steps and solution are two ways to say one thing")
        steps = _cut(_text("solution", record["solution"]), cut)
    numeric = isinstance(answer, int | float) and not isinstance(answer, bool) and isfinite(answer)
    question, answer = _text("question", record.get("question")), _text("answer", str(answer) if numeric else answer)
    answer = answer.strip()
    if not bare(answer):
        raise ValueError("answer has nothing that could be compared")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise ValueError("steps is not a list of texts")
    if numeric or re.fullmatch(r"-?(\d+(,\d{3})*(\.\d+)?|\.\d+)", answer):
        same = same_number
    else:
        same = _same_choice if _LETTER.fullmatch(answer) else same_text
    return Problem(str(record.get("id", number)), question, steps, answer, same)


def _cut(solution: str, cut: Segmenter) -> list[str]:
    """A written solution's steps; a last line that says the answer is one of its own."""
    worked, _, last = solution.strip().rpartition("\n")
    return cut(solution) if stated_answer(last) is None else [*cut(worked), last.strip()]


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is missing, or no text")
    return value


#: by name: what it may be used for, how it is cut if nothing else is asked, and how a record becomes a problem
SOLUTIONS: dict[str, tuple[Use, str, Callable[[Record, Segmenter], Iterator[Problem]]]] = {
    "gsm8k_train": ("train", "line", _gsm8k),
    "flan_cot_rationales": ("train", "sentence", _rationale),
    "prosqa_valid": ("train", "line", _prosqa),
    "gsm8k_test": ("eval", "line", _gsm8k),
    "prosqa_test": ("eval", "line", _prosqa),
    "lightthinker_eval_bbh": ("eval", "line", _unsolved),
    "lightthinker_eval_mmlu": ("eval", "line", _unsolved),
}


def load_problems(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    training: bool = False,
    segmenter: Segmenter | None = None,
) -> list[Problem]:
    """All problems of a file.

    Args:
        training: they are to be trained on.
        segmenter: cuts the written solutions; None cuts each file as it is written.

    Raises:
        DataError: no such task, its file is missing, or it must not be trained on.
    """
    if name not in SOLUTIONS:
        raise DataError(f"There is no task {name!r}.", f"Choose from: {', '.join(SOLUTIONS)}.")
    use, usual, make = SOLUTIONS[name]
    if training and use != "train":
        raise DataError(f"{name} is for evaluation and must not be trained on.", f"Trainable: {', '.join(TRAINABLE)}.")
    cut = segmenter or SEGMENTERS[usual]
    made = parsed(data_file(name, folder), name, lambda record: list(make(record, cut)))
    return [problem for problems in made for problem in problems]


def load_problem_file(path: str | os.PathLike[str], *, segmenter: Segmenter | None = None) -> list[Problem]:
    """Load a user's own JSON lines, plain or gzipped: ``question``, ``answer``, and if they like ``steps`` and ``id``.

    Args:
        segmenter: cuts ``solution``, a text, into steps where there are none; None does not look at it.

    Raises:
        DataError: naming the line that is malformed.
    """
    problems = []
    for number, record in records(Path(path)):
        try:
            problems.append(_own(record, number, segmenter))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}.", "Each needs question and answer.") from error
    if not problems:
        raise DataError(f"{path} holds no records.", "Give one JSON object a line.")
    return problems


TRAINABLE = tuple(name for name, (use, _, _) in SOLUTIONS.items() if use == "train")
