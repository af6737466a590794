"""The recipes that ship: none has a slip that only a run would find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from laconic.errors import RecipeError
from laconic.train.recipe import TRAINERS, load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shipped_recipe_passes_its_own_checks(path: Path) -> None:
    recipe = load_recipe(path)
    # TGPO is no method but a way to train one
    assert path.parent.name in (recipe["method"], "tgpo")
    TRAINERS[recipe["method"]].options.from_dict(recipe[recipe["method"]])


@pytest.mark.parametrize(
    "name",
    [
        "ram/cpu",
        "ram/answers",
        "comet/cpu",
        "comet/answers",
        "sft/cpu",
        "classifier/cpu",
        "poc/cpu",
        "vanilla/cpu",
        "tgpo/cpu",
    ],
)
def test_a_key_that_is_missing_or_of_no_use_is_named(name: str, tmp_path: Path) -> None:
    whole = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text())
    stage, path = whole["stages"][0], tmp_path / "recipe.yaml"

    def told(recipe: dict[str, Any], message: str) -> None:
        path.write_text(yaml.safe_dump(recipe))
        with pytest.raises(RecipeError, match=message):
            load_recipe(path)

    # without its objective, a stage is one on written examples
    for key in stage.keys() - {"objective"}:
        told(whole | {"stages": [{k: v for k, v in stage.items() if k != key}]}, f"has no {key}")
    told(whole | {"stages": [stage | {"quetsions": 3}]}, f"{whole['method']} has no use for quetsions")
    told(whole | {"sede": 3}, "a recipe has no sede")


def test_every_method_that_can_be_trained_has_one() -> None:
    assert {path.parent.name for path in RECIPES} == {*TRAINERS, "tgpo"}
