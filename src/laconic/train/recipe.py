"""Recipes: a YAML file says what to train, on what, for how long; one command runs it to a saved method.

A recipe names its method; what its stages are, and how one is trained, the method's trainer knows (``TRAINERS``). The
stages run in order, each resuming from its own checkpoint; what each has made is saved in ``<output>/<stage>/method``,
and what the last one has in ``<output>/method``. With ``start``, a recipe goes on from a saved method (``shipped``: the
one inside this package), or from the average of several. ``key=value`` overrides address nested keys with dots:
``stages.0.loop.steps=20``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState

from laconic.core.files import names_lines, write_whole
from laconic.errors import RecipeError
from laconic.methods.baselines.anchors import Anchors
from laconic.methods.hybridthinker.model import HybridThinker
from laconic.methods.lightthinker.model import LightThinker
from laconic.methods.memosight.model import MemoSight
from laconic.methods.vanilla.model import Vanilla
from laconic.train.classifier_recipe import ClassifierTrainer
from laconic.train.comet_recipe import CoMeTTrainer
from laconic.train.loop import LoopConfig
from laconic.train.poc_recipe import PoCTrainer
from laconic.train.ram_recipe import RAMTrainer
from laconic.train.sft_recipe import SFTTrainer
from laconic.train.stages import Trainer
from laconic.train.start import check_start, take_over
from laconic.train.thinking_recipe import ThinkingTrainer

TRAINERS: dict[str, Trainer] = {
    "ram": RAMTrainer(),
    "comet": CoMeTTrainer(),
    "sft": SFTTrainer(),
    "classifier": ClassifierTrainer(),
    "poc": PoCTrainer(),
    **{kind.name: ThinkingTrainer(kind) for kind in (Vanilla, LightThinker, HybridThinker, MemoSight, Anchors)},
}


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
    method = recipe.get("method")
    if not isinstance(method, str) or method not in TRAINERS:
        raise RecipeError(f"No trainer for the method {method!r}.", f"Recipes train: {', '.join(TRAINERS)}.")
    keys = {"method", "backbone", "dtype", "device", "start", "output", "seed", method, "stages"}
    if missing := keys - set(recipe):
        raise RecipeError(f"{path} has no {sorted(missing)[0]}.", TRAINERS[method].look)
    if unknown := set(recipe) - keys:
        raise RecipeError(f"{path}: a recipe has no {sorted(map(str, unknown))[0]}.", TRAINERS[method].look)
    _check_types(recipe, path)
    return recipe


def _check_types(recipe: dict[str, Any], path: str | Path) -> None:
    """Raise ``RecipeError`` for anything that would only fail in the middle of a run."""
    method, stages = recipe["method"], recipe["stages"]
    trainer = TRAINERS[method]
    if not isinstance(recipe[method], dict):
        raise RecipeError(f"{path}: {method} must be a mapping.", trainer.look)
    seed = recipe["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:  # NumPy's range
        raise RecipeError(f"{path}: seed must be a whole number from 0 to 4294967295.", trainer.look)
    if not isinstance(recipe["output"], str) or not recipe["output"]:
        raise RecipeError(f"{path}: output must name a folder.", trainer.look)
    for key in ("backbone", "dtype", "device"):
        if recipe[key] is not None and not isinstance(recipe[key], str):
            raise RecipeError(f"{path}: {key} must be a text, or null.", trainer.look)
    check_start(recipe["start"], path)
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise RecipeError(f"{path}: stages must be a list of mappings.", trainer.look)
    if not stages and not isinstance(recipe["start"], list):
        raise RecipeError(f"{path} has no stages: only an average of several methods needs none.", trainer.look)
    for number, stage in enumerate(stages):
        where = f"{path}: stage {number}"
        keys = {"name", "loop", *trainer.keys(stage)}
        if unknown := set(stage) - keys:  # which may be a slip in a word that is missing then
            raise RecipeError(f"{where}: {method} has no use for {sorted(map(str, unknown))[0]} there.", trainer.look)
        if absent := keys - set(stage):
            raise RecipeError(f"{where} has no {sorted(absent)[0]}.", trainer.look)
        try:
            LoopConfig(seed=recipe["seed"], **stage["loop"])
        except TypeError as error:
            raise RecipeError(f"{where}: loop: {error}.", trainer.look) from error
        if not isinstance(stage["name"], str) or not re.fullmatch(r"[A-Za-z0-9_-]+", stage["name"]):
            raise RecipeError(f"{where} has a name that is no plain word.", "Letters, digits, - and _ make one.")
        trainer.check(stage, where)
    names = [stage["name"] for stage in stages]
    if "method" in names:
        raise RecipeError(f"{path}: a stage's name is its folder, and method is that of what is saved.", "Rename it.")
    if len(set(names)) < len(names):
        raise RecipeError(f"{path}: two stages have one name, and would share their checkpoints.", "Merge them.")


def _set(recipe: Any, key: str, value: Any) -> None:
    *path, last = key.split(".")
    node = recipe
    try:
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node[part]
        if isinstance(node, list):
            node[int(last)] = value
        else:
            # options left at their defaults: their classes know their names
            if last not in node and path != [recipe.get("method")] and path[-1:] not in (["loop"], ["tgpo"]):
                raise KeyError(last)
            node[last] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise RecipeError(
            f"The recipe has no key {key!r}.",
            "Overrides change keys that are there, and any option of the method, of a loop or of tgpo.",
        ) from error


def _own_files(recipe: dict[str, Any]) -> dict[str, str]:
    """A digest of the user's files that stages learn from, which may be written anew under their names."""
    named = [name for stage in recipe["stages"] for key in ("task", "data") for name in stage.get(key, ())]
    digest = hashlib.sha256()
    for name in (own := sorted({name for name in named if names_lines(name)})):
        content = Path(name).read_bytes()
        digest.update(f"{name} {len(content)} ".encode() + content)
    return {"files": digest.hexdigest()[:16]} if own else {}


