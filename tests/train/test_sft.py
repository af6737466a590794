"""Fine-tuning without a memory: the loss, what it may read, and the reader that comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from comets import BOOK, ROTARY, comet, words
from peft.tuners.lora import LoraLayer
from tiny import tiny_backbone
from torch import nn

from laconic.core.layout import IGNORE
from laconic.errors import AdapterError, LaconicError, RecipeError
from laconic.methods.registry import load_methods, reader_name
from laconic.methods.sft.model import SFT, SFTConfig
from laconic.train.comet_recipe import CoMeTTrainer
from laconic.train.examples import Example
from laconic.train.recipe import load_recipe, run_recipe
from laconic.train.sft import SFTStage
from laconic.train.sft_recipe import SFTTrainer

pytestmark = pytest.mark.usefixtures("books")


def rows() -> list[Example]:
    """Of different lengths, some tokens labelled; their plans must not matter."""
    made = []
    for seed, length in enumerate((31, 17, 24)):
        ids = words(length + 1, seed).tolist()
        labels = [label if n % 3 == seed else IGNORE for n, label in enumerate(ids[1:])]
        made.append(Example(ids[:-1], labels, [12] * (length // 12) + [length % 12] * (length % 12 > 0)))
    return made


@pytest.mark.parametrize("arch", [*ROTARY, "gpt2"])
def test_the_loss_is_the_plain_decoders(arch: str) -> None:
    """LoRA starts as nothing: the mean over all labels of the backbone's own loss, row by row."""
    backbone = tiny_backbone(arch)
    loss, numbers = SFTStage(SFT(backbone, SFTConfig(lora_rank=2)))(rows())
    total, count, right = 0.0, 0, 0
    for row in rows():
        logits = backbone.model(torch.tensor([row.ids])).logits[0]
        labels = torch.tensor(row.labels)
        total += nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE).item()
        count += int((labels != IGNORE).sum())
        right += int(((logits.argmax(-1) == labels) & (labels != IGNORE)).sum())
    assert loss.item() == pytest.approx(total / count, rel=1e-5)
    assert numbers["token_accuracy"] == pytest.approx(right / count)


def test_a_window_hides_what_is_neither_first_nor_recent() -> None:
    """With one layer, a label feels a token exactly when the window holds it."""
    backbone = tiny_backbone(num_hidden_layers=1)
    stage = SFTStage(SFT(backbone, SFTConfig(lora_rank=2)), recent=6)
    ids = words(21).tolist()

    def loss(changed: int | None = None) -> float:
        seen = [token + 1 if place == changed else token for place, token in enumerate(ids[:-1])]
        labels = [IGNORE] * 19 + ids[-1:]
        return stage([Example(seen, labels, [20])])[0].item()

    felt = [place for place in range(20) if loss(place) != loss()]
    assert felt == [0, 1, 2, 3, *range(14, 20)]


def test_what_was_saved_keeps_its_strength() -> None:
    """A saved LoRA means nothing without its scale: alpha is twice the rank."""
    sft = SFT(tiny_backbone(), SFTConfig(lora_rank=2))
    layers = [module for module in sft.decoder.modules() if isinstance(module, LoraLayer)]
    assert layers
    assert all(set(layer.scaling.values()) == {2.0} for layer in layers)


def test_lora_alone_is_trained() -> None:
    backbone = tiny_backbone()
    sft = SFT(backbone, SFTConfig(lora_rank=2))
    before = {name: parameter.clone() for name, parameter in backbone.model.named_parameters()}
    task = SFTTrainer().task(sft, stage(), SFTTrainer().data(stage()), 0)
    optimizer = torch.optim.SGD(task.parameter_groups(1.0))
    loss, _ = task.module(task.batch(0, 0, 1))
    loss.backward()
    optimizer.step()
    assert all(torch.equal(before[name], parameter) for name, parameter in backbone.model.named_parameters())
    assert any(parameter.grad is not None for parameter in sft.own_parameters().values())
    assert all("lora_" in name for name in sft.own_parameters())


def stage(**changes: Any) -> dict[str, Any]:
    return {
        "name": "two", "task": ["number"], "books": "books_train", "chunk_tokens": 48, "chunks": [1, 2],
        "plans": ["fixed"], "questions": 2, "distractors": 1, "rows": 2, "window": None,
        "loop": {"steps": 2, "learning_rate": 1.0e-2, "checkpoint_every": 1},
    } | changes  # fmt: skip


def recipe(folder: Path, **changes: Any) -> Path:
    whole = {
        "method": "sft", "backbone": "tiny", "dtype": "float32", "device": "cpu", "start": None,
        "output": str(folder / "run"), "seed": 0, "sft": {"lora_rank": 2}, "stages": [stage(**changes)],
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(whole))
    return path


def test_it_is_trained_on_what_comet_is() -> None:
    """One name, one shape, one seed: the same examples."""
    backbone = tiny_backbone()
    comets = stage(
        fifo_slots=None,
        memory_rate=1.0,
        truncate=None,
        save_activations=True,
        share_text=False,
        asides=False,
        interludes=[0],
        gates=None,
    )
    one = SFTTrainer().task(SFT(backbone, SFTConfig(lora_rank=2)), stage(), SFTTrainer().data(stage()), 3)
    trainer = CoMeTTrainer()
    other = trainer.task(comet(chunk_tokens=48), comets, trainer.data(comets), 3)
    assert [one.batch(step, 0, 1) for step in range(4)] == [other.batch(step, 0, 1) for step in range(4)]


def test_a_recipe_makes_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    monkeypatch.setattr("laconic.train.stages.load_backbone", lambda *args, **kwargs: backbone)
    folder = run_recipe(recipe(tmp_path), say=lambda line: None)
    loaded = load_methods(["full", "window"], backbone, folder)
    assert loaded["full"].reader is loaded["window"].reader
    ids = words(9)[None]
    tuned = loaded["full"].reader.decoder(ids).logits
    assert not torch.allclose(tuned, backbone.model(ids).logits)
    assert torch.allclose(tuned, SFT.from_pretrained(folder, backbone).decoder(ids).logits, atol=1e-3)
    context = loaded["window"].compressor.compress(BOOK[:400], budget=20)
    assert loaded["window"].reader.answer(context, "Who wrote?", 4).generated_tokens
    assert reader_name(backbone, folder) not in ("untuned", reader_name(backbone))
    for names in (["ram", "full"], ["comet"]):
        with pytest.raises(AdapterError, match="holds sft, not"):
            load_methods(names, backbone, folder)


def test_slips_are_found_before_training(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="window must be"):
        load_recipe(recipe(tmp_path, window=0))
    with pytest.raises(RecipeError, match="task must be a list"):
        load_recipe(recipe(tmp_path, task=["squad"]))
    with pytest.raises(LaconicError, match="at least 1"):
        SFTConfig(lora_rank=0)
