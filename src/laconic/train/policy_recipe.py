"""What a recipe says of a stage on own answers, checked and loaded."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from accelerate import PartialState
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from laconic.backbone import Backbone
from laconic.core import persist
from laconic.data.problems import Problem, Question, same_words
from laconic.data.schema import QAItem
from laconic.errors import DataError, LaconicError, RecipeError
from laconic.generation.answer import Reader
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.reader import CoMeTReader
from laconic.methods.ram.model import RAM
from laconic.methods.registry import READERS, load_thinker, reading_method
from laconic.methods.tgpo.cache import CachedTeacher
from laconic.methods.tgpo.comet_student import CoMeTStudent
from laconic.methods.tgpo.config import ALONE, FROM_GIVEN
from laconic.methods.tgpo.reading_student import ReadingStudent
from laconic.methods.tgpo.rewards import NEEDS, REWARDS
from laconic.methods.tgpo.served import SERVED, ServedTeacher, check_url
from laconic.methods.tgpo.student_trainer import Groups
from laconic.methods.tgpo.students import Student
from laconic.methods.tgpo.teacher import LocalTeacher, Target, TeacherScorer, check_target
from laconic.methods.tgpo.thinking_student import ThinkingStudent
from laconic.methods.tgpo.vocabulary import Side, side_of
from laconic.methods.thinking.model import Thinker
from laconic.train.checks import above_zero, positive
from laconic.train.documents import DocumentGroups
from laconic.train.loop import LoopConfig
from laconic.train.policy import PolicyTask, options
from laconic.train.start import saved_folder
from laconic.train.thinking_data import draw_problems

#: added to the seed for questions that are asked now and then
WATCHED = 1_000_003
#: what such a stage says, besides what it asks about
KEYS = (
    "objective", "teacher", "answers", "given", "temperature", "reward", "rows", "limit", "together", "ask",
    "ask_every", "tgpo",
)  # fmt: skip
LOOK = "See recipes/tgpo/cpu.yaml."
#: what a mapping may say of how a teacher is asked
ASKED = {"target", "top", "cache", "aliases"}


def check_policy(stage: dict[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for whatever in a stage would fail later."""
    if not positive(stage["answers"]) or stage["answers"] < 2:
        raise RecipeError(f"{where}: answers must be 2 or more: they are compared with each other.", LOOK)
    for name in ("rows", "limit", "together", "ask_every"):
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
    if stage["reward"] not in REWARDS:
        raise RecipeError(f"{where}: reward must be one of {', '.join(REWARDS)}.", LOOK)
    needed = NEEDS.get(stage["reward"])
    if needed is not None and find_spec(needed) is None:
        raise RecipeError(f"{where}: the reward {stage['reward']} needs {needed}.", "pip install laconic[tgpo].")
    if not isinstance(stage["tgpo"], dict):
        raise RecipeError(f"{where}: tgpo must be a mapping of options, or {{}}.", LOOK)
    _check_named(stage, where)
    loop = LoopConfig(**stage["loop"])
    if stage["ask_every"] % loop.log_every:
        raise RecipeError(f"{where}: ask_every must be a multiple of the loop's log_every.", LOOK)
    try:
        options(stage, loop)
    except LaconicError as error:
        raise RecipeError(f"{where}: {error.problem}", error.remedy or LOOK) from error


