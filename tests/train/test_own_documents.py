"""Training readers on a user's own documents with questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from laconic.data.loaders import load_for_training
from laconic.errors import DataError, RecipeError
from laconic.train.recipe import TRAINERS, _own_files, load_recipe

ROOT = Path(__file__).resolve().parents[2]
LINE = {"document": "In 2018 she was 2. Ann, 2, is red.", "question": "How old is Ann?", "answers": ["2", "two"]}


def file_of(folder: Path, line: dict[str, Any] = LINE) -> str:
    path = folder / "mine.jsonl"
    path.write_text(json.dumps(line))
    return str(path)


def test_evidence_is_where_an_answer_stands(tmp_path: Path) -> None:
    (item,) = load_for_training(file_of(tmp_path))
    assert [LINE["document"][start - 4 : end] for start, end in item.evidence] == ["was 2", "nn, 2"]
    assert [one.answers for one in load_for_training(file_of(tmp_path), limit=1)] == [["2", "two"]]


@pytest.mark.parametrize("name", ["ram/cpu", "classifier/cpu", "comet/cpu", "sft/cpu"])
def test_recipes_of_readers_take_files(name: str, tmp_path: Path) -> None:
    path = file_of(tmp_path)
    key, value = ("data", {path: None}) if name.startswith(("ram", "classifier")) else ("task", [path])
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", [f"stages.0.{key}={json.dumps(value)}"])
    found = TRAINERS[recipe["method"]].data(recipe["stages"][0])
    items = found if isinstance(found, list) else found.documents[0]
    assert [item.question for item in items] == ["How old is Ann?"]
    before = _own_files({"stages": recipe["stages"][:1]})
    file_of(tmp_path, LINE | {"answers": ["red"]})
    assert _own_files({"stages": recipe["stages"][:1]}) != before, "another file of the same name"


def test_slips_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"or \.jsonl files"):
        load_recipe(ROOT / "recipes" / "sft/cpu.yaml", ["stages.0.task=[mine]"])
    with pytest.raises(DataError, match="There is no file"):
        load_for_training(str(tmp_path / "mine.jsonl"))
    path = file_of(tmp_path, LINE | {"answers": ["nobody says it"]})
    recipe = load_recipe(ROOT / "recipes" / "ram/cpu.yaml", [f"stages.0.data={json.dumps({path: None})}"])
    with pytest.raises(DataError, match="evidence"):
        TRAINERS["ram"].data(recipe["stages"][0])


def test_tasks_have_no_digest() -> None:
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        assert _own_files(yaml.safe_load(path.read_text())) == {}
