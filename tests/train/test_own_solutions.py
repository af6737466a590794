"""Training on a user's own problems with solutions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from thinkers import backbone_of, thinker

from laconic.data.solutions import load_problem_file
from laconic.data.training import load_written
from laconic.errors import DataError, RecipeError
from laconic.methods.hybridthinker.model import HybridThinker
from laconic.train import stages
from laconic.train.recipe import TRAINERS, run_recipe

SUM = {"question": "What is 2 and 2 and 1?", "steps": ["2 and 2 is 4.", "4 and 1 is 5."], "answer": 5}
RED = {"question": "What colour is blood?", "solution": "It is red.\n\nThe answer is red.", "answer": "red"}
STAGE: dict[str, Any] = {
    "name": "steps", "task": ["FILE"], "difficulty": [2], "segmenter": None, "limit": 100, "rows": 2, "pack": None,
    "soft_rate": 1.0,
    "loop": {"steps": 2, "learning_rate": 1.0e-2, "warmup_steps": 0, "checkpoint_every": 1, "log_every": 1},
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "load_backbone", lambda *_, **__: backbone_of("llama"))


def written(folder: Path, *records: dict[str, Any]) -> str:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


def recipe(folder: Path, **changes: Any) -> Path:
    made = {
        "method": "hybridthinker", "backbone": "tiny", "dtype": "fp32", "device": "cpu", "start": None, "seed": 3,
        "output": str(folder / "run"), "stages": [STAGE | {"task": [str(folder / "mine.jsonl")]} | changes],
        "hybridthinker": {"prompt": "{problem}\n", "max_step_tokens": 6, "lora_rank": 2, "memory_tokens": 2},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


def test_a_solution_is_cut_and_says_its_answer_at_its_end(tmp_path: Path) -> None:
    path = written(tmp_path, SUM, RED)
    asked, coloured = load_written(path)
    assert asked.steps == ["2 and 2 is 4.", "4 and 1 is 5.", "The answer is 5."]
    assert coloured.steps == ["It is red.", "The answer is red."], "which says it already"
    (_, whole) = load_written(path, str.split)
    assert whole.steps == ["It", "is", "red.", "The answer is red."], "which is one step, however others are cut"
    assert load_written(path, lambda text: [text])[0].steps == asked.steps, "given one by one, and not cut anew"


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"question": "Why?", "answer": "so"}, "no solution to learn from"),
        (SUM | {"solution": "5"}, "two ways"),
        (SUM | {"steps": ["2 and 2.", "The answer is 4."]}, "says '4', and its answer is '5'"),
        ({"question": "Why?", "answer": "so", "solution": 3}, "solution is missing, or no text"),
    ],
)
def test_what_cannot_be_learnt_from_is_named(record: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = written(tmp_path, SUM, record)
    with pytest.raises(DataError, match=told) as raised:
        load_written(path)
    assert "2" in raised.value.problem.removeprefix(path)


def test_a_recipe_trains_on_a_file_and_refuses_another_of_its_name(tmp_path: Path) -> None:
    written(tmp_path, SUM, RED)
    path = recipe(tmp_path)
    folder = run_recipe(path, say=lambda _: None)
    start, end = thinker("hybridthinker"), HybridThinker.from_pretrained(folder, backbone_of("llama"))
    assert any(not p.equal(start.own_parameters()[name]) for name, p in end.own_parameters().items())
    run_recipe(path, say=lambda _: None)  # which is done
    written(tmp_path, SUM, RED | {"question": "What colour is a rose?"})
    with pytest.raises(RecipeError, match="another recipe"):
        run_recipe(path, say=lambda _: None)


def test_files_are_looked_for_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        run_recipe(recipe(tmp_path))
    with pytest.raises(RecipeError, match="no task 'mine' to train on"):
        run_recipe(recipe(tmp_path, task=["mine"]))
    written(tmp_path, SUM | {"question": "a " * 200})
    with pytest.raises(RecipeError, match="problem 1"):
        run_recipe(recipe(tmp_path))


def test_a_solution_is_nothing_to_an_evaluation(tmp_path: Path) -> None:
    path = written(tmp_path, SUM | {"solution": "5"}, RED, RED | {"solution": None})
    assert [len(problem.steps) for problem in load_problem_file(path)] == [2, 0, 0]


def test_whoever_answers_itself_needs_no_solutions(tmp_path: Path) -> None:
    path = written(tmp_path, {"question": "Why?", "answer": "so"})
    trainer = TRAINERS["hybridthinker"]
    stage = {"task": [path], "objective": "tgpo", "given": 0}
    assert [problem.steps for problem in trainer.data(stage)[path]] == [[]]
    with pytest.raises(DataError, match="no solution to learn from"):
        trainer.data(stage | {"given": 1})
