"""The recipe of PoC's predictor, from files of labels to a saved predictor with its promises."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import tiny_backbone

from laconic.backbone import Backbone
from laconic.errors import AdapterError, DataError, RecipeError
from laconic.methods.poc.labels import Made, read_labels, split_of
from laconic.methods.poc.predictor import CurvePredictor
from laconic.methods.poc.promises import TARGETS, outcomes_of, split
from laconic.methods.poc.steering import load_predictor
from laconic.methods.pruning.summary import SIZE
from laconic.train.poc import LabelledTexts
from laconic.train.recipe import run_recipe

BACKBONE = tiny_backbone()


def labels(path: Path, texts: int = 60, whole: float = 1.0, **changes: str) -> Path:
    """A file of labels: texts with the word passkey keep all at a fifth, others at four fifths."""
    made = Made(BACKBONE.content_hash, "reader", "compressor", "\nQ", {"squad": "f1 of 32 tokens"})
    items = []
    for number in range(texts):
        easy = number % 2 == 0
        items.append(
            {
                "id": str(number),
                "task": "squad",
                "document": f"doc {number}",
                "context": f"The {'passkey' if easy else 'weather'} is {number}. The ships passed.",
                "question": "What is it?",
                "whole": whole if number else 0.0,
                "scores": {str(r): float(r >= (0.2 if easy else 0.8)) for r in (0.1, 0.2, 0.5, 0.8)},
                "delivered": {str(r): r for r in (0.1, 0.2, 0.5, 0.8)},
            }
        )
    path.write_text(json.dumps({"made": asdict(made) | changes, "items": items}))
    return path


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: BACKBONE)
    loop = {"steps": 30, "learning_rate": 1e-2, "warmup_steps": 2, "checkpoint_every": 10, "log_every": 10}
    stage = {"name": "curves", "labels": [str(labels(tmp_path / "labels.json"))], "rows": 8, "loop": loop}
    return {
        "method": "poc", "backbone": "tiny", "dtype": "fp32", "device": "cpu", "start": None,
        "output": str(tmp_path / "run"), "seed": 0, "poc": {"lora_rank": 2, "chunk_tokens": 64}, "stages": [stage],
    }  # fmt: skip


def run(recipe: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return run_recipe(file, say=lambda _: None)


def test_from_labels_to_a_predictor_that_can_promise(recipe: dict[str, Any], tmp_path: Path) -> None:
    folder = run(recipe, tmp_path)
    predictor, promises = load_predictor(BACKBONE, folder)
    held = [number for number in range(1, 60) if split_of(f"doc {number}") == "calibration"]
    assert len(promises.outcomes) == len(held) > 3
    assert all(len(one) == len(TARGETS) and one[-1] == 1 for one in promises.outcomes)
    assert promises.made.compressor == "compressor"
    assert promises.ratios == [0.1, 0.2, 0.5, 0.8]
    assert len(set(promises.documents)) == len(held)
    assert not any("doc" in document for document in promises.documents), "digests: texts are their owners' business"
    trained = [number for number in range(1, 60) if split_of(f"doc {number}") == "train"]
    knot = next(knot for knot in promises.average.knots if knot.ratio == 0.2)
    assert knot.count == len(trained)
    assert knot.retention == pytest.approx(sum(number % 2 == 0 for number in trained) / len(trained))
    easy = predictor.curve("The passkey is 7. The ships passed.", "What is it?")
    hard = predictor.curve("The weather is 7. The ships passed.", "What is it?")
    assert easy([0.5])[0] > hard([0.5])[0] + 0.3


def test_labels_that_do_not_fit_are_refused_before_anything_is_trained(recipe: dict[str, Any], tmp_path: Path) -> None:
    other = labels(tmp_path / "other.json", backbone="another")
    recipe["stages"][0]["labels"] = [str(other)]
    with pytest.raises(
        AdapterError, match=f"labels was made with the backbone 'another', not '{BACKBONE.content_hash}'"
    ):
        run(recipe, tmp_path)
    damaged = tmp_path / "damaged.json"
    damaged.write_text(json.dumps(json.loads(other.read_text()) | {"items": 5}))
    recipe["stages"][0]["labels"] = [str(damaged)]
    with pytest.raises(DataError, match="no file of labels"):
        run(recipe, tmp_path)
    recipe["stages"][0]["labels"] = [str(labels(tmp_path / "few.json", texts=2))]
    with pytest.raises(DataError, match="Too few"):
        run(recipe, tmp_path)
    recipe["stages"][0]["labels"] = [str(tmp_path / "none.json")]
    with pytest.raises(DataError, match="no file"):
        run(recipe, tmp_path)
    apart = json.loads(labels(tmp_path / "apart.json").read_text())
    for number, item in enumerate(apart["items"]):  # as ratios that are drawn for each text are
        item["scores"] = {str(round(0.1 + 0.01 * number, 3)): 1.0}
        item["delivered"] = dict.fromkeys(item["scores"], 0.1)
    (tmp_path / "apart.json").write_text(json.dumps(apart))
    recipe["stages"][0]["labels"] = [str(tmp_path / "apart.json")]
    with pytest.raises(DataError, match="no ratio in common"):
        run(recipe, tmp_path)
    recipe["stages"][0]["labels"] = [str(labels(tmp_path / "silent.json"))]
    recipe["poc"]["features"] = True
    with pytest.raises(DataError, match="do not say"):
        run(recipe, tmp_path)
    recipe["stages"][0]["labels"] = []
    with pytest.raises(RecipeError, match="list of files"):
        run(recipe, tmp_path)
    assert not (tmp_path / "run").exists()


def test_other_labels_under_the_same_name_do_not_continue_a_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    run(recipe, tmp_path)
    run(recipe, tmp_path)
    labels(tmp_path / "labels.json", compressor="another")
    with pytest.raises(RecipeError, match="another recipe"):
        run(recipe, tmp_path)


def test_every_text_comes_once_before_any_comes_again() -> None:
    texts: list[Any] = [f"text {number}" for number in range(10)]
    made = LabelledTexts(texts, 4, "0/curves")
    seen = [text for step in range(5) for text in made(step)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == sorted(texts)
    assert seen[:10] != seen[10:]
    assert made(3) == LabelledTexts(texts, 4, "0/curves")(3)


def test_what_is_promised_is_of_the_predictor_as_it_is_loaded(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Rounded as it is saved, and merged: a curve that is flat turns on a rounding."""
    folder = run(recipe, tmp_path)
    predictor, promises = load_predictor(BACKBONE, folder)
    _, texts = read_labels([tmp_path / "labels.json"])
    held = split(texts, "calibration")
    found = [outcomes_of(predictor.curve(one.context, one.question), one.labels, promises.ratios) for one in held]
    assert found == promises.outcomes
    assert not any("lora_" in name for name, _ in predictor.reader.named_parameters())


