"""The layout of a chunk: memory in front, text with compression tokens between, readouts at the end.

A chunk may come in several blocks: a prompt, then token by token, then what closes it. What stands where depends only
on the chunk's own count of text tokens, so that any way of cutting it into blocks gives the same sequence. One rule
does it: a compression token stands *before* the text token that would begin a new group, and one closes the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.core.layout import Kind, Layout, batch, concatenate, run
from laconic.core.positions import sequential
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.memory import Counts


@dataclass(frozen=True)
class Piece:
    """What one row feeds in a block.

    Attributes:
        start: text tokens of the open chunk that were fed before.
        count: text tokens fed now; 0 with ``closes`` ends a chunk that was left open.
        closes: whether the chunk ends here: a last compression token and the readouts follow.
    """

    start: int
    count: int
    closes: bool


def fed(tokens: int, stride: int) -> int:
    """Tokens of an open chunk, compression tokens among them, after so many text tokens."""
    return tokens + (max(tokens - 1, 0) // stride if stride else 0)


def block_layout(pieces: Sequence[Piece], origins: Sequence[int], config: CoMeTConfig) -> Layout:
    """The tokens that the rows feed, [B, E], padded on the right.

    Args:
        origins: position of each row's first token behind its memory, o = g + t.
    """
    rows = [_row(piece, origin, config) for piece, origin in zip(pieces, origins, strict=True)]
    return batch(rows, "right")


def _row(piece: Piece, origin: int, config: CoMeTConfig) -> Layout:
    stride, end = config.stride, piece.start + piece.count
    place = torch.arange(fed(piece.start, stride), fed(end, stride))
    between = place % (stride + 1) == stride if stride else torch.zeros_like(place, dtype=torch.bool)
    text = run(Kind.TEXT, origin + place)
    kind = torch.where(between, torch.full_like(place, Kind.COMPRESSION), text.kind)
    parts = [Layout(kind, text.step, text.position, text.label)]
    if piece.closes:
        begin = origin + fed(end, stride)
        last = 1 if stride and end else 0
        parts.append(run(Kind.COMPRESSION, sequential(begin, last)))
        parts.append(run(Kind.READOUT, sequential(begin + last, config.global_slots)))
    return concatenate(parts)


def memory_layout(counts: Counts, slots: int) -> Layout:
    """The memory in front of a chunk, [B, g + t]: slots first, then the queue, oldest first, rows flush right."""
    held, started = counts.held, counts.started
    count = slots if bool(started.any()) else 0
    column = torch.arange(held) - (held - counts.live[:, None])
    queue = torch.where(column >= 0, Kind.MEMORY, Kind.PAD)
    first = torch.where(started[:, None].expand(-1, count), Kind.MEMORY, Kind.PAD)
    behind = column.clamp(min=0) + slots * started[:, None]
    layout = run(Kind.MEMORY, torch.cat([torch.arange(count).expand(counts.batch, -1), behind], dim=1))
    return Layout(torch.cat([first, queue], dim=1), layout.step, layout.position, layout.label)


def columns_of(kind: int, layout: Layout) -> tuple[Tensor, Tensor]:
    """Where each row has tokens of a kind: columns [B, n], flush left, and how many are real [B]."""
    found = layout.kind == kind
    counts = found.sum(1)
    order = (~found).int().argsort(dim=1, stable=True)
    return order[:, : int(counts.max())], counts
