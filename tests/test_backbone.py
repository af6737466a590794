"""Backbones from folders, and the errors of those that cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_backbone, tiny_model

from laconic import backbone as module
from laconic.backbone import Backbone, cache_folder, load_backbone, resolve_dtype, text_ends
from laconic.errors import BackboneError
from laconic.generation.answer import Reader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny = tiny_backbone()
    tiny.model.save_pretrained(tmp_path / "tiny")
    tiny.tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_folder_loads_and_keeps_its_fingerprint_in_any_dtype(folder: Path) -> None:
    full, half = (load_backbone(folder, dtype=dtype, device="cpu") for dtype in ("fp32", "bf16"))
    assert full.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    assert full.content_hash == half.content_hash == tiny_backbone().content_hash


def test_the_head_is_handed_its_states_in_one_piece() -> None:
    """Cut from longer ones they lie apart, and a CPU's linear layer copies the weights for every row of them."""
    model, ids = tiny_model(), torch.randint(0, 64, (3, 7))
    states = model.base_model(ids).last_hidden_state
    with torch.no_grad():
        apart = model.get_output_embeddings()(states[:, -1:])  # before a backbone has looked at it
    given: list[tuple[int, ...]] = []
    for _ in range(2):  # twice the same model, and once the hook
        tiny = Backbone(model, tiny_backbone().tokenizer, "tiny")
    head = tiny.model.get_output_embeddings()
    assert len(head._forward_pre_hooks) == 1
    head.register_forward_hook(lambda module, args, out: given.append(args[0].stride()))
    for rows, keep in ((3, 1), (1, 1), (3, 4), (1, 7)):
        got = tiny.model(ids[:rows], logits_to_keep=keep).logits
        width = tiny.width
        assert given.pop() == (keep * width, width, 1)
        if keep == 1 and rows == 3:
            torch.testing.assert_close(got, apart)


def test_other_weights_have_another_fingerprint() -> None:
    one, other = tiny_backbone(), tiny_backbone()
    with torch.no_grad():
        next(other.model.parameters())[0, 0] += 1.0
    assert one.content_hash != other.content_hash


def test_damaged_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BackboneError, match=r"damaged|cannot be loaded"):
        load_backbone(folder)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"config\.json"):
        load_backbone(tmp_path)


def test_a_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BackboneError, match="neither a folder"):
        load_backbone("no-such-owner/no-such-model")


def test_a_gguf_that_is_missing_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BackboneError, match="There is no file"):
        load_backbone(tmp_path / "absent.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(BackboneError, match="cannot be read as a GGUF"):
        load_backbone(broken)
    assert list((tmp_path / "cache").iterdir()) == [], "nothing half-written"


def test_embedded_weights_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EMBEDDED_PACKAGE", "no_such_package")
    with pytest.raises(BackboneError, match="make setup"):
        load_backbone()


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta", "hpu"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(BackboneError, match=f"The device '{device}' is unknown or not on this machine"):
        load_backbone(device=device)


def test_a_text_may_have_no_end() -> None:
    model, tokenizer = tiny_backbone().model, tiny_backbone().tokenizer
    own = tokenizer.eos_token_id
    assert text_ends(model, tokenizer)[0] == own
    model.generation_config.eos_token_id = [own, own + 1]
    assert text_ends(model, tokenizer) == [own, own + 1]
    model.generation_config.eos_token_id = tokenizer.eos_token_id = None
    assert text_ends(model, tokenizer) == []
    assert Reader(Backbone(model, tokenizer, "endless")).stop_ids == frozenset()


def test_dtypes() -> None:
    assert resolve_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert resolve_dtype(torch.float32, torch.device("cpu")) == torch.float32
    with pytest.raises(BackboneError, match="dtype"):
        resolve_dtype("int3", torch.device("cpu"))


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_an_encoder_decoder_is_refused() -> None:
    model = tiny_model("llama")
    model.config.is_encoder_decoder = True
    with pytest.raises(BackboneError, match="decoder-only"):
        Backbone(model, tiny_backbone().tokenizer, "pretend")