def test_promises_are_found_out_with_the_very_weights_that_are_loaded(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 too, where merging rounds: a curve that differs by a thousandth chooses another ratio."""
    backbone = Backbone(copy.deepcopy(BACKBONE.model).bfloat16(), BACKBONE.tokenizer, BACKBONE.name)
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: backbone)
    labels(tmp_path / "labels.json", backbone=backbone.content_hash)
    asked: list[CurvePredictor] = []
    curve = CurvePredictor.curve
    monkeypatch.setattr(CurvePredictor, "curve", lambda self, *args: (asked.append(self), curve(self, *args))[1])
    loaded, _ = load_predictor(backbone, run(recipe, tmp_path))
    assert len(set(asked)) == 1  # while promises were found out
    before, after = asked[0].state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_predictor_learns_from_what_the_compressor_found(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Texts and questions that are all alike: only their features say which can be cut."""
    content = json.loads(labels(tmp_path / "labels.json").read_text())
    for number, item in enumerate(content["items"]):
        item |= {"context": "The ships passed.", "features": [1.0 if number % 2 == 0 else -1.0] * SIZE}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    recipe["poc"]["features"] = True
    recipe["stages"][0]["loop"]["learning_rate"] = 1e-4  # too little for all else
    predictor, _ = load_predictor(BACKBONE, run(recipe, tmp_path))
    easy, hard = (predictor.curve("The ships passed.", "What is it?", [told] * SIZE)([0.5])[0] for told in (1.0, -1.0))
    assert easy > hard + 0.1