def _check_named(stage: dict[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for a teacher that is missing, not asked, or not named in full."""
    teacher, wanted = stage["teacher"], stage["objective"] not in ALONE
    if wanted == (teacher is None):
        told, remedy = ("needs a", "Name a saved one, or a server") if wanted else ("asks no", "Set teacher: null")
        raise RecipeError(f"{where}: {stage['objective']} {told} teacher.", f"{remedy}.")
    if isinstance(teacher, dict):
        own = {"saved"} if "saved" in teacher else {"url", "model"}
        beside = ASKED if "saved" in teacher else ASKED | {"tokenizer", "ends"}
        if not own <= teacher.keys() <= own | beside:
            raise RecipeError(
                f"{where}: a teacher is {{saved: FOLDER}} or {{url: ..., model: ...}}.",
                f"Beside these: {', '.join(sorted(beside))}.",
            )
        _check_asked(stage, teacher, where)
    elif teacher is not None and not isinstance(teacher, str):
        raise RecipeError(f"{where}: teacher must be a saved vanilla method, a mapping or null.", LOOK)


def _check_asked(stage: dict[str, Any], teacher: dict[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for a way of asking a teacher that there is not."""
    target, aliases = teacher.get("target", "argmax"), teacher.get("aliases", {})
    for name in ("saved", "url", "model", "tokenizer", "cache"):
        if not isinstance(teacher.get(name, ""), str):
            raise RecipeError(f"{where}: {name} of the teacher must be a text.", LOOK)
    try:
        check_target(target, 1, get_args(Target) if "saved" in teacher else SERVED)
        if "url" in teacher:
            check_url(teacher["url"])
    except LaconicError as error:
        raise RecipeError(f"{where}: {error.problem}", error.remedy) from error
    if "top" in teacher and (target != "soft" or not positive(teacher["top"])):
        raise RecipeError(f"{where}: top is how many tokens a soft target has.", "Set target: soft, or leave top out.")
    ends = teacher.get("ends", [])
    if not isinstance(ends, list) or not all(type(one) is int for one in ends):
        raise RecipeError(f"{where}: ends are the token ids of the teacher's ends, in a list.", LOOK)
    if not isinstance(aliases, dict) or not all(isinstance(one, int) for pair in aliases.items() for one in pair):
        raise RecipeError(f"{where}: aliases map the teacher's token ids to the student's.", LOOK)
    if "cache" in teacher and (target == "sample" or stage["objective"] == "gkd"):
        raise RecipeError(
            f"{where}: a cache would always give what was drawn first, and gkd looks at more than it keeps.",
            "Leave cache out.",
        )


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

    def drawn(what: str, number: int, count: int) -> list[Problem]:
        return draw_problems(stage, files, random.Random(f"{seed}/{stage['name']}/{what}{number}"), count)

    problems = [one for number in range(batches(stage)) for one in drawn("", number, stage["rows"])]
    watched = [drawn("watched/", number, 1)[0] for number in range(stage["ask"])]
    soft = [tokens.weight for tokens in (thinker.memory, thinker.restart) if len(tokens)]
    groups = [(decoder, 1.0), *([(soft, stage["soft_rate"])] if soft else [])]

    def local(folder: Path) -> PreTrainedModel:
        return load_thinker("vanilla", thinker.backbone, folder).decoder

    teacher = _teacher(thinker.backbone, thinker.decoder, stage["teacher"], ("vanilla",), local)
    named = stage["teacher"]
    saved = named.get("saved") if isinstance(named, dict) else named
    if saved is not None:
        _check_asked_alike(thinker, saved_folder(thinker.backbone, "vanilla", saved))
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

    teacher = _teacher(backbone, student.decoder, stage["teacher"], READERS, local)
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
    return int(stage["loop"]["steps"]) * PartialState().num_processes


def _teacher(
    backbone: Backbone,
    decoder: PreTrainedModel,
    named: str | dict[str, Any] | None,
    kinds: Sequence[str],
    local: Callable[[Path], PreTrainedModel],
) -> Callable[[], TeacherScorer | None]:
    """What makes the teacher of a stage; whether it can be one is checked now.

    Args:
        decoder: the student's.
        kinds: methods whose saved decoder reads all.
        local: loads it.
    """
    own = side_of(decoder, backbone.tokenizer)
    if named is None:
        return lambda: None
    told: dict[str, Any] = {"saved": named} if isinstance(named, str) else named
    how = {key: value for key, value in told.items() if key in ("target", "top", "aliases")}
    cache = told.get("cache")
    if "saved" not in told:
        return lambda: _kept(_served(own, told, how), cache)
    folder = saved_folder(backbone, kinds[0], told["saved"])
    made = persist.read_description(folder)
    if made["method"] not in kinds:
        raise RecipeError(
            f"The teacher in {folder} is a {made['method']}, which does not read all.",
            f"Name a saved {' or '.join(kinds)}.",
        )
    persist.check_backbone(made, backbone, folder)
    return lambda: _kept(LocalTeacher(local(folder), backbone.tokenizer, own, **how), cache)


def _kept(teacher: TeacherScorer, cache: str | None) -> TeacherScorer:
    return teacher if cache is None else CachedTeacher(teacher, cache)


def _served(own: Side, named: dict[str, Any], how: dict[str, Any]) -> TeacherScorer:
    try:
        tokenizer = AutoTokenizer.from_pretrained(named["tokenizer"]) if named.get("tokenizer") else own.tokenizer
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"The teacher's tokenizer {named['tokenizer']} cannot be loaded: {str(error).splitlines()[0]}",
            "Name a folder that has one, or leave it out.",
        ) from error
    ends = named.get("ends", [tokenizer.eos_token_id])
    return ServedTeacher(named["url"], named["model"], own, Side(tokenizer, len(tokenizer), ends), **how)


def _check_asked_alike(thinker: Thinker, folder: Path) -> None:
    made = persist.read_description(folder)
    for name in ("prompt", "step_end"):
        theirs, ours = made["config"][name], getattr(thinker.config, name)
        if theirs != ours:
            raise RecipeError(f"The teacher's {name} is {theirs!r}, and {ours!r} here.", "Ask both in one way.")
