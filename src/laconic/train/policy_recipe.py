"""What a recipe says of a stage on own answers, checked and loaded."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn

from laconic.core import persist
from laconic.data.problems import Problem
from laconic.errors import LaconicError, RecipeError
from laconic.methods.registry import load_thinker
from laconic.methods.tgpo.config import ALONE, FROM_GIVEN
from laconic.methods.tgpo.rewards import REWARDS
from laconic.methods.tgpo.teacher import LocalTeacher, TeacherScorer
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
    if not isinstance(stage["tgpo"], dict):
        raise RecipeError(f"{where}: tgpo must be a mapping of options, or {{}}.", LOOK)
    wanted = stage["objective"] not in ALONE
    if wanted != isinstance(stage["teacher"], str):
        told = "needs a teacher" if wanted else "asks no teacher"
        raise RecipeError(f"{where}: {stage['objective']} {told}.", "Name a saved vanilla method, or null.")
    try:  # a slip in what TRL is told
        settings(stage, LoopConfig(**stage["loop"]), Path("unused"), cpu=True)
    except RecipeError:
        raise
    except (LaconicError, ValueError) as error:
        raise RecipeError(f"{where}: {error}", LOOK) from error


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
    folder = None
    if isinstance(stage["teacher"], str):
        folder = saved_folder(thinker.backbone, "vanilla", stage["teacher"])
        _check_teacher(thinker, folder)
    return PolicyTask(thinker, stage, problems, watched, groups, partial(_teacher, thinker, folder))


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


def _teacher(thinker: Thinker, folder: Path | None) -> TeacherScorer | None:
    if folder is None:
        return None
    tokenizer = thinker.backbone.tokenizer
    teacher = load_thinker("vanilla", thinker.backbone, folder)
    return LocalTeacher(teacher.decoder, tokenizer, (thinker.decoder, tokenizer))
