"""Interludes: how a memory learns to hold on for longer than texts can be trained on.

Between two chunks of a text, other text is put in. A few chunks of it are read, without a gradient; then what they
would write is written over and over, as if so many more had been read. Only the gates are asked each time, so a hundred
chunks cost little more than a few, and the gradient flows through what a memory keeps of itself: the way a fact goes
that lies far back. What is lost is the gradient through what the other text reads in the memory.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from laconic.data.haystacks import Haystacks
from laconic.methods.comet.memory import LayerState, Memory
from laconic.methods.comet.model import CoMeT
from laconic.train.examples import Example, Examples, Interlude

#: chunks of an interlude that are read; they are written in turn
READ = 3


class Interrupted:
    """Rows with an interlude each, behind a chunk that is drawn for each step; rows of one chunk have none.

    Args:
        lengths: chunks an interlude stands for; one number is drawn for a step.
        full: tokens of a full chunk.
    """

    def __init__(
        self, rows: Examples, haystacks: Haystacks[list[int]], lengths: Sequence[int], full: int, seed: int | str
    ) -> None:
        self.rows, self.haystacks, self.lengths, self.full, self.seed = rows, haystacks, lengths, full, seed

    def __call__(self, index: int) -> list[Example]:
        # a chance of its own: with interludes or without, a step has the same texts
        draw = random.Random(f"{self.seed}/{index}/interlude")
        rows, chunks = self.rows(index), draw.choice(list(self.lengths))
        parted = max(len(row.plan) for row in rows) - 1
        if not chunks or not parted:
            return rows
        behind = draw.randrange(parted)
        made = []
        for row in rows:
            read = [self.haystacks.cut(self.full, draw) for _ in range(min(chunks, READ))]
            interlude = Interlude(read, chunks, behind)
            made.append(replace(row, interlude=interlude) if behind < len(row.plan) - 1 else row)
        return made


def read_over(comet: CoMeT, batch: Sequence[Example], capacity: int | None, number: int, memory: Memory) -> Memory:
    """The memory behind the interludes that come behind the rows' chunk of this number.

    Args:
        capacity: as for ``CoMeT.prepare``.
    """
    interludes = [row.interlude if row.interlude and row.interlude.behind == number else None for row in batch]
    if not any(interludes):
        return memory
    every = [cell.nets for cell in comet.cells]
    read: list[list[Tensor]] = [[] for _ in every]
    with torch.no_grad(), ExitStack() as stack:
        for nets, readouts in zip(every, read, strict=True):
            hook = nets.global_norm.register_forward_pre_hook(partial(_note, readouts))
            stack.callback(hook.remove)
        seen = memory.detach()
        for texts in zip_longest(*(one.read if one else [] for one in interludes), fillvalue=[]):
            ids = [torch.tensor(text, dtype=torch.long) for text in texts]
            _, seen = comet.read_chunk(ids, seen, [bool(text) for text in texts], capacity=capacity)
    times = torch.tensor([one.chunks if one else 0 for one in interludes], device=comet.backbone.device)
    old = torch.zeros_like(times, dtype=torch.bool)  # no row is at its beginning
    layers = []
    for nets, before, after, readouts in zip(every, memory.layers, seen.layers, read, strict=True):
        slots = before.slots
        for time in range(int(times.max()) if readouts else 0):  # no readouts, no slots
            written = nets.written(slots, readouts[time % len(readouts)], old)
            slots = torch.where((time < times)[:, None, None], written, slots)
        # a row without an interlude keeps its own queue, and the gradient through it
        own = functional.pad(before.queue, (0, 0, after.queue.shape[1] - before.queue.shape[1], 0))
        layers.append(LayerState(slots, torch.where((times > 0)[:, None, None], after.queue, own)))
    return Memory(tuple(layers), seen.counts)


def _note(readouts: list[Tensor], module: nn.Module, inputs: tuple[Any, ...]) -> None:
    readouts.append(inputs[0])
