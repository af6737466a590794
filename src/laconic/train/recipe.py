"""Recipes: a YAML file says what to train, on what, for how long; one command runs it to a saved method.

A recipe's stages run in order, each resuming from its own checkpoint; when the last is done the method is saved in
``<output>/method``. With ``start``, a recipe goes on from a saved method (``shipped``: the one inside this package).
``key=value`` overrides address nested keys with dots: ``stages.0.loop.steps=20``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState

from laconic.backbone import load_backbone
from laconic.core import persist
from laconic.core.files import write_whole
from laconic.data.loaders import load_for_training
from laconic.data.schema import QAItem
from laconic.errors import RecipeError
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.model import NAME, RAM
from laconic.methods.registry import shipped_adapter
from laconic.train.loop import LoopConfig, run
from laconic.train.ram import DocumentGroups, ReaderStage, RelevanceStage, StageTask

SHIPPED = "shipped"
STAGES = ("relevance", "head", "reader")
LOOK = "See recipes/ram/cpu.yaml."


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a recipe and apply ``key=value`` overrides (values are YAML).

    Raises:
        RecipeError: the file is missing or not a mapping, or an override names no key of it.
    """
    file = Path(path)
    if not file.is_file():
        raise RecipeError(f"There is no recipe {path}.", "See recipes/ for those that ship.")
    try:
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}.", "Mend the file.") from error
    if not isinstance(recipe, dict):
        raise RecipeError(f"{path} is not a mapping.", "A recipe has the keys method, output and stages.")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise RecipeError(f"{override!r} is not an override.", "Write key=value, as in stages.0.loop.steps=20.")
        try:
            _set(recipe, key, yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise RecipeError(f"{override!r}: the value is not valid YAML.", "Quote it.") from error
    if recipe.get("method") != "ram":
        raise RecipeError(f"No trainer for the method {recipe.get('method')!r}.", "Recipes train: ram.")
    missing = {"backbone", "dtype", "device", "start", "output", "seed", "ram", "stages"} - set(recipe)
    if missing:
        raise RecipeError(f"{path} has no {sorted(missing)[0]}.", LOOK)
    _check_types(recipe, path)
    return recipe


def _check_types(recipe: dict[str, Any], path: str | Path) -> None:
    """Raise ``RecipeError`` for anything that would only fail in the middle of a run."""
    stages = recipe["stages"]
    if not isinstance(recipe["ram"], dict) or not isinstance(recipe["seed"], int):
        raise RecipeError(f"{path}: ram must be a mapping, seed a whole number.", LOOK)
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise RecipeError(f"{path}: stages must be a list of mappings.", LOOK)
    for number, stage in enumerate(stages):
        where = f"{path}: stage {number}"
        absent = {"name", "data", "questions", "excerpt", "loop"} - set(stage)
        if absent:
            raise RecipeError(f"{where} has no {sorted(absent)[0]}.", LOOK)
        if stage["name"] not in STAGES:
            raise RecipeError(f"{where} is called {stage['name']!r}.", f"RAM has the stages {', '.join(STAGES)}.")
        data, questions, excerpt = stage["data"], stage["questions"], stage["excerpt"]
        if not isinstance(data, dict) or not data or not all(n is None or _whole(n) for n in data.values()):
            raise RecipeError(f"{where}: data must map tasks to a number of items, or to null for all.", LOOK)
        if not _whole(questions):
            raise RecipeError(f"{where}: questions must be a whole number above 0.", LOOK)
        if excerpt is not None and not (
            isinstance(excerpt, list) and len(excerpt) == 2 and all(map(_whole, excerpt)) and excerpt[0] <= excerpt[1]
        ):
            raise RecipeError(f"{where}: excerpt must be null, or two numbers of characters, from and to.", LOOK)
        try:
            LoopConfig(seed=recipe["seed"], **stage["loop"])
        except TypeError as error:
            raise RecipeError(f"{where}: loop: {error}.", LOOK) from error
    names = [stage["name"] for stage in stages]
    if len(set(names)) < len(names):
        raise RecipeError(f"{path}: two stages have one name, and would share their checkpoints.", "Merge them.")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _set(recipe: Any, key: str, value: Any) -> None:
    *path, last = key.split(".")
    node = recipe
    try:
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node[part]
        if isinstance(node, list):
            node[int(last)] = value
        else:
            if last not in node and path != ["ram"]:  # options left at their defaults; RAMConfig knows their names
                raise KeyError(last)
            node[last] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise RecipeError(
            f"The recipe has no key {key!r}.", "Overrides change keys that are there, and any option of ram."
        ) from error


def run_recipe(path: str | Path, overrides: Sequence[str] = (), say: Callable[[str], None] = print) -> Path:
    """Run a recipe; returns the folder of the saved method.

    Raises:
        RecipeError: the recipe is wrong; nothing has been trained.
    """
    recipe = load_recipe(path, overrides)
    config = RAMConfig.from_dict(recipe["ram"])
    data = [
        [item for name, limit in stage["data"].items() for item in load_for_training(name, limit=limit)]
        for stage in recipe["stages"]
    ]
    torch.manual_seed(recipe["seed"])
    backbone = load_backbone(recipe["backbone"], dtype=recipe["dtype"], device=recipe["device"])
    ram = RAM(backbone, config)
    provenance = {"recipe": recipe}
    if recipe["start"] is not None:
        provenance["start"] = _start(ram, recipe["start"], say)
    output = Path(recipe["output"])
    main = PartialState().is_main_process  # of several processes one writes
    if main:
        _claim(output, recipe)
    for number, (stage, items) in enumerate(zip(recipe["stages"], data, strict=True), 1):
        say(f"stage {number} of {len(data)}: {stage['name']}")
        task = _task(ram, stage, items, recipe["seed"])
        run(task, LoopConfig(seed=recipe["seed"], **stage["loop"]), output / stage["name"], say)
    target = output / "method"
    if main:
        ram.save_pretrained(target, dtype=torch.bfloat16, provenance=provenance)
        say(f"saved {target}")
    return target


def _start(ram: RAM, source: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Take over the weights of a saved method; what it lacks, say a term switched on since, starts fresh.

    Returns:
        How the saved method was made.

    Raises:
        AdapterError: it is missing, of another method or backbone, or of other shapes.
    """
    folder = shipped_adapter(ram.backbone) if source == SHIPPED else Path(source)
    if folder is None:
        raise RecipeError(f"No adapter for {ram.backbone.name} is shipped.", "Name a folder as start.")
    description = persist.read_description(folder)
    persist.check_method(description, NAME, folder)
    persist.check_backbone(description, ram.backbone, folder)
    saved = persist.read_tensors(folder)
    fresh = {n: p.detach() for n, p in ram.own_parameters().items() if n not in saved}
    persist.load_into(ram, saved | fresh, ram.backbone, folder)
    for parameter in ram.own_parameters().values():
        parameter.data = parameter.data.float()  # saved as bfloat16, in which small updates of the optimiser are lost
    say(f"start: {folder.name}" + (f"; fresh: {', '.join(fresh)}" if fresh else ""))
    return description["provenance"]


def _claim(output: Path, recipe: dict[str, Any]) -> None:
    """Keep the recipe beside its checkpoints: a changed recipe must not continue an old run."""
    kept = output / "recipe.json"
    text = json.dumps(recipe, indent=2, sort_keys=True)
    if kept.exists() and kept.read_text() != text:
        raise RecipeError(f"{output} holds a run of another recipe.", "Give another output=..., or delete the folder.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_whole(kept, text)
    except OSError as error:
        raise RecipeError(
            f"{output} cannot be written: {error}.", "Choose an output folder you may write to."
        ) from error


def _task(ram: RAM, stage: dict[str, Any], items: list[QAItem], seed: int) -> StageTask:
    excerpt = tuple(stage["excerpt"]) if stage["excerpt"] else None
    groups = DocumentGroups(items, stage["questions"], excerpt, seed)
    if stage["name"] in ("relevance", "head"):
        scalars = ram.relevance.weights
        head = [p for p in ram.relevance.parameters() if all(p is not s for s in scalars)]
        parameters = {"head": (head, 1.0), "weights": (scalars, 10.0)}
        if stage["name"] == "relevance":  # a head alone leaves the encoder, and so the skim vectors, as they are
            adapted = [p for n, p in ram.encoder.named_parameters() if ram.config.encoder_rank == 0 or "lora_" in n]
            parameters = {"encoder": (adapted, 1.0), **parameters}
        parameters = {name: trained for name, trained in parameters.items() if trained[0]}
        if not parameters:
            raise RecipeError("The score has no head and no weights to train.", "Leave the stage out.")
        return StageTask(RelevanceStage(ram), groups, parameters)
    lora = [p for n, p in ram.decoder.named_parameters() if "lora_" in n]
    if not lora:
        raise RecipeError("decoder_rank is 0: there is no reader to train.", "Set ram.decoder_rank.")
    own = {id(p) for p in ram.own_parameters().values()}
    align = [p for p in ram.align.parameters() if id(p) in own]  # a fusion layer shares the backbone's norm
    return StageTask(ReaderStage(ram), groups, {"decoder": (lora, 1.0), "align": (align, 1.0)})
