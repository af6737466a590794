"""What every token of a sequence is: the one description that training and inference share.

A ``Layout`` holds, per token, its kind, the step (or segment, or group) it belongs to, its position id and its label.
Masks, decode rows and cache eviction are derived from it by ``laconic.core.visibility``; nothing else describes a
sequence, so the trainer and the decoder cannot disagree about one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

Side = Literal["left", "right"]

#: Label of a token that predicts nothing (the value ``torch.nn.functional.cross_entropy`` skips).
IGNORE = -100


class Kind:
    """What a token is, as plain integers; PAD is zero so that a zeroed layout is padding.

    Not an ``IntEnum``: under ``torch.compile``, and so in FlexAttention, torch 2.13 takes ``tensor == Enum.MEMBER``
    for the constant False, and a mask is silently wrong.
    """

    PAD: Final = 0
    PROMPT: Final = 1  #: given at the start and never hidden
    TEXT: Final = 2  #: words: a document's, a thought's, an answer's
    MEMORY: Final = 3  #: soft token that keeps what a step or segment said
    CONTINUE: Final = 4  #: restart token after the memory tokens of a step
    FORESIGHT: Final = 5  #: soft token that guesses a word ahead
    ANCHOR: Final = 6  #: word that ends a step and is all that stays of it (AnLLM)
    COMPRESSION: Final = 7  #: soft token whose states stand for the words before it in later chunks
    READOUT: Final = 8  #: soft token at a chunk's end that reads the chunk out into slots


@dataclass(frozen=True)
class Layout:
    """The tokens of one sequence (fields ``[T]``) or of a batch (fields ``[B, T]``), all int64.

    Attributes:
        kind: one of ``Kind``.
        step: number of the step, segment or group the token belongs to; 0 for what belongs to none.
        position: position id given to the backbone.
        label: id of the token to be predicted *at* this token, already shifted (logits ``t`` against label ``t``), or
            ``IGNORE``. Foresight tokens predict other words than their neighbour, so no later shift would be right.
    """

    kind: Tensor
    step: Tensor
    position: Tensor
    label: Tensor

    def __post_init__(self) -> None:
        shapes = {tuple(getattr(self, field.name).shape) for field in fields(self)}
        assert len(shapes) == 1, f"the fields of a layout differ in shape: {shapes}"

    def __len__(self) -> int:
        """Number of tokens T, padding included."""
        return self.kind.shape[-1]

    @property
    def real(self) -> Tensor:
        """Whether a token is not padding, bool, as the fields."""
        return self.kind != Kind.PAD

    def map(self, change: Callable[[Tensor], Tensor]) -> Layout:
        """The same tensor operation on every field: slicing, gathering, choosing rows, moving to a device."""
        return Layout(change(self.kind), change(self.step), change(self.position), change(self.label))


def run(kind: int, position: Tensor, *, step: int = 0, label: Tensor | None = None) -> Layout:
    """Neighbouring tokens of one kind and one step.

    Args:
        position: ``[T]`` position ids (see ``laconic.core.positions``).
        label: ``[T]``; none of them predicts anything if left out.
    """
    return Layout(
        kind=torch.full_like(position, kind),
        step=torch.full_like(position, step),
        position=position,
        label=torch.full_like(position, IGNORE) if label is None else label,
    )


def concatenate(parts: Sequence[Layout]) -> Layout:
    """Join layouts along the tokens."""
    return Layout(*(torch.cat([getattr(part, field.name) for part in parts], dim=-1) for field in fields(Layout)))


def pad(layout: Layout, length: int, side: Side) -> Layout:
    """Fill up with padding tokens to ``length`` on the given side."""
    missing = length - len(layout)
    assert missing >= 0, f"a layout of {len(layout)} tokens does not fit {length}"
    where = (missing, 0) if side == "left" else (0, missing)
    return Layout(
        kind=functional.pad(layout.kind, where, value=Kind.PAD),
        step=functional.pad(layout.step, where),
        position=functional.pad(layout.position, where),
        label=functional.pad(layout.label, where, value=IGNORE),
    )


def batch(layouts: Sequence[Layout], side: Side) -> Layout:
    """Stack single sequences into ``[B, T]``, padded to the longest."""
    length = max(len(layout) for layout in layouts)
    padded = [pad(layout, length, side) for layout in layouts]
    return Layout(*(torch.stack([getattr(row, field.name) for row in padded]) for field in fields(Layout)))
