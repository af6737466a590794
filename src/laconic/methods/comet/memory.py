"""What CoMeT carries from chunk to chunk, and how one layer updates it.

Shapes: B rows, m slots that hold d states each (g = m d), t live entries of the queue, b new entries, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from laconic.core.modes import no_autocast
from laconic.methods.comet.config import CoMeTConfig, compressed

# of the norms before a memory; what reads a memory normalises it again
EPSILON = 1e-6


class LayerState(NamedTuple):
    """The memory of one layer.

    Attributes:
        slots: gated global memory S [B, g, D], the newest state of each slot first, then what was there before; in the
            networks' dtype: a gate near 1 would lose its small updates in bfloat16.
        queue: temporary memory T [B, t, D] in the backbone's dtype, oldest first; rows with less are flush right.
    """

    slots: Tensor
    queue: Tensor


@dataclass(frozen=True)
class Counts:
    """How much each of B rows has read and holds; known from the chunks' lengths alone. On the CPU.

    Attributes:
        live: entries of the queue that are a row's own, [B].
        chunks: chunks read by each row, [B]; a row that has read none has no slots yet.
        tokens: text tokens read by each row, [B].
    """

    live: Tensor
    chunks: Tensor
    tokens: Tensor

    @classmethod
    def none(cls, batch: int) -> Counts:
        zeros = torch.zeros(batch, dtype=torch.long)
        return cls(zeros, zeros, zeros)

    @property
    def batch(self) -> int:
        return len(self.live)

    @property
    def held(self) -> int:
        """Columns of the queue: the live entries of the row that has most."""
        return int(self.live.max())

    @property
    def started(self) -> Tensor:
        """Rows that have slots, bool [B]."""
        return self.chunks > 0

    def behind(self, lengths: Sequence[int], closes: Sequence[bool], stride: int, capacity: int) -> Counts:
        """The counts behind one chunk of each row.

        Args:
            lengths: text tokens of each row's chunk.
            closes: rows whose memory takes it in.
            stride: text tokens that a compression token stands for; 0 where there are none.
            capacity: most entries of the queue.
        """
        read = torch.tensor(list(lengths)) * torch.tensor(list(closes))
        entries = torch.tensor([compressed(tokens, stride) for tokens in read.tolist()])
        return Counts((self.live + entries).clamp(max=capacity), self.chunks + (read > 0), self.tokens + read)

    @property
    def shape(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """All of it that a layout depends on."""
        return tuple(self.live.tolist()), tuple(self.started.tolist())

    def origins(self, slots: int) -> list[int]:
        """The position of each row's first token behind a memory with so many slots."""
        return (slots * self.started + self.live).tolist()


@dataclass(frozen=True)
class Memory:
    """The memory of all layers for B rows; an immutable value, so that earlier ones stay usable.

    Attributes:
        layers: one state per decoder layer.
    """

    layers: tuple[LayerState, ...]
    counts: Counts

    @property
    def nbytes(self) -> int:
        """Bytes of all states: per layer ``g D`` floats of four bytes and ``t D`` of the backbone's dtype."""
        return sum(tensor.nbytes for state in self.layers for tensor in state)

    @property
    def finite(self) -> bool:
        """Whether all states are numbers."""
        return all(bool(torch.isfinite(tensor).all()) for state in self.layers for tensor in state)

    def rows(self, numbers: Sequence[int]) -> Memory:
        """Of these rows, in this order; one may come several times."""
        own = torch.tensor(numbers)
        layers = tuple(LayerState(*(tensor[own.to(tensor.device)] for tensor in state)) for state in self.layers)
        return Memory(layers, Counts(self.counts.live[own], self.counts.chunks[own], self.counts.tokens[own]))

    def detach(self) -> Memory:
        """The same values, cut off from the graph: truncated back-propagation."""
        return Memory(tuple(LayerState(*(tensor.detach() for tensor in state)) for state in self.layers), self.counts)


class LowRankAdapter(nn.Module):
    """The residual low-rank adapter RLA: ``x + W_up W_down x``."""

    def __init__(self, width: int, rank: int, deviation: float, plain: bool) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        nn.init.normal_(self.down.weight, std=deviation)
        nn.init.zeros_(self.up.weight) if plain else nn.init.normal_(self.up.weight, std=deviation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x))


