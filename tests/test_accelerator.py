"""What an accelerator computes is what the CPU computes; ``-m gpu``. Without one these compare the CPU with itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from comets import SMALL, words
from thinkers import KINDS, PROBLEMS
from tiny import tiny_backbone

from laconic.backbone import Backbone
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.files import SavedMemory, Source, load_memory, save_memory
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.stream import ChunkStream

pytestmark = pytest.mark.gpu
DEVICES = ("cpu", "cuda" if torch.cuda.is_available() else "cpu")


def backbone_on(device: str) -> Backbone:
    torch.manual_seed(0)
    found = tiny_backbone()
    found.model.to(device)
    return found


def comet_on(device: str) -> CoMeT:
    made = CoMeT(backbone_on("cpu"), CoMeTConfig(**SMALL))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.memories.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return made.to(device).eval()


@pytest.mark.parametrize("compiled", [False, True])
@torch.no_grad()
def test_comet_reads_as_on_a_cpu(compiled: bool) -> None:
    found = []
    for device in DEVICES:
        made = comet_on(device)
        if compiled:
            made.compile()
        stream = ChunkStream(made, batch=2)
        logits = stream.feed([words(61), words(23, 1)])
        found.append([logits.cpu(), *(tensor.cpu() for state in stream.memory.layers for tensor in state)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_memory_file_is_read_on_another_device(tmp_path: Path) -> None:
    own, other = (comet_on(device) for device in reversed(DEVICES))
    stream = ChunkStream(own)
    wanted = stream.feed([words(40)]).cpu()
    save_memory(tmp_path / "a.memory", SavedMemory(stream, [Source("a", "b", 40, 40)]))
    loaded = load_memory(tmp_path / "a.memory", other).stream
    for a, b in zip(stream.memory.layers, loaded.memory.layers, strict=True):
        assert torch.equal(a.slots.cpu(), b.slots.cpu())
        assert torch.equal(a.queue.cpu(), b.queue.cpu())
    torch.testing.assert_close(other.logits(loaded.outputs).cpu(), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_thinkers_say_what_they_say_on_a_cpu(kind: str) -> None:
    made, own = KINDS[kind]
    said = []
    for device in DEVICES:
        model = made(backbone_on("cpu"), made.options(prompt="{problem}\n", max_step_tokens=6, lora_rank=2, **own))  # type: ignore[arg-type, call-arg]
        torch.manual_seed(1)
        for parameter in model.own_parameters().values():
            parameter.data.normal_(0, 0.3)
        solutions = model.to(device).eval().solve(PROBLEMS, max_new_tokens=24)
        said.append([(one.bill.words, one.bill.peak_tokens, one.bill.live) for one in solutions])
    assert said[0] == said[1]
