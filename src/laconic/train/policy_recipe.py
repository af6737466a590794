"""What a recipe says of a stage on own answers, checked and loaded."""

from __future__ import annotations

import random
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn
from transformers import AutoTokenizer

from laconic.core import persist
from laconic.data.problems import Problem
from laconic.errors import LaconicError, RecipeError
from laconic.methods.registry import load_thinker
from laconic.methods.tgpo.config import ALONE, FROM_GIVEN
from laconic.methods.tgpo.rewards import NEEDS, REWARDS
from laconic.methods.tgpo.served import ServedTeacher
from laconic.methods.tgpo.teacher import LocalTeacher, TeacherScorer
from laconic.methods.tgpo.thinking_student import ThinkingStudent
from laconic.methods.tgpo.vocabulary import Side, side_of
from laconic.methods.thinking.model import Thinker
from laconic.train.checks import above_zero, positive
from laconic.train.loop import LoopConfig
from laconic.train.policy import PolicyTask, settings
from laconic.train.start import saved_folder
from laconic.train.thinking_data import draw_problems

#: what such a stage says besides what all stages on problems do
KEYS = ("objective", "teacher", "answers", "given", "temperature", "reward", "together", "ask", "ask_every", "tgpo")
LOOK = "See recipes/tgpo/cpu.yaml."


def check_policy(stage: dict[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for whatever in a stage would fail later."""
    absent = set(KEYS) - set(stage)
    if absent:
        raise RecipeError(f"{where} has no {sorted(absent)[0]}.", LOOK)
    for name in ("answers", "together", "ask_every"):
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
    try:  # a slip in what TRL is told
        settings(stage, LoopConfig(**stage["loop"]), Path("unused"), cpu=True)
    except RecipeError:
        raise
    except (LaconicError, ValueError) as error:
        raise RecipeError(f"{where}: {error}", LOOK) from error


def _check_named(stage: dict[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for a teacher that is missing, not asked, or not named in full."""
    teacher, wanted = stage["teacher"], stage["objective"] not in ALONE
    if wanted == (teacher is None):
        told = "needs a teacher" if wanted else "asks no teacher"
        raise RecipeError(f"{where}: {stage['objective']} {told}.", "Name a saved vanilla method, or null.")
    if isinstance(teacher, dict):
        if not {"url", "model"} <= teacher.keys() <= {"url", "model", "tokenizer", "ends"}:
            raise RecipeError(f"{where}: a served teacher has a url and a model.", "Beside them: tokenizer, ends.")
    elif teacher is not None and not isinstance(teacher, str):
        raise RecipeError(f"{where}: teacher must be a saved vanilla method, a mapping or null.", LOOK)


def policy_task(
    thinker: Thinker,
    stage: dict[str, Any],
    files: dict[str, list[Problem]],
    decoder: list[nn.Parameter],
    seed: int,
) -> PolicyTask:
    """Everything of a stage but its teacher, which is loaded when the stage begins.

    Args:
        files: problems of the stage's files by name.
        decoder: parameters of the decoder that are trained.

    Raises:
        RecipeError: the teacher is none that can be asked about these answers.
    """
    batches = stage["loop"]["steps"] * PartialState().num_processes

    def drawn(what: str, number: int, count: int) -> list[Problem]:
        return draw_problems(stage, files, random.Random(f"{seed}/{stage['name']}/{what}{number}"), count)

    problems = [one for number in range(batches) for one in drawn("", number, stage["rows"])]
    watched = [drawn("watched/", number, 1)[0] for number in range(stage["ask"])]
    soft = [tokens.weight for tokens in (thinker.memory, thinker.restart) if len(tokens)]
    groups = [(decoder, 1.0), *([(soft, stage["soft_rate"])] if soft else [])]
    return PolicyTask(ThinkingStudent(thinker), stage, problems, watched, groups, _teacher(thinker, stage["teacher"]))


def _teacher(thinker: Thinker, named: str | dict[str, Any] | None) -> Callable[[], TeacherScorer | None]:
    """What makes the teacher of a stage; whether it can be one is checked now."""
    tokenizer = thinker.backbone.tokenizer
    if named is None:
        return lambda: None
    if isinstance(named, dict):
        return lambda: _served(thinker, named)
    folder = saved_folder(thinker.backbone, "vanilla", named)
    _check_teacher(thinker, folder)

    def local() -> TeacherScorer:
        teacher = load_thinker("vanilla", thinker.backbone, folder)
        return LocalTeacher(teacher.decoder, tokenizer, side_of(thinker.decoder, tokenizer))

    return local


def _served(thinker: Thinker, named: dict[str, Any]) -> TeacherScorer:
    own = side_of(thinker.decoder, thinker.backbone.tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(named["tokenizer"]) if named.get("tokenizer") else own.tokenizer
    ends = named.get("ends", [tokenizer.eos_token_id])
    return ServedTeacher(named["url"], named["model"], own, Side(tokenizer, len(tokenizer), ends))


def _check_teacher(thinker: Thinker, folder: Path) -> None:
    made = persist.read_description(folder)
    if made["method"] != "vanilla":
        raise RecipeError(
            f"The teacher in {folder} is a {made['method']}, which does not read all.", "Name a saved vanilla method."
        )
    for name in ("prompt", "step_end"):
        theirs, ours = made["config"][name], getattr(thinker.config, name)
        if theirs != ours:
            raise RecipeError(f"The teacher's {name} is {theirs!r}, and {ours!r} here.", "Ask both in one way.")
