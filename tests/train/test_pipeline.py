"""Chunks over processes: loss and gradients are those of one process (invariants 5 and 15)."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from comets import comet, outputs, words
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from laconic.data.needles import NEEDLES
from laconic.methods.comet.config import compressed
from laconic.methods.comet.memory import Counts
from laconic.methods.comet.model import CoMeT, by_chunk
from laconic.train.comet_recipe import CoMeTTrainer
from laconic.train.loop import LoopConfig, run
from laconic.train.pipeline import ChunkPipeline
from laconic.train.reading_data import ReadingData

#: chunk plans of two rows
PLANS = {
    "even": [[12] * 4, [12] * 4],
    "mixed": [[12, 5, 12, 3, 9, 12, 1, 8], [7, 12, 12, 4]],
    "few": [[12, 6], [9]],
}


def batch(plans: list[list[int]]) -> tuple[list[Tensor], list[Tensor]]:
    ids = [words(sum(plan) + 1, seed) for seed, plan in enumerate(plans)]
    return [row[:-1] for row in ids], [row[1:] for row in ids]


def chunk_labels(labels: list[Tensor], plans: list[list[int]], number: int) -> Tensor:
    parts = [row.split(plan) for row, plan in zip(labels, plans, strict=True)]
    return torch.cat([part[number] for part in parts if number < len(part)])


def made(train: str = "lora") -> CoMeT:
    model = comet(train=train, global_depth=2).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def alone(plans: list[list[int]]) -> tuple[float, dict[str, Tensor]]:
    model = made()
    rows, labels = batch(plans)
    count, total = sum(map(len, labels)), torch.zeros(())
    for number, (hidden, _) in enumerate(model.chunks(rows, plans)):
        wanted = chunk_labels(labels, plans, number)
        total = total + nn.functional.cross_entropy(model.logits(hidden), wanted, reduction="sum") / count
    (total * 0.5).backward()
    return total.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def work(rank: int, world: int, port: int, cases: list[tuple[str, bool]], folder: str) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    results = [shared(*case) for case in cases]
    train(Path(folder) / "run")
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def train(folder: Path) -> None:
    """Three steps of a recipe's stage, shared where there are several processes."""
    trainer = CoMeTTrainer()
    stage = {
        "name": "two", "task": ["number"], "chunk_tokens": 48, "chunks": [3], "plans": ["fixed"], "fifo_slots": [1, 5],
        "questions": 2, "distractors": 0, "rows": 2, "memory_rate": 10.0,
        "truncate": None, "save_activations": False, "share_text": True, "asides": False,
        "interludes": [0], "gates": None,
    }  # fmt: skip
    data = ReadingData(["The keeper wrote down the weather. " * 40], [NEEDLES["number"]], [])
    task = trainer.task(comet(train="lora", chunk_tokens=48), stage, data, 0)
    run(task, LoopConfig(steps=3, learning_rate=1e-3, log_every=1), folder, say=lambda line: None)


def shared(name: str, save: bool) -> dict[str, Any]:
    plans, model = PLANS[name], made()
    rows, labels = batch(plans)
    count = sum(map(len, labels))
    pipeline = ChunkPipeline(model, save_activations=save)

    def local(number: int, hidden: Tensor) -> Tensor:
        wanted = chunk_labels(labels, plans, number)
        return nn.functional.cross_entropy(model.logits(hidden), wanted, reduction="sum") / count

    loss = pipeline.loss(rows, plans, local)
    (loss * 0.5).backward()
    pipeline.all_reduce_gradients(model.parameters())
    dist.all_reduce(loss.detach_())
    return {"loss": loss.item(), "gradients": {n: p.grad for n, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("world", [2, 4])
def test_gradients_equal_one_process(tmp_path: Path, world: int) -> None:
    """Mixed chunk sizes, several chunks to a rank or none, activations kept or computed again."""
    cases = [("even", True), ("mixed", True), ("mixed", False), ("few", True)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (world, port, cases, str(tmp_path)), nprocs=world)
    train(tmp_path / "alone")
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("alone", "run")]
    for single, several in zip(*logs, strict=True):
        mine, theirs = json.loads(single), json.loads(several)
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert {key: theirs[key] for key in ("step", "token_accuracy", "exact")} == {
            key: mine[key] for key in ("step", "token_accuracy", "exact")
        }
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    for number, (name, _) in enumerate(cases):
        expected_loss, expected = alone(PLANS[name])
        assert any("memories" in key for key in expected)
        assert any("lora" in key for key in expected)
        for rank in range(world):
            result = results[rank][number]
            assert result["loss"] == pytest.approx(expected_loss, rel=1e-5)
            assert result["gradients"].keys() >= expected.keys()
            for key, gradient in result["gradients"].items():
                wanted = expected.get(key, torch.zeros_like(gradient))
                torch.testing.assert_close(
                    gradient, wanted, atol=1e-6, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}"
                )


def test_what_is_computed_again_is_cast_as_before() -> None:
    """``backward`` is called outside of autocast, as a training loop does."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        plans = PLANS["mixed"]
        rows, labels = batch(plans)
        gradients = []
        for save in (True, False):
            model = made()

            def local(number: int, hidden: Tensor, model: CoMeT = model) -> Tensor:
                wanted = chunk_labels(labels, plans, number)
                return nn.functional.cross_entropy(model.logits(hidden).float(), wanted, reduction="sum")

            with torch.autocast("cpu", torch.bfloat16):
                loss = ChunkPipeline(model, save_activations=save).loss(rows, plans, local)
            loss.backward()
            gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    finally:
        dist.destroy_process_group()
    kept, again = gradients
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_layer_after_layer_equals_chunk_after_chunk() -> None:
    """Invariant 5: the cells in another order."""
    model, plans = comet(), PLANS["mixed"]
    rows, _ = batch(plans)
    expected, memories = outputs(model, rows, plans)
    memory = model.empty_memory(2)
    chunks, hidden, counts = [], [], memory.counts
    for ids, closes in by_chunk(rows, plans):
        chunks.append(model.prepare([len(row) for row in ids], closes, counts))
        hidden.append(model.embedded(ids, chunks[-1].frame.layout))
        counts = chunks[-1].after
    for index, state in enumerate(memory.layers):
        for number, chunk in enumerate(chunks):
            hidden[number], *state = model.cells[index](chunk, hidden[number], *state)
        torch.testing.assert_close(state[0], memories[-1].layers[index].slots, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state[1], memories[-1].layers[index].queue, atol=1e-5, rtol=1e-5)
    last = model.logits(hidden[7][chunks[7].text])
    torch.testing.assert_close(last, expected[0][-8:], atol=1e-5, rtol=1e-5)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6),
    st.integers(0, 9),
    st.integers(0, 12),
)
def test_counts_follow_from_lengths(lengths: list[tuple[int, int]], stride: int, capacity: int) -> None:
    counts = Counts.none(2)
    for pair in lengths:
        counts = counts.behind(pair, [True, True], stride, capacity)
    for row in range(2):
        read = [pair[row] for pair in lengths if pair[row]]
        entries = min(capacity, sum(compressed(n, stride) for n in read))
        assert (int(counts.live[row]), int(counts.chunks[row]), int(counts.tokens[row])) == (
            entries,
            len(read),
            sum(read),
        )
