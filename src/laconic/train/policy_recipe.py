"""What a recipe says of a stage on own answers, checked and loaded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn
from transformers import PreTrainedModel

from laconic.backbone import Backbone
from laconic.data.problems import Problem, Question, same_words
from laconic.data.schema import QAItem
from laconic.errors import DataError, LaconicError, RecipeError
from laconic.generation.answer import Reader
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.reader import CoMeTReader
from laconic.methods.ram.model import RAM
from laconic.methods.registry import READERS, load_thinker, reading_method
from laconic.methods.tgpo.comet_student import CoMeTStudent
from laconic.methods.tgpo.config import FROM_GIVEN
from laconic.methods.tgpo.reading_student import ReadingStudent
from laconic.methods.tgpo.rewards import NEEDS, REWARDS
from laconic.methods.tgpo.student_trainer import Groups
from laconic.methods.tgpo.students import Student
from laconic.methods.tgpo.thinking_student import ThinkingStudent
from laconic.methods.thinking.model import Thinker
from laconic.train.checks import above_zero, positive
from laconic.train.documents import DocumentGroups
from laconic.train.loop import LoopConfig
from laconic.train.policy import PolicyTask, options
from laconic.train.policy_teacher import LOOK, check_asked_alike, check_teacher, make_teacher
from laconic.train.start import saved_folder
from laconic.train.thinking_data import draw_problems

#: added to the seed for questions that are asked now and then
WATCHED = 1_000_003
#: what such a stage says, besides what it asks about
KEYS = (
    "objective", "teacher", "answers", "given", "temperature", "reward", "rows", "limit", "together", "updates",
    "ask", "ask_every", "tgpo",
)  # fmt: skip


def check_policy(stage: dict[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for whatever in a stage would fail later."""
    if not positive(stage["answers"]) or stage["answers"] < 2:
        raise RecipeError(f"{where}: answers must be 2 or more: they are compared with each other.", LOOK)
    for name in ("rows", "limit", "together", "updates", "ask_every"):
        if not positive(stage[name]):
            raise RecipeError(f"{where}: {name} must be a whole number above 0.", LOOK)
    for name in ("given", "ask"):
        if stage[name] != 0 and not positive(stage[name]):
            raise RecipeError(f"{where}: {name} must be a whole number, 0 or more.", LOOK)
    if stage["given"] > stage["answers"] or (stage["objective"] == "sft") != (stage["given"] == stage["answers"]):
        raise RecipeError(f"{where}: sft is given all its answers, and nothing else is.", "Set given.")
    if stage["objective"] not in FROM_GIVEN and stage["objective"] != "gkd" and stage["given"]:
        raise RecipeError(f"{where}: {stage['objective']} learns from its own answers alone.", "Set given: 0.")
    if stage["objective"] == "luffy" and not stage["given"]:
        raise RecipeError(f"{where}: luffy learns from answers that are given.", "Set given: 1.")
    if not above_zero(stage["temperature"]):
        raise RecipeError(f"{where}: temperature must be a number above 0: answers differ by chance.", LOOK)
    if not isinstance(stage["reward"], str) or stage["reward"] not in REWARDS:
        raise RecipeError(f"{where}: reward must be one of {', '.join(REWARDS)}.", LOOK)
    needed = NEEDS.get(stage["reward"])
    if needed is not None and find_spec(needed) is None:
        raise RecipeError(f"{where}: the reward {stage['reward']} needs {needed}.", "pip install laconic[tgpo].")
    if not isinstance(stage["tgpo"], dict):
        raise RecipeError(f"{where}: tgpo must be a mapping of options, or {{}}.", LOOK)
    check_teacher(stage, where)
    loop = LoopConfig(**stage["loop"])
    if stage["ask_every"] % loop.log_every:
        raise RecipeError(f"{where}: ask_every must be a multiple of the loop's log_every.", LOOK)
    try:
        options(stage, loop)
    except LaconicError as error:
        raise RecipeError(f"{where}: {error.problem}", error.remedy or LOOK) from error