def run_recipe(path: str | Path, overrides: Sequence[str] = (), say: Callable[[str], None] = print) -> Path:
    """Run a recipe; returns the folder of the saved method.

    Raises:
        RecipeError: the recipe is wrong; nothing has been trained.
    """
    recipe = load_recipe(path, overrides)
    trainer = TRAINERS[recipe["method"]]
    config = trainer.options.from_dict(recipe[recipe["method"]])
    data = [trainer.data(stage) for stage in recipe["stages"]]
    torch.manual_seed(recipe["seed"])
    state = PartialState(cpu=recipe["device"] == "cpu")  # of several processes each takes a device of its own
    backbone = trainer.open(recipe)
    method = trainer.make(backbone, config)
    provenance: dict[str, Any] = {"recipe": recipe}
    if recipe["start"] is not None:
        provenance["start"] = take_over(method, recipe["start"], say)
    # all of them before the first is trained: what does not fit the method is found now
    tasks = [trainer.task(method, *pair, recipe["seed"]) for pair in zip(recipe["stages"], data, strict=True)]
    output = Path(recipe["output"])
    main = state.is_main_process  # of several processes one writes
    if main:
        _claim(output, recipe | trainer.marks(data) | _own_files(recipe))
    target = output / "method"
    for number, stage in enumerate(recipe["stages"], 1):
        say(f"stage {number} of {len(data)}: {stage['name']}")
        tasks.pop(0).run(LoopConfig(seed=recipe["seed"], **stage["loop"]), output / stage["name"], say)
        kept = output / stage["name"] / "method"
        if main:  # to be tried, compared, averaged and gone on from
            method.save_pretrained(kept, dtype=torch.bfloat16, provenance=provenance | {"stages_done": number})
            say(f"saved {kept}")
    trainer.finish(method, data)
    if main:
        method.save_pretrained(target, dtype=torch.bfloat16, provenance=provenance | {"stages_done": len(data)})
        say(f"saved {target}")
    return target


def _nameless(text: str) -> Any:
    try:
        return json.loads(text) | {"output": None}
    except (ValueError, TypeError):  # damaged
        return None


def _claim(output: Path, recipe: dict[str, Any]) -> None:
    """Keep the recipe beside its checkpoints: a changed recipe, or other labels, must not continue an old run.

    How the folder is named (it may have been moved, or the user be elsewhere) changes nothing.
    """
    kept = output / "recipe.json"
    text = json.dumps(recipe, indent=2, sort_keys=True)
    if kept.exists() and _nameless(kept.read_text()) != _nameless(text):
        raise RecipeError(f"{output} holds a run of another recipe.", "Give another output=..., or delete the folder.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_whole(kept, text)
    except OSError as error:
        raise RecipeError(
            f"{output} cannot be written: {error}.", "Choose an output folder you may write to."
        ) from error
