"""The loop resumes exactly after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from laconic.errors import RecipeError
from laconic.train.loop import LoopConfig, run


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
