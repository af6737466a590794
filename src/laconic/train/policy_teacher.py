"""The teacher of a stage on own answers, as recipes name it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from transformers import AutoTokenizer, PreTrainedModel

from laconic.backbone import Backbone, load_backbone
from laconic.core import persist
from laconic.errors import BackboneError, LaconicError, RecipeError
from laconic.methods.tgpo.cache import CachedTeacher
from laconic.methods.tgpo.config import ALONE
from laconic.methods.tgpo.served import SERVED, ServedTeacher, check_url
from laconic.methods.tgpo.teacher import LocalTeacher, Target, TeacherScorer, check_target
from laconic.methods.tgpo.vocabulary import Side, side_of
from laconic.methods.thinking.model import Thinker
from laconic.train.checks import positive
from laconic.train.start import saved_folder

LOOK = "See recipes/tgpo/cpu.yaml."
#: a teacher in this process: a saved method, or any pretrained model
LOCAL = ("saved", "pretrained")
#: what a mapping may say of how a teacher is asked
ASKED = {"target", "top", "cache", "aliases"}


def check_teacher(stage: dict[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for a teacher that is missing, not asked, or not named in full."""
    teacher, wanted = stage["teacher"], stage["objective"] not in ALONE
    if wanted == (teacher is None):
        told, remedy = ("needs a", "Name a saved one, or a server") if wanted else ("asks no", "Set teacher: null")
        raise RecipeError(f"{where}: {stage['objective']} {told} teacher.", f"{remedy}.")
    if isinstance(teacher, dict):
        local = [name for name in LOCAL if name in teacher]
        own, beside = ({*local}, ASKED) if local else ({"url", "model"}, ASKED | {"tokenizer", "ends"})
        if len(local) > 1 or not own <= teacher.keys() <= own | beside:
            raise RecipeError(
                f"{where}: a teacher is {{saved: FOLDER}}, {{pretrained: NAME}} or {{url: ..., model: ...}}.",
                f"Beside these: {', '.join(sorted(beside))}.",
            )
        _check_asked(stage, teacher, where)
    elif teacher is not None and not isinstance(teacher, str):
        raise RecipeError(f"{where}: teacher must be a saved vanilla method, a mapping or null.", LOOK)


def _check_asked(stage: dict[str, Any], teacher: dict[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for a way of asking a teacher that there is not."""
    target, aliases = teacher.get("target", "argmax"), teacher.get("aliases", {})
    for name in (*LOCAL, "url", "model", "tokenizer", "cache"):
        if not isinstance(teacher.get(name, ""), str):
            raise RecipeError(f"{where}: {name} of the teacher must be a text.", LOOK)
    try:
        check_target(target, 1, SERVED if "url" in teacher else get_args(Target))
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


def make_teacher(
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
    if "url" in told:
        return lambda: _kept(_served(own, told, how), cache)
    if "pretrained" in told:
        return lambda: _kept(_pretrained(backbone, own, told["pretrained"], how), cache)
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


def _pretrained(backbone: Backbone, own: Side, name: str, how: dict[str, Any]) -> TeacherScorer:
    """Raises ``RecipeError`` where there is no such model."""
    try:
        loaded = load_backbone(name, dtype=backbone.dtype, device=backbone.device)
    except BackboneError as error:
        raise RecipeError(
            f"The teacher {name} cannot be loaded: {error.problem}", "Name a folder with a model, or one on a hub."
        ) from error
    return LocalTeacher(loaded.model, loaded.tokenizer, own, **how)


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


def check_asked_alike(thinker: Thinker, folder: Path) -> None:
    made = persist.read_description(folder)
    for name in ("prompt", "step_end"):
        theirs, ours = made["config"][name], getattr(thinker.config, name)
        if theirs != ours:
            raise RecipeError(f"The teacher's {name} is {theirs!r}, and {ours!r} here.", "Ask both in one way.")
