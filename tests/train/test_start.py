"""What a training goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from comets import comet

from laconic.errors import AdapterError, RecipeError
from laconic.methods.comet.model import CoMeT
from laconic.train.recipe import load_recipe, run_recipe
from laconic.train.start import saved_folder, take_over


def saved(folder: Path, seed: int, **options: Any) -> tuple[Path, CoMeT]:
    made = comet(**options)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in made.own_parameters().values():
            parameter.copy_(torch.randn_like(parameter))
    made.save_pretrained(folder, dtype=torch.bfloat16, provenance={"seed": seed})
    return folder, made


def test_of_several_methods_the_average_is_taken_in_float32(tmp_path: Path) -> None:
    (first, one), (second, other) = saved(tmp_path / "one", 1), saved(tmp_path / "two", 2)
    made, said = comet(), []
    description = take_over(made, [str(first), str(second)], said.append)
    assert description == {"1": {"seed": 1}, "2": {"seed": 2}}
    assert said == ["start: one and two"]
    for name, parameter in made.own_parameters().items():
        assert parameter.dtype == torch.float32
        halves = [way.own_parameters()[name].bfloat16().float() / 2 for way in (one, other)]
        assert torch.allclose(parameter, halves[0] + halves[1], atol=1e-7), name


def test_of_one_it_is_the_method_itself(tmp_path: Path) -> None:
    folder, one = saved(tmp_path / "one", 1)
    for start in (str(folder), [str(folder)]):
        made = comet()
        take_over(made, start, lambda line: None)
        for name, parameter in made.own_parameters().items():
            assert torch.equal(parameter, one.own_parameters()[name].bfloat16().float()), name


def test_slots_become_deeper_with_the_weights_they_had(tmp_path: Path) -> None:
    """How many states a slot holds is no matter of weights: a method that holds one goes on as one that holds more."""
    folder, one = saved(tmp_path / "one", 1)
    made, said = comet(global_depth=4), []
    take_over(made, str(folder), said.append)
    assert said == ["start: one"], "nothing starts fresh"
    assert made.empty_memory().layers[0].slots.shape[1] == 4 * one.empty_memory().layers[0].slots.shape[1]
    assert made.own_parameters().keys() == one.own_parameters().keys()


def test_methods_of_two_shapes_have_no_average(tmp_path: Path) -> None:
    first, _ = saved(tmp_path / "one", 1)
    second, _ = saved(tmp_path / "two", 2, adapter_rank=3)
    with pytest.raises(AdapterError, match="there is no average"):
        take_over(comet(), [str(first), str(second)], lambda line: None)
    with pytest.raises(RecipeError, match=r"No method is saved in .*absent"):
        take_over(comet(), [str(first), str(tmp_path / "absent")], lambda line: None)


def test_an_average_needs_no_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, one), (second, other) = saved(tmp_path / "one", 1), saved(tmp_path / "two", 2)
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: one.backbone)
    whole = {
        "method": "comet", "backbone": "tiny", "dtype": "float32", "device": "cpu", "output": str(tmp_path / "run"),
        "start": [str(first), str(second)], "seed": 0, "comet": one.config.to_dict(), "stages": [],
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(whole))
    made = CoMeT.from_pretrained(run_recipe(path, say=lambda line: None), one.backbone)
    name = "memories.0.gate.weight"
    halves = [way.own_parameters()[name].bfloat16().float() / 2 for way in (one, other)]
    assert torch.equal(made.own_parameters()[name], (halves[0] + halves[1]).bfloat16().float())
    for start in ("null", str(first)):
        with pytest.raises(RecipeError, match="has no stages"):
            load_recipe(path, [f"start={start}"])


@pytest.mark.parametrize("start", ["[]", "3", "[shipped, 3]", "{a: b}"])
def test_a_slip_is_found_before_training(start: str) -> None:
    with pytest.raises(RecipeError, match="start must be"):
        load_recipe("recipes/comet/cpu.yaml", [f"start={start}"])


def test_what_a_recipe_goes_on_from_has_to_be_made_first(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"No method is saved in .*told.*which the recipe names") as raised:
        saved_folder(comet().backbone, "comet", str(tmp_path / "told"))
    assert "Run the recipe that makes it first" in raised.value.remedy
