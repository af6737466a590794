"""Teaching CoMeT's gates what to keep: all but the chunks in which something is hidden.

From answers alone a gate learns slowly, and one that has closed learns no more: hardly any gradient passes it. Of text
with needles it is known which chunks a memory must take in, so gates can be told. The rest of the method stays as it
is, so what the gates look at has to be read but once, without a gradient, and is learnt from as often as one likes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from laconic.core.files import write_whole
from laconic.methods.comet.model import CoMeT
from laconic.train.comet import drawn
from laconic.train.examples import Example
from laconic.train.loop import LoopConfig, written
from laconic.train.stages import StageTask
from laconic.train.told import ToldGates, lesson


@dataclass(frozen=True)
class LookedAt:
    """What gates look at when a memory is kept as it should be.

    Attributes:
        inputs: by gate, [N, m, 2D]: what it was asked about at each of N chunks of some text.
        hides: bool [N], whether something was hidden in the chunk.
    """

    inputs: list[Tensor]
    hides: Tensor

    def save(self, file: Path) -> None:
        write_whole(file, save({"hides": self.hides} | {str(n): inputs for n, inputs in enumerate(self.inputs)}))

    @classmethod
    def load(cls, file: Path, device: torch.device) -> LookedAt:
        tensors = load_file(file, device=str(device))
        hides = tensors.pop("hides")
        return cls([tensors[str(n)] for n in range(len(tensors))], hides)


class GateLesson(nn.Module):
    """The gates of the upper layers against what is known to be hidden where.

    Args:
        layers: how many of the upper layers are taught.
        batches: rows with needles.
        fifo_slots: capacities of the queue, one drawn for each batch; None leaves the configuration's.

    Attributes:
        kept: where what has been read is kept, so that it is not read again after a kill; None keeps nothing.
        say: is told of every batch that has been read, which takes a minute or two each.
    """

    def __init__(
        self,
        comet: CoMeT,
        layers: int,
        batches: Iterable[Sequence[Example]],
        fifo_slots: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.comet, self.batches, self.fifo_slots = comet, batches, fifo_slots
        self.told = ToldGates(comet, layers)
        self.gates = nn.ModuleList(self.told.gates)
        self.kept: Path | None = None
        self.say: Callable[[str], None] = lambda line: None

    @cached_property
    def looked_at(self) -> LookedAt:
        """All batches, read once."""
        read = [self._read(number, batch) for number, batch in enumerate(self.batches)]
        inputs = [torch.cat(of_gate) for of_gate in zip(*(one.inputs for one in read), strict=True)]
        return LookedAt(inputs, torch.cat([one.hides for one in read]))

    def _read(self, number: int, batch: Sequence[Example]) -> LookedAt:
        capacity = drawn(self.fifo_slots)  # of a batch that is kept too: the next draws what it would have
        file = None if self.kept is None else self.kept / f"{number}.safetensors"
        if file is not None and file.exists():
            return LookedAt.load(file, self.comet.backbone.device)
        seen = look(self.comet, self.told, batch, capacity)
        self.say(f"batch {number + 1}: {len(seen.hides)} chunks read")
        if file is not None:
            with written(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                seen.save(file)
        return seen

    def forward(self, seen: LookedAt) -> tuple[Tensor, dict[str, float]]:
        """See ``told.lesson``."""
        logits = torch.stack([gate(inputs) for gate, inputs in zip(self.gates, seen.inputs, strict=True)])
        return lesson(logits, seen.hides)


class GateTask(StageTask):
    """A stage that teaches gates: every step learns from all batches, which are read before the first."""

    def __init__(self, lesson: GateLesson) -> None:
        super().__init__(lesson, lambda step: lesson.looked_at, {"gates": (list(lesson.gates.parameters()), 1.0)})
        self.lesson = lesson

    def run(self, loop: LoopConfig, folder: Path, say: Callable[[str], None]) -> None:
        """As any stage; what has been read is kept beside the checkpoints till the end."""
        self.lesson.kept, self.lesson.say = folder / "looked_at", say
        super().run(loop, folder, say)
        shutil.rmtree(self.lesson.kept, ignore_errors=True)


@torch.no_grad()
def look(comet: CoMeT, gates: ToldGates, batch: Sequence[Example], capacity: int | None) -> LookedAt:
    """What gates look at in rows whose memory takes in the chunks that hide something, and keeps what it has at others.

    Of chunks of which that is not known nothing is learnt (``Example.gated``).

    Args:
        capacity: as for ``CoMeT.prepare``.
    """
    rows, plans = [torch.tensor(example.ids) for example in batch], [example.plan for example in batch]
    inputs: list[list[Tensor]] = [[] for _ in gates.gates]
    hiding: list[bool] = []
    chunks = comet.chunks(rows, plans, capacity=capacity)
    with gates.told():
        for number in range(max(map(len, plans))):
            hides = [number in example.hidden for example in batch]
            gates.tell(hides, [True] * len(batch))
            next(chunks)
            gated = [example.gated(number) for example in batch]
            hiding += [hid for hid, asked in zip(hides, gated, strict=True) if asked]
            for of_gate, asked in zip(inputs, gates.asked, strict=bool(gates.asked)):  # none, where no row goes on
                of_gate.append(asked[torch.tensor(gated, device=asked.device)])
    joined = [torch.cat(of_gate) for of_gate in inputs]
    return LookedAt(joined, torch.tensor(hiding, dtype=torch.bool, device=comet.backbone.device))
