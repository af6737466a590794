"""Sharded weights: gradients and what is saved are those of one process, with the pipeline over chunks and without."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from comets import comet, words
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from laconic.core.persist import read_description
from laconic.methods.comet.model import CoMeT
from laconic.train.comet import ReadingStage
from laconic.train.examples import Example
from laconic.train.pipeline import ChunkPipeline
from laconic.train.sharded import Shards
from laconic.train.targets import Targets

PLANS = [[12, 12, 5], [7, 12]]


def batch(share: int) -> list[Example]:
    """What the processes of one data share train on."""
    rows = [words(sum(plan) + 1, 10 * share + seed).tolist() for seed, plan in enumerate(PLANS)]
    return [Example(ids[:-1], ids[1:], plan) for ids, plan in zip(rows, PLANS, strict=True)]


def gradients(model: CoMeT) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            whole = parameter.grad
            found[name] = (whole.full_tensor() if isinstance(whole, DTensor) else whole).clone()
    return found


def made(train: str) -> CoMeT:
    """A Gemma, trained whole: its embedding and its head are one tensor, as those of small models are; else a Llama."""
    model = comet("gemma3" if train == "full" else "llama", train=train).train()
    tied = model.decoder.get_input_embeddings().weight is model.decoder.get_output_embeddings().weight
    assert tied == (train == "full")
    return model


def work(rank: int, port: int, pipeline: int, data: int, folder: str, train: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=pipeline * data)
    mesh = init_device_mesh("cpu", (pipeline, data), mesh_dim_names=("pipeline", "data"))
    model = made(train)
    shards = Shards(model, mesh["data"])
    assert any(isinstance(parameter, DTensor) for parameter in model.parameters())
    examples = batch(mesh["data"].get_local_rank())
    if pipeline > 1:
        shared, targets = ChunkPipeline(model, mesh["pipeline"].get_group()), Targets(examples)
        shared.loss(targets.rows, targets.plans, lambda number, out: targets.loss(model.logits, number, out)).backward()
        shared.all_reduce_gradients(model.parameters())
    else:
        ReadingStage(model)(examples)[0].backward()
    shards.average_gradients()
    torch.save(gradients(model), Path(folder) / f"{rank}.pt")
    with torch.no_grad():  # what is saved is what they are by now
        for parameter in model.own_parameters().values():
            parameter.add_(1)
    shards.save_pretrained(Path(folder) / "saved", provenance={"seed": 1})
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
@pytest.mark.parametrize(("pipeline", "data", "train"), [(1, 2, "lora"), (2, 2, "lora"), (1, 2, "full")])
def test_gradients_equal_one_process(tmp_path: Path, pipeline: int, data: int, train: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, pipeline, data, str(tmp_path), train), nprocs=pipeline * data)
    alone = made(train)
    for share in range(data):
        (ReadingStage(alone)(batch(share))[0] / data).backward()
    expected = gradients(alone)
    assert any("memories" in name for name in expected)
    trained = "lora" if train == "lora" else "embed_tokens"
    assert any(trained in name for name in expected)
    saved = CoMeT.from_pretrained(tmp_path / "saved", alone.backbone)
    kept = dict(saved.own_parameters())
    assert kept.keys() == alone.own_parameters().keys()
    assert all(torch.equal(kept[name], parameter + 1) for name, parameter in alone.own_parameters().items())
    assert read_description(tmp_path / "saved")["provenance"] == {"seed": 1}
    for rank in range(pipeline * data):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() >= expected.keys()
        for name, gradient in found.items():
            wanted = expected.get(name, torch.zeros_like(gradient))
            torch.testing.assert_close(
                gradient, wanted, atol=1e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
            )
