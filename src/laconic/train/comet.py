"""Training CoMeT: text cut into chunks, the loss carried back through the memory (section 3).

What a step trains on is a batch of rows with a chunk plan each (``laconic.train.reading_examples``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from laconic.methods.comet.memory import Memory
from laconic.methods.comet.model import CoMeT
from laconic.train.examples import Example
from laconic.train.interludes import read_over
from laconic.train.pipeline import ChunkPipeline
from laconic.train.targets import Targets
from laconic.train.told import ToldGates, lesson

#: what gates would have done at a chunk of some rows, [G, m, 1, N], and whether something is hidden in it, [N]
Heard = tuple[Tensor, Tensor]


class ReadingStage(nn.Module):
    """Next-token loss through the memory, over whatever is labelled.

    Args:
        fifo_slots: capacities of the queue, one drawn for each step (what the queue still holds, the slots need not
            learn to keep); None leaves the configuration's.
        truncate: cut the gradient after every so many chunks; None carries it through all of them.
        save_activations: False recomputes each layer in the backward pass.
        told: upper layers whose gates are told what is hidden where, as far as that is known (``laconic.train.told``);
            activations have to be saved then.
        lesson: the weight of what these gates learn meanwhile, by which all that they look at learns too.
    """

    def __init__(
        self,
        comet: CoMeT,
        *,
        fifo_slots: Sequence[int] | None = None,
        truncate: int | None = None,
        save_activations: bool = True,
        told: int = 0,
        lesson: float = 0.0,
    ) -> None:
        super().__init__()
        assert save_activations or not told, "a gate that is computed again would do as it was told last"
        self.comet, self.fifo_slots = comet, fifo_slots
        self.truncate, self.save_activations = truncate, save_activations
        self.gates, self.lesson = ToldGates(comet, told), lesson

    def forward(self, batch: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """The mean loss over all labels of the batch, however they lie over rows, chunks and asides."""
        targets = Targets(batch)
        total = torch.zeros((), device=self.comet.backbone.device)
        heard: list[Heard] = []
        with self.gates.told():
            for part in self._parts(targets, heard):
                total = total if part is None else total + part
        if not (self.lesson and heard):
            return total, targets.numbers
        logits, hides = (torch.cat(some, dim=-1) for some in zip(*heard, strict=True))
        taught, numbers = lesson(logits.movedim(-1, 1), hides)
        return total + self.lesson * taught, targets.numbers | numbers

    def _parts(self, targets: Targets, heard: list[Heard]) -> Iterator[Tensor | None]:
        save, capacity = self.save_activations, drawn(self.fifo_slots)
        chunks = self.comet.chunks(
            targets.rows,
            targets.plans,
            save_activations=save,
            truncate=self.truncate,
            capacity=capacity,
            between=partial(self._between, targets.batch, heard, capacity),
        )
        self._tell(targets.batch, 0)
        for number, (outputs, memory) in enumerate(chunks):
            self._tell(targets.batch, number + 1)
            yield targets.loss(self.comet.logits, number, outputs)
            if asked := targets.asked(number):
                stays_open = [False] * len(asked)
                outputs, _ = self.comet.read_chunk(asked, memory, stays_open, save_activations=save, capacity=capacity)
                yield targets.loss_aside(self.comet.logits, number, outputs)

    def _between(
        self, batch: Sequence[Example], heard: list[Heard], capacity: int | None, number: int, memory: Memory
    ) -> Memory:
        gated = torch.tensor([bool(row.hidden) and row.gated(number) for row in batch])
        if self.gates.answers and gated.any():
            hides = torch.tensor([number in row.hidden for row in batch])[gated].to(memory.layers[0].slots.device)
            heard.append((torch.stack(self.gates.answers)[:, gated.to(hides.device)].movedim(1, -1), hides))
        self._tell(batch, None)  # an interlude hides nothing
        return read_over(self.comet, batch, capacity, number, memory)

    def _tell(self, batch: Sequence[Example], number: int | None) -> None:
        self.gates.tell([number in row.hidden for row in batch], [bool(row.hidden) for row in batch])


class SharedReadingStage(nn.Module):
    """As ``ReadingStage``, each text spread over all processes (``laconic.train.pipeline``).

    Args:
        fifo_slots: as there.
        save_activations: False keeps the inputs of each layer alone.
    """

    def __init__(self, comet: CoMeT, *, fifo_slots: Sequence[int] | None = None, save_activations: bool = True) -> None:
        super().__init__()
        self.comet, self.fifo_slots = comet, fifo_slots
        self.pipeline = ChunkPipeline(comet, save_activations=save_activations)

    def forward(self, batch: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """This process's part of the loss; the numbers are of all of them."""
        targets = Targets(batch)
        local = partial(targets.loss, self.comet.logits)
        loss = self.pipeline.loss(targets.rows, targets.plans, local, drawn(self.fifo_slots))
        failed = [float(not whole) for whole in targets.whole]
        seen = torch.tensor([loss.item(), targets.right, *failed], device=loss.device)
        dist.all_reduce(seen)
        found, right, *failed = seen.tolist()
        return loss, {"loss": found, **targets.told(right, [not times for times in failed])}

    def synchronise(self) -> None:
        """Sum the processes' gradients."""
        self.pipeline.all_reduce_gradients(self.comet.parameters())


def drawn(choices: Sequence[int] | None) -> int | None:
    """One of them, by torch's generator, which the loop seeds with the step's number."""
    return None if choices is None else choices[int(torch.randint(len(choices), ()))]


def parameters_of(comet: CoMeT, memory_rate: float) -> dict[str, tuple[list[nn.Parameter], float]]:
    """What is trained, and at which multiple of the learning rate: the memory learns faster than the decoder."""
    soft = [comet.readouts.weight, comet.compression.weight]
    memory = [*comet.memories.parameters(), *(p for p in soft if p.numel())]
    decoder: list[Any] = [] if comet.config.train == "memory" else list(comet.decoder.parameters())
    decoder = [p for p in decoder if p.requires_grad]
    trained = {"decoder": (decoder, 1.0), "memory": (memory, memory_rate)}
    return {name: pair for name, pair in trained.items() if pair[0]}