def thinking_task(
    thinker: Thinker,
    stage: dict[str, Any],
    files: dict[str, list[Problem]],
    decoder: list[nn.Parameter],
    seed: int,
) -> PolicyTask:
    """A stage of a method that reasons; its teacher is loaded when the stage begins.

    Args:
        files: problems of the stage's files by name.
        decoder: parameters of the decoder that are trained.

    Raises:
        RecipeError: the teacher is none that can be asked about these answers.
    """

    def drawn(what: str, count: int) -> list[Problem]:
        # each by itself: several updates on one task alone would unlearn the others
        own = (random.Random(f"{seed}/{stage['name']}/{what}{number}") for number in range(count))
        return [draw_problems(stage, files, draw, 1)[0] for draw in own]

    problems = drawn("", stage["rows"] * batches(stage))
    watched = drawn("watched/", stage["ask"])
    soft = [tokens.weight for tokens in (thinker.memory, thinker.restart) if len(tokens)]
    groups = [(decoder, 1.0), *([(soft, stage["soft_rate"])] if soft else [])]

    def local(folder: Path) -> PreTrainedModel:
        return load_thinker("vanilla", thinker.backbone, folder).decoder

    teacher = make_teacher(thinker.backbone, thinker.decoder, stage["teacher"], ("vanilla",), local)
    named = stage["teacher"]
    saved = named.get("saved") if isinstance(named, dict) else named
    if saved is not None:
        check_asked_alike(thinker, saved_folder(thinker.backbone, "vanilla", saved))
    return PolicyTask(ThinkingStudent(thinker), stage, problems, watched, groups, teacher)


def ram_task(
    ram: RAM, stage: dict[str, Any], items: Sequence[QAItem], decoder: list[nn.Parameter], seed: int
) -> PolicyTask:
    """A stage of RAM's reader, which answers from documents shortened by ``factor``; its teacher reads them whole.

    Raises:
        RecipeError: the teacher is none that reads.
        DataError: there is no question to ask.
    """
    student = ReadingStudent(Reader(ram.backbone, ram.decoder), ram, stage["factor"])
    return _reading_task(student, ram.backbone, stage, items, [(decoder, 1.0)], seed)


def comet_task(comet: CoMeT, stage: dict[str, Any], items: Sequence[QAItem], groups: Groups, seed: int) -> PolicyTask:
    """A stage of CoMeT, which answers from its memory of documents; its teacher reads them whole.

    Raises:
        RecipeError: the teacher is none that reads.
        DataError: there is no question to ask.
        BudgetError: no chunk has room for an answer.
    """
    student = CoMeTStudent(CoMeTReader(comet), stage["limit"])
    return _reading_task(student, comet.backbone, stage, items, groups, seed)


def _reading_task(
    student: Student,
    backbone: Backbone,
    stage: dict[str, Any],
    items: Sequence[QAItem],
    groups: Groups,
    seed: int,
) -> PolicyTask:
    def local(folder: Path) -> PreTrainedModel:
        return reading_method(folder, backbone).decoder

    teacher = make_teacher(backbone, student.decoder, stage["teacher"], READERS, local)
    problems = _questions(backbone, stage, items, stage["rows"] * batches(stage), seed)
    watched = _questions(backbone, stage, items, stage["ask"], seed + WATCHED)
    return PolicyTask(student, stage, problems, watched, groups, teacher)


def _questions(
    backbone: Backbone, stage: dict[str, Any], items: Sequence[QAItem], count: int, seed: int
) -> list[Problem]:
    """So many questions about documents, or excerpts of them; those of a batch are about one, as far as it goes.

    What could not be answered within the limit, its end included, is not asked.
    """
    excerpt = tuple(stage["excerpt"]) if stage["excerpt"] else None
    if not items:
        raise DataError("There are no questions to train on.", "Raise the numbers in data.")
    groups, found, number, before = DocumentGroups(items, stage["rows"], excerpt, seed), list[Problem](), 0, -1
    while len(found) < count:
        if number % len(groups.documents) == 0:
            if len(found) == before:
                raise DataError(
                    "No question lies in an excerpt of its document and has an answer within the limit.",
                    "Take larger excerpts, or null; or raise the limit.",
                )
            before = len(found)
        group = groups(number)
        for question, answer in zip(group.questions, group.answers, strict=True):
            if backbone.count_tokens(" " + answer) < stage["limit"]:
                found.append(Question(str(number), question, [], answer, same_words, group.document))
        number += 1
    return found[:count]


def batches(stage: dict[str, Any]) -> int:
    """Batches of problems of a whole run, over all processes."""
    return int(stage["loop"]["steps"]) // int(stage["updates"]) * PartialState().num_processes
