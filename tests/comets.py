"""Small CoMeTs on tiny random decoders, for the tests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tiny import ARCHITECTURES, VOCABULARY, tiny_backbone
from torch import Tensor

from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.memory import Memory
from laconic.methods.comet.model import CoMeT

ROTARY = [name for name in ARCHITECTURES if name != "gpt2"]
SMALL: dict[str, Any] = {
    "chunk_tokens": 12, "stride": 4, "global_slots": 3, "fifo_slots": 5, "adapter_rank": 2, "gate_bias": 1.0,
    "plain_start": False, "train": "memory", "lora_rank": 2,
}  # fmt: skip
NO_MEMORY = {"stride": 0, "fifo_slots": 0, "global_slots": 0}


BOOK = "The lighthouse keeper wrote down the weather every morning. " * 80


def write_records(path: Path, *rows: dict[str, Any]) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def comet(arch: str = "llama", **changes: Any) -> CoMeT:
    torch.manual_seed(1)
    made = CoMeT(tiny_backbone(arch), CoMeTConfig(**(SMALL | changes)))
    with torch.no_grad():  # soft tokens that differ clearly, norms that do something
        for name, parameter in made.named_parameters():
            if name.startswith(("readouts", "compression")):
                parameter.copy_(torch.randn_like(parameter))
            if "memories" in name and "norm" in name:
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    return made.eval()


def words(count: int, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed))


def outputs(made: CoMeT, rows: Sequence[Tensor], plans: Sequence[Sequence[int]]) -> tuple[list[Tensor], list[Memory]]:
    """Logits of every text token row by row, and the memory after each chunk."""
    per_row: list[list[Tensor]] = [[] for _ in rows]
    memories = []
    for number, (hidden, memory) in enumerate(made.chunks(rows, plans)):
        sizes = [plan[number] if number < len(plan) else 0 for plan in plans]
        for row, part in zip(per_row, made.logits(hidden).split(sizes), strict=True):
            row.append(part)
        memories.append(memory)
    return [torch.cat(row) for row in per_row], memories


def recipe(folder: Path, **changes: Any) -> Path:
    """A recipe's file of one stage on tiny chunks."""
    stage = {
        "name": "two", "task": ["number"], "books": "books_train", "chunk_tokens": 64, "chunks": [1],
        "plans": ["fixed"], "fifo_slots": [0, 8], "questions": 2, "distractors": 0, "rows": 2,
        "memory_rate": 10.0, "truncate": None, "save_activations": True, "share_text": False, "asides": False,
        "interludes": [0], "gates": None,
        "loop": {"steps": 3, "learning_rate": 1.0e-3, "checkpoint_every": 1},
    }  # fmt: skip
    options = {"chunk_tokens": 64, "stride": 8, "global_slots": 4, "fifo_slots": 8, "adapter_rank": 2, "lora_rank": 2}
    whole = {
        "method": "comet", "backbone": "tiny", "dtype": "float32", "device": "cpu", "start": None,
        "output": str(folder / "run"), "seed": 0, "comet": options, "stages": [stage | changes],
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(whole))
    return path
