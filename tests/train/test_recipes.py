"""The recipes that ship: none has a slip that only a run would find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from comets import write_records

from laconic.errors import DataError, RecipeError
from laconic.train.recipe import TRAINERS, load_recipe
from laconic.train.recipe import _claim as claim

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
    if "objective" in stage:
        slip = {("objectve" if k == "objective" else k): v for k, v in stage.items()}
        told(whole | {"stages": [slip]}, "has no use for")
    told(whole | {"stages": [stage | {"quetsions": 3}]}, f"{whole['method']} has no use for quetsions")
    told(whole | {"sede": 3}, "a recipe has no sede")


@pytest.mark.parametrize("name", ["poc/cpu", "classifier/cpu", "ram/answers", "comet/cpu", "vanilla/cpu"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("stages.0.name=3", "no plain word"), ("stages.0.name=../../x", "no plain word"),
        ("stages.0.name=[a]", "no plain word"),
        ("stages.0.name=²x", "no plain word"), ("output=null", "output"), ("seed=99999999999999999999", "seed"),
        ("seed=-1", "seed"), ("device=3", "device"), ("dtype=[fp32]", "dtype"), ("method=[a]", "No trainer"),
    ],
)  # fmt: skip
def test_a_value_that_would_only_fail_later_is_refused(name: str, change: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe(ROOT / "recipes" / f"{name}.yaml", [change])


def test_texts_of_an_excerpt_have_a_range(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="from and to"):
        load_recipe(ROOT / "recipes/classifier/cpu.yaml", ["stages.0.characters=[900, 300]"])


@pytest.mark.parametrize("name", ["ram/cpu", "classifier/cpu"])
def test_data_without_evidence_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"id": "1", "document": "A story.", "qas": [{"question": "What?", "answers": ["A story."]}]}
    write_records(tmp_path / "squality_train.jsonl.gz", record)
    monkeypatch.setenv("LACONIC_DATA", str(tmp_path))
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", ["stages.0.data={squality_train: null}"])
    with pytest.raises(DataError, match="No question of squality_train has its evidence marked"):
        TRAINERS[recipe["method"]].data(recipe["stages"][0])


def test_every_method_that_can_be_trained_has_one() -> None:
    assert {path.parent.name for path in RECIPES} == {*TRAINERS, "tgpo"}


def test_a_run_goes_on_under_another_name_of_its_folder_and_of_another_recipe_it_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    claim(folder, {"output": "run", "seed": 0, "stages": [{"rows": 4}]})
    claim(folder, {"output": str(folder), "seed": 0, "stages": [{"rows": 4}]})
    with pytest.raises(RecipeError, match="another recipe"):
        claim(folder, {"output": str(folder), "seed": 1, "stages": [{"rows": 4}]})
    (folder / "recipe.json").write_text("{")
    with pytest.raises(RecipeError, match="another recipe"):
        claim(folder, {"output": str(folder), "seed": 0, "stages": [{"rows": 4}]})
