"""Training readers on a user's own documents with questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from laconic.data.training import load_for_training, load_written, problems_for_training
from laconic.errors import DataError, RecipeError
from laconic.train.recipe import TRAINERS, _own_files, load_recipe

ROOT = Path(__file__).resolve().parents[2]
LINE = {"document": "In 2018 she was 2. Ann, 2, is red.", "question": "How old is Ann?", "answers": ["2", "two"]}


def file_of(folder: Path, line: dict[str, Any] = LINE) -> str:
    path = folder / "mine.jsonl"
    path.write_text(json.dumps(line))
    return str(path)


def test_evidence_is_where_an_answer_first_stands(tmp_path: Path) -> None:
    """One place: of several, none could be left out of what is read."""
    (item,) = load_for_training(file_of(tmp_path))
    assert [LINE["document"][start - 4 : end] for start, end in item.evidence] == ["was 2"]
    (item,) = load_for_training(file_of(tmp_path, LINE | {"answers": ["three", "red"]}))
    assert [LINE["document"][start:end] for start, end in item.evidence] == ["red"]
    (item,) = load_for_training(file_of(tmp_path, LINE | {"answers": ["red", "2"]}))
    assert [LINE["document"][start:end] for start, end in item.evidence] == ["red"], "of all answers, too"
    file_of(tmp_path)
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
    Path(path).write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE | {'answers': ['nobody says it']})}")
    assert len(TRAINERS["ram"].data(recipe["stages"][0])) == 1, "there is nothing to learn from the other"
    with pytest.raises(RecipeError, match="data must map"):
        load_recipe(ROOT / "recipes" / "ram/cpu.yaml", ["stages.0.data={2018: null}"])


@pytest.mark.parametrize("name", ["squad_articles_dev", "nq_multidoc_20_gold_spread", "gsm8k_test", "squality_dev"])
def test_what_is_kept_for_evaluation_is_refused_under_any_path(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.jsonl.gz"
    with pytest.raises(DataError, match="must not be trained on"):
        load_for_training(str(path))
    for load in (load_written, problems_for_training):
        with pytest.raises(DataError, match="must not be trained on"):
            load(str(path))
    with pytest.raises(DataError, match="There is no file"):  # which may be
        load_for_training(str(tmp_path / "gsm8k_train.jsonl"))


def test_lines_that_move_from_file_to_file_are_other_files(tmp_path: Path) -> None:
    one, two = (str(tmp_path / f"{name}.jsonl") for name in "ab")
    recipe = {"stages": [{"task": [one, two]}]}
    Path(one).write_text("x\ny\n"), Path(two).write_text("z\n")
    before = _own_files(recipe)
    Path(one).write_text("x\n"), Path(two).write_text("y\nz\n")
    assert _own_files(recipe) != before


def test_tasks_have_no_digest() -> None:
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        assert _own_files(yaml.safe_load(path.read_text())) == {}
