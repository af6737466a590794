"""The loop resumes exactly after a kill."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from accelerate import Accelerator
from torch import nn

from laconic.errors import RecipeError
from laconic.train.loop import LoopConfig, _shares, add_line, run


class Toy(nn.Module):
    def __init__(self, die_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.module = nn.Linear(4, 1)
        self.synchronise = None
        self.die_at, self.seen = die_at, []

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "lr": learning_rate}]

    def batch(self, step: int, rank: int, world: int) -> torch.Tensor:
        self.seen.append(step)
        if step == self.die_at:
            raise KeyboardInterrupt
        return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))

    def weight(self, batch: torch.Tensor) -> float:
        return 1.0


class WithLoss(nn.Module):
    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        noisy = nn.functional.dropout(batch, 0.5)  # the random state must resume too
        return (self.inner(noisy) - batch.sum(1, keepdim=True)).square().mean(), {}


def toy(die_at: int | None = None) -> Toy:
    task = Toy(die_at)
    task.module = WithLoss(task.module)  # type: ignore[assignment]
    return task


def test_a_killed_run_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    config = LoopConfig(steps=12, checkpoint_every=4, log_every=1, learning_rate=0.1, warmup_steps=2)
    whole = toy()
    run(whole, config, tmp_path / "whole", say=lambda line: None)
    killed = toy(die_at=7)
    with pytest.raises(KeyboardInterrupt):
        run(killed, config, tmp_path / "killed", say=lambda line: None)
    resumed = toy()
    run(resumed, config, tmp_path / "killed", say=lambda line: None)
    assert resumed.seen == list(range(4, 12))
    for one, other in zip(whole.module.parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(one, other)
    steps = [(tmp_path / name / "log.jsonl").read_text().count('"step"') for name in ("whole", "killed")]
    assert steps == [12, 12], "steps run again after the kill are logged once"


def test_a_kill_between_two_log_lines_leaves_them_as_they_were(tmp_path: Path) -> None:
    config = LoopConfig(steps=12, checkpoint_every=4, log_every=6, learning_rate=0.1)
    run(toy(), config, tmp_path / "whole", say=lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        run(toy(die_at=5), config, tmp_path / "killed", say=lambda line: None)
    run(toy(), config, tmp_path / "killed", say=lambda line: None)
    whole, killed = (
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    )
    assert killed == whole


def test_a_checkpoint_of_other_processes_is_refused(tmp_path: Path) -> None:
    run(toy(), LoopConfig(steps=2, checkpoint_every=2), tmp_path, say=lambda line: None)
    state = torch.load(tmp_path / "checkpoint.pt")
    torch.save({**state, "processes": 2}, tmp_path / "checkpoint.pt")
    with pytest.raises(RecipeError, match="2 processes, not 1"):
        run(toy(), LoopConfig(steps=4, checkpoint_every=2), tmp_path, say=lambda line: None)


class Ragged:
    """Twelve rows a step, in one batch or in several of different sizes."""

    def __init__(self, sizes: list[int]) -> None:
        torch.manual_seed(1)
        self.module = Squares(nn.Linear(4, 1))
        self.synchronise, self.sizes = None, sizes

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "lr": learning_rate}]

    def batch(self, step: int, rank: int, world: int) -> torch.Tensor:
        number, part = divmod(step * world + rank, len(self.sizes))
        rows = torch.randn(12, 4, generator=torch.Generator().manual_seed(number))
        return rows.split(self.sizes)[part]

    def weight(self, batch: torch.Tensor) -> float:
        return len(batch)


class Squares(nn.Module):
    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        return (self.inner(batch) - batch.sum(1, keepdim=True)).square().mean(), {}


def ragged(folder: Path, sizes: list[int], accumulation: int) -> list[torch.Tensor]:
    task = Ragged(sizes)
    config = LoopConfig(steps=3, learning_rate=0.1, warmup_steps=0, accumulation=accumulation)
    run(task, config, folder, say=lambda line: None)
    return [p.detach() for p in task.module.parameters()]


def one_of_two(rank: int, port: int, folder: str) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    torch.save(ragged(Path(folder), [9, 3], accumulation=1), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_how_a_steps_rows_are_split_over_batches_makes_no_difference(tmp_path: Path) -> None:
    whole = ragged(tmp_path / "whole", [12], accumulation=1)
    for sizes in ([6, 6], [7, 1, 4]):
        split = ragged(tmp_path / f"{sizes}", sizes, accumulation=len(sizes))
        torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-6)


def test_autocast_computes_in_bfloat16_and_keeps_the_weights_as_they_are(tmp_path: Path) -> None:
    """Steps of a thousandth of a weight: bfloat16 weights would lose them."""
    task, seen = toy(), []
    task.module.inner.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    before = [p.detach().clone() for p in task.module.parameters()]
    config = LoopConfig(steps=3, learning_rate=1e-4, warmup_steps=0, autocast=True)
    run(task, config, tmp_path, say=lambda line: None)
    assert set(seen) == {torch.bfloat16}
    for old, new in zip(before, task.module.parameters(), strict=True):
        assert new.dtype == torch.float32
        assert 0 < (new - old).abs().max() < 1e-3


def test_how_a_steps_rows_are_split_over_processes_makes_no_difference(tmp_path: Path) -> None:
    whole = ragged(tmp_path / "whole", [12], accumulation=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(one_of_two, (port, str(tmp_path)), nprocs=2)
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), whole, rtol=1e-5, atol=1e-6)


def test_a_torn_log_is_no_obstacle_and_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    config = LoopConfig(steps=6, checkpoint_every=2, log_every=1)
    run(toy(), LoopConfig(steps=4, checkpoint_every=2, log_every=1), tmp_path, say=lambda line: None)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')
    run(toy(), config, tmp_path, say=lambda line: None)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [*range(1, 7)]
    (tmp_path / "checkpoint.pt").write_bytes(b"PK damaged")
    with pytest.raises(RecipeError, match=r"checkpoint\.pt is damaged"):
        run(toy(), config, tmp_path, say=lambda line: None)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LoopConfig(steps=4, checkpoint_every=2)
    run(toy(), LoopConfig(steps=2, checkpoint_every=2), tmp_path, say=lambda line: None)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(RecipeError, match="cannot be written"):
            run(toy(), config, tmp_path, say=lambda line: None)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "log.jsonl"}
    said: list[str] = []
    run(toy(), config, tmp_path, say=said.append)
    assert said[0] == "resuming at step 2 of 4"


def test_what_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    run(toy(), LoopConfig(steps=2), tmp_path, say=lambda line: None)
    (tmp_path / "checkpoint.pt.0badcafe.part").write_bytes(b"half")
    run(toy(), LoopConfig(steps=3), tmp_path, say=lambda line: None)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "log.jsonl"}


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(RecipeError, match=r"log\.jsonl cannot be written: .*Is a directory"):
        add_line(tmp_path / "log.jsonl", {"step": 1})


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    config = LoopConfig(steps=3, checkpoint_every=10)
    run(toy(), config, tmp_path, say=lambda line: None)
    again = toy()
    run(again, config, tmp_path, say=lambda line: None)
    assert again.seen == []


def test_the_pace_warms_up_and_decays() -> None:
    config = LoopConfig(steps=100, warmup_steps=10)
    assert config.pace(0) == pytest.approx(0.1)
    assert config.pace(9) == pytest.approx(1.0)
    assert config.pace(55) == pytest.approx(0.5)
    assert config.pace(100) == pytest.approx(0.0)


def test_each_part_of_a_loss_is_shared_out_by_its_own_labels() -> None:
    """Over a step's batches, what they count for adds up to one, part by part."""
    shares = _shares([(3.0, 0.0), (1.0, 2.0), (4.0, 6.0)], Accelerator(cpu=True), 1)
    torch.testing.assert_close(shares, torch.tensor([[3 / 8, 0.0], [1 / 8, 2 / 8], [4 / 8, 6 / 8]]))
    torch.testing.assert_close(_shares([1.0, 3.0], Accelerator(cpu=True), 1), torch.tensor([0.25, 0.75]))
