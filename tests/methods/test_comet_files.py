"""Memory files: what goes in comes out, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from comets import comet, words
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_backbone
from tokenizers import normalizers

from laconic.errors import MemoryFileError
from laconic.methods.comet import files
from laconic.methods.comet.files import SavedMemory, Source, load_memory, save_memory, text_digest
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.stream import ChunkStream


def sources(length: int = 31) -> list[Source]:
    return [Source("book.txt", text_digest("book"), length, length)]


def saved(made: CoMeT, path: Path, length: int = 31) -> ChunkStream:
    stream = ChunkStream(made)
    stream.feed([words(length)])
    save_memory(path, SavedMemory(stream, sources(length)))
    return stream


@pytest.mark.parametrize(("length", "depth"), [(31, 1), (31, 3), (24, 1), (5, 1), (12, 1)])
@torch.no_grad()
def test_what_was_read_goes_on_as_if_never_saved(tmp_path: Path, length: int, depth: int) -> None:
    made = comet(global_depth=depth)
    stream = saved(made, tmp_path / "a.memory", length)
    again = load_memory(tmp_path / "a.memory", made)
    assert again.sources == sources(length)
    assert again.stream.open == stream.open
    assert again.stream.held == stream.held
    more = words(40, seed=5)
    torch.testing.assert_close(again.stream.feed([more]), stream.feed([more]), atol=1e-4, rtol=1e-4)
    assert int(again.stream.memory.counts.tokens) == int(stream.memory.counts.tokens)
    assert [path.name for path in tmp_path.iterdir()] == ["a.memory"], "nothing half-written is left"


@torch.no_grad()
def test_a_memory_is_read_in_another_dtype(tmp_path: Path) -> None:
    made = comet()
    stream = saved(made, tmp_path / "a.memory")
    made.decoder.to(torch.bfloat16)
    again = load_memory(tmp_path / "a.memory", made).stream
    assert again.memory.layers[0].queue.dtype == torch.bfloat16
    assert again.memory.layers[0].slots.dtype == torch.float32
    made.decoder.to(torch.float32)
    for a, b in zip(again.memory.layers, stream.memory.layers, strict=True):
        torch.testing.assert_close(a.queue.float(), b.queue, atol=0.05, rtol=0.02)
        assert torch.equal(a.slots, b.slots)


def test_what_is_refused(tmp_path: Path) -> None:
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    whole = path.read_bytes()
    with pytest.raises(MemoryFileError, match="no memory file"):
        load_memory(tmp_path / "none.memory", made)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MemoryFileError, match="damaged"):
        load_memory(path, made)
    path.write_bytes(b"Call me Ishmael.")
    with pytest.raises(MemoryFileError, match="damaged"):
        load_memory(path, made)
    path.write_bytes(whole[:-4] + bytes(byte ^ 1 for byte in whole[-4:]))
    with pytest.raises(MemoryFileError, match="digest"):
        load_memory(path, made)
    save_file(load_file_of(whole, tmp_path), path)  # as others write them, without our header
    with pytest.raises(MemoryFileError, match="damaged"):
        load_memory(path, made)
    path.write_bytes(whole)
    with pytest.raises(MemoryFileError, match="was read by"):
        load_memory(path, comet("qwen2"))
    with pytest.raises(MemoryFileError, match="other settings"):
        load_memory(path, comet(fifo_slots=9))
    made._loaded_as("fedcba")
    with pytest.raises(MemoryFileError, match="another adapter"):
        load_memory(path, made)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("chunks", 0), ("chunks", 1000), ("chunks", "2"), ("tokens", 7), ("sources", []),
        ("sources", [{"name": "another"}]),
        ("config", {}), ("more", 1), ("chunks", True), ("tokens", 10**30), ("backbone", [1]),
        ("backbone", {"name": "x"}),
        ("backbone", {"name": "x", "content_hash": "y", "settings": [], "tokenizer": "z"}),
    ],
)  # fmt: skip
def test_a_changed_description_is_refused(tmp_path: Path, key: str, value: object) -> None:
    """Its digest covers it, and one that was made to fit must still make sense."""
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[files.HEADER])
    changed = header | {key: value}
    save_file(tensors, path, metadata={files.HEADER: json.dumps(changed)})
    with pytest.raises(MemoryFileError, match="digest"):
        load_memory(path, made)
    del changed["digest"]
    changed["digest"] = files._digest(changed, tensors)
    save_file(tensors, path, metadata={files.HEADER: json.dumps(changed)})
    with pytest.raises(MemoryFileError):
        load_memory(path, made)


def test_a_file_of_an_older_version_says_so(tmp_path: Path) -> None:
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[files.HEADER])
    older, other = "an older version", "another version"
    for number, message in ((1, older), (files.FORMAT - 1, older), (files.FORMAT + 1, other), (-3, other)):
        save_file(load_file(path), path, metadata={files.HEADER: json.dumps(header | {"format": number})})
        with pytest.raises(MemoryFileError, match=message):
            load_memory(path, made)


def test_numbers_that_the_dtype_does_not_hold_are_refused(tmp_path: Path) -> None:
    made, path = comet(), tmp_path / "a.memory"
    stream = saved(made, path)
    stream.memory.layers[0].queue.fill_(1e6)
    save_memory(path, SavedMemory(stream, sources()))
    made.decoder.to(torch.float16)
    with pytest.raises(MemoryFileError, match="float16"):
        load_memory(path, made)


@torch.no_grad()
def test_a_loaded_memory_does_not_live_in_its_file(tmp_path: Path) -> None:
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    again = load_memory(path, made).stream.memory.layers[0]
    before = again.slots.clone()
    with path.open("r+b") as file:  # as a neighbour may, who does not write whole files
        file.seek(0, 2)
        size = file.tell()
        file.seek(size // 2)
        file.write(b"\xff" * (size - size // 2))
    assert torch.equal(again.slots, before)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("tail", torch.tensor([100_000, 3], dtype=torch.int32)),
        ("tail", torch.tensor([-5, 3], dtype=torch.int32)),
        ("tail", torch.tensor([5.7, 3.2])),
        ("tail", torch.tensor(5, dtype=torch.int32)),
        ("tail", torch.ones(13, dtype=torch.int32)),
        ("slots", torch.ones(3, 3, 32, dtype=torch.bool)),
        ("slots", torch.ones(3, 3, 31)),
        ("slots", torch.ones(3, 3, 32).to(torch.float8_e4m3fn)),
        ("queue", torch.ones(3, 6, 32)),
    ],
)
def test_states_that_cannot_be_are_refused(tmp_path: Path, name: str, tensor: torch.Tensor) -> None:
    """Also where the digest was made to fit."""
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    tensors = load_file(path) | {name: tensor}
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[files.HEADER])
    del header["digest"]
    save_file(tensors, path, metadata={files.HEADER: json.dumps(header | {"digest": files._digest(header, tensors)})})
    with pytest.raises(MemoryFileError):
        load_memory(path, made)


def test_a_file_with_states_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    tensors = load_file(path)
    tensors["slots"][0, 0, 0] = torch.nan
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[files.HEADER])
    del header["digest"]
    save_file(tensors, path, metadata={files.HEADER: json.dumps(header | {"digest": files._digest(header, tensors)})})
    with pytest.raises(MemoryFileError, match="not finite"):
        load_memory(path, made)


def test_what_is_saved_in_bfloat16_learns_in_float32(tmp_path: Path) -> None:
    """A gate near 1 would lose its small updates."""
    comet(train="lora").save_pretrained(tmp_path / "adapter", dtype=torch.bfloat16)
    made = CoMeT.from_pretrained(tmp_path / "adapter", comet().backbone)
    for name, parameter in made.own_parameters().items():
        if "lora" not in name:
            assert parameter.dtype == torch.float32, name


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    save_file(load_file(path), path, metadata={files.HEADER: "[" * 200_000})
    with pytest.raises(MemoryFileError, match="damaged"):
        load_memory(path, made)


def test_weights_turned_by_other_angles_are_another_backbone(tmp_path: Path) -> None:
    """As where a model is loaded with YaRN: the same weights, and so the same content hash."""
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    turned = CoMeT(tiny_backbone(rope_parameters={"rope_type": "default", "rope_theta": 500.0}), made.config)
    turned.load_state_dict(made.state_dict())
    assert turned.backbone.content_hash == made.backbone.content_hash
    with pytest.raises(MemoryFileError, match="500"):
        load_memory(path, turned)


def test_a_setting_that_differs_is_named(tmp_path: Path) -> None:
    made, path = comet("gemma3"), tmp_path / "a.memory"
    saved(made, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.backbone.model.config, "query_pre_attn_scalar", 77)
        with pytest.raises(MemoryFileError, match=r"other settings \(query_pre_attn_scalar: \d+, not 77\)"):
            load_memory(path, made)
    load_memory(path, made)


def test_a_memory_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    """Its words would be other words to this one, whose weights are the same."""
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    other = comet()
    other.backbone.tokenizer.add_tokens(["Ishmael"])
    with pytest.raises(MemoryFileError, match="another tokenizer"):
        load_memory(path, other)
    spaced = comet()
    spaced.backbone.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(MemoryFileError, match="another tokenizer"):
        load_memory(path, spaced)


def test_what_says_nothing_of_its_sources_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(MemoryFileError, match="what this memory has read"):
        save_memory(tmp_path / "a.memory", SavedMemory(ChunkStream(comet()), []))


def test_an_adapter_that_was_trained_on_is_another(tmp_path: Path) -> None:
    comet().save_pretrained(tmp_path / "adapter")
    made = CoMeT.from_pretrained(tmp_path / "adapter", comet().backbone).eval()
    version, path = made.version, tmp_path / "a.memory"
    assert version
    saved(made, path)
    assert made.to(torch.float64).to(torch.float32).version == version
    optimizer = torch.optim.AdamW(made.memories.parameters(), lr=1e-2, fused=True)
    sum(p.sum() for p in made.memories.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    assert made.version == "", "however the optimiser writes"
    with pytest.raises(MemoryFileError, match="another adapter"):
        load_memory(path, made)


def test_merging_changes_no_version(tmp_path: Path) -> None:
    comet(train="lora").save_pretrained(tmp_path / "adapter")
    made = CoMeT.from_pretrained(tmp_path / "adapter", comet().backbone)
    version = made.version
    assert version
    assert made.merge().version == version
    with torch.inference_mode():
        assert CoMeT.from_pretrained(tmp_path / "adapter", comet().backbone).version == version


def test_adapters_that_were_never_saved_are_told_apart(tmp_path: Path) -> None:
    made, path = comet(), tmp_path / "a.memory"
    saved(made, path)
    load_memory(path, comet())
    other = comet()
    with torch.no_grad():
        other.readouts.weight.add_(1)
    with pytest.raises(MemoryFileError, match="another adapter"):
        load_memory(path, other)


def load_file_of(payload: bytes, folder: Path) -> dict[str, torch.Tensor]:
    copy = folder / "copy"
    copy.write_bytes(payload)
    return load_file(copy)


@torch.no_grad()
def test_states_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    made, path = comet(), tmp_path / "a.memory"
    stream = saved(made, path)
    before = path.read_bytes()
    stream.memory.layers[1].slots[0, 0, 0] = float("nan")
    with pytest.raises(MemoryFileError, match="not finite"):
        save_memory(path, SavedMemory(stream, sources()))
    assert path.read_bytes() == before, "the older file is left as it was"
    stream.memory.layers[1].slots[0, 0, 0] = 0.0
    for impossible in (path / "below", tmp_path / ("a" * 300), tmp_path / "a\0b"):
        with pytest.raises(MemoryFileError, match="cannot be written"):
            save_memory(impossible, SavedMemory(stream, sources()))
    save_memory(tmp_path / ("a" * 248 + ".memory"), SavedMemory(stream, sources()))


@pytest.mark.parametrize(
    ("read", "of"), [([30], [31]), ([31, 1], [31, 1]), ([32], [31]), ([31], [30]), ([7], [7]), ([-1, 32], [9, 32])]
)
def test_sources_that_do_not_add_up_are_not_saved(tmp_path: Path, read: list[int], of: list[int]) -> None:
    """What is written can be loaded."""
    made, path = comet(), tmp_path / "a.memory"
    stream = ChunkStream(made)
    stream.feed([words(31)])
    told = [Source("a", "d", whole, part) for part, whole in zip(read, of, strict=True)]
    with pytest.raises(MemoryFileError, match="do not add up"):
        save_memory(path, SavedMemory(stream, told))
    assert not path.exists()
    save_memory(path, SavedMemory(stream, [Source("a", "d", 20, 20), Source("b", "e", 90, 11)]))
    assert [source.complete for source in load_memory(path, made).sources] == [True, False]


def test_a_saved_comet_is_the_same_again(tmp_path: Path) -> None:
    made = comet(train="lora")
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    made.save_pretrained(tmp_path / "adapter")
    again = CoMeT.from_pretrained(tmp_path / "adapter", made.backbone).eval()
    assert again.version
    assert made.version == ""
    stream, other = ChunkStream(made), ChunkStream(again)
    ids = words(30)
    expected = stream.feed([ids])
    torch.testing.assert_close(other.feed([ids]), expected, atol=1e-5, rtol=1e-5)
    merged = ChunkStream(CoMeT.from_pretrained(tmp_path / "adapter", made.backbone).merge())
    torch.testing.assert_close(merged.feed([ids]), expected, atol=1e-4, rtol=1e-4)
    half = CoMeT.from_pretrained(tmp_path / "adapter", made.backbone)
    made.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    half = CoMeT.from_pretrained(tmp_path / "half", made.backbone)
    assert {p.dtype for p in half.memories.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_memory_of_another_dtype_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    made = CoMeT(tiny_backbone(dtype=dtype), comet().config)
    stream = ChunkStream(made)
    stream.feed([words(31)])
    save_memory(tmp_path / "a.memory", SavedMemory(stream, sources()))
    loaded = load_memory(tmp_path / "a.memory", made).stream
    for a, b in zip(stream.memory.layers, loaded.memory.layers, strict=True):
        assert torch.equal(a.slots, b.slots)
        assert torch.equal(a.queue, b.queue)


def test_a_file_holds_one_text(tmp_path: Path) -> None:
    stream = ChunkStream(comet(), batch=2)
    stream.feed([words(31), words(31, 1)])
    with pytest.raises(MemoryFileError, match="holds one text"):
        save_memory(tmp_path / "a.memory", SavedMemory(stream, sources()))
