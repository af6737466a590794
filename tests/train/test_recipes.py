"""The recipes that ship: none has a slip that only a run would find."""

from __future__ import annotations

from pathlib import Path

import pytest

from laconic.train.recipe import TRAINERS, load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shipped_recipe_passes_its_own_checks(path: Path) -> None:
    recipe = load_recipe(path)
    # TGPO is no method but a way to train one
    assert path.parent.name in (recipe["method"], "tgpo")
    TRAINERS[recipe["method"]].options.from_dict(recipe[recipe["method"]])


def test_every_method_that_can_be_trained_has_one() -> None:
    assert {path.parent.name for path in RECIPES} == {*TRAINERS, "tgpo"}