class LayerMemory(nn.Module):
    """The memory networks of one layer; they compute in a dtype of their own, float32 unless changed, under autocast
    too: in bfloat16 a gate of .9985 is 1, which takes nothing in and has no gradient.

    Args:
        width: D of the backbone.
        deviation: standard deviation of new weights (the backbone's ``initializer_range``).
    """

    def __init__(self, width: int, config: CoMeTConfig, deviation: float) -> None:
        super().__init__()
        plain, rank = config.plain_start, config.adapter_rank
        self.global_norm = nn.RMSNorm(width, eps=EPSILON)
        self.global_adapter = LowRankAdapter(width, rank, deviation, plain)
        self.gate = nn.Linear(2 * width, 1, bias=bool(config.gate_bias)) if config.gate else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight) if plain else nn.init.normal_(self.gate.weight, std=deviation)
            if config.gate_bias:
                nn.init.constant_(self.gate.bias, config.gate_bias)
        self.queue_norm = nn.RMSNorm(width, eps=EPSILON)
        self.queue_adapter = (
            self.global_adapter if config.shared_adapter else LowRankAdapter(width, rank, deviation, plain)
        )

    def view(self, state: LayerState) -> Tensor:
        """What the layer reads: the adapted slots G and the queue T, ``[B, g + t, D]`` in the queue's dtype."""
        with no_autocast(state.slots.device):
            slots = self.global_adapter(state.slots)
        return torch.cat([slots.to(state.queue.dtype), state.queue], dim=1)

    def written(self, slots: Tensor, readouts: Tensor, fresh: Tensor) -> Tensor:
        """The slots after a chunk: in each, what its gate gives up of one place moves to the next (``global_depth``).

        Args:
            readouts: the layer's outputs at the readout tokens, ``[B, m, D]``.
            fresh: bool ``[B]``, rows for which this was the first chunk: their slots are the candidate, ungated.
        """
        with no_autocast(slots.device):
            candidate = self.global_norm(readouts.to(slots.dtype))
            newest, depth = slots[:, : candidate.shape[1]], slots.shape[1] // candidate.shape[1]
            pushed = torch.cat([candidate, slots], dim=1)[:, : slots.shape[1]]
            if self.gate is not None:
                kept = torch.sigmoid(self.gate(torch.cat([candidate, newest], dim=-1))).repeat(1, depth, 1)
                pushed = kept * slots + (1 - kept) * pushed
            return torch.where(fresh[:, None, None], candidate.repeat(1, depth, 1), pushed)

    def entries(self, outputs: Tensor) -> Tensor:
        """What enters the queue for the outputs at compression tokens, ``[B, b, D]``."""
        with no_autocast(outputs.device):
            entries: Tensor = self.queue_adapter(self.queue_norm(outputs.to(self.queue_norm.weight.dtype)))
        return entries.to(outputs.dtype)


@dataclass(frozen=True)
class Update:
    """How a chunk changes the memory; the same for every layer.

    Attributes:
        columns: which columns of (queue, outputs at compression tokens) form the new queue, [B, t].
        closes, fresh: bool [B]: rows that take the chunk in, and rows that had read none.
    """

    columns: Tensor
    closes: Tensor
    fresh: Tensor

    @classmethod
    def of(
        cls,
        before: Counts,
        closes: Tensor,
        compressions: Tensor,
        capacity: int,
        device: torch.device | str,
    ) -> Update:
        """The update by one chunk of each row.

        Args:
            compressions: which of the outputs at compression tokens are a row's own, bool [B, n].
            capacity: most entries of the queue.
            device: of the states.
        """
        held = before.held
        queued = torch.arange(held) >= held - before.live[:, None]
        columns = newest(torch.cat([queued, compressions & closes[:, None]], dim=1), capacity)
        return cls(columns.to(device), closes.to(device), ~before.started.to(device))

    def layer(self, nets: LayerMemory, state: LayerState, outputs: Tensor, readouts: Tensor) -> LayerState:
        """The state of one layer after the chunk."""
        slots = state.slots
        if readouts.shape[1]:
            slots = torch.where(self.closes[:, None, None], nets.written(slots, readouts, self.fresh), slots)
        queue = take(torch.cat([state.queue, nets.entries(outputs)], dim=1), self.columns)
        return LayerState(slots, queue)


def newest(real: Tensor, capacity: int) -> Tensor:
    """Which columns [B, t] form the queue: the last ``capacity`` real ones of each row, in order, flush right.

    Args:
        real: bool [B, n] over the old queue's columns and those that arrive. What is not real never enters, so no
            padding hides an entry.
    """
    longest = int(real.sum(1).clamp(max=capacity).max())
    # a stable sort puts the dead before the live and keeps the order of both
    order = real.int().argsort(dim=1, stable=True)
    return order[:, order.shape[1] - longest :]


def take(rows: Tensor, columns: Tensor) -> Tensor:
    """Columns [B, C] of each row of [B, T, D], as [B, C, D]."""
    return rows.gather(1, columns[:, :, None].expand(-1, -1, rows.shape[2]))
