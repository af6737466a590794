"""One layer on one chunk: the unit that is computed, computed again, sharded, compiled and run in any order.

Cell (layer, chunk) needs (layer - 1, chunk) and (layer, chunk - 1) alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from laconic.core.compat import drops_cache
from laconic.core.layers import LayerStack, Masks, Rotary
from laconic.core.layout import Kind, Layout
from laconic.errors import BackboneError
from laconic.methods.comet.memory import Counts, LayerMemory, LayerState, Update, take


@dataclass(frozen=True)
class Frame:
    """What all layers of one block share.

    Attributes:
        layout: of the block, [B, E].
        rotary, front_rotary: for the block, and for the memory in front of it (None where there is none).
        compression, readouts: columns of the block, [B, b] and [B, m].
        compressions: which of the compression tokens' columns are a row's own, bool [B, b], on the CPU.
    """

    layout: Layout
    mask: Masks
    rotary: Rotary
    front_rotary: Rotary | None
    compression: Tensor
    compressions: Tensor
    readouts: Tensor


@dataclass(frozen=True)
class Chunk:
    """One chunk of each row, ready for any layer.

    Attributes:
        after: the counts behind it.
    """

    frame: Frame
    update: Update
    after: Counts

    @property
    def text(self) -> Tensor:
        """Which of the chunk's tokens are words, bool [B, E]."""
        return self.frame.layout.kind == Kind.TEXT


class Cell(nn.Module):
    """A decoder layer with its memory networks.

    Args:
        stack: the decoder's layers.
        index: of this one.
        nets: its memory networks.
    """

    def __init__(self, stack: LayerStack, index: int, nets: LayerMemory) -> None:
        super().__init__()
        self.layer, self.nets = stack.layers[index], nets
        self._stack, self._index = stack, index

    def front(self, state: LayerState, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Keys and values of the layer's memory, [B, N, g + t, H]; nothing else of a layer is computed for it."""
        return self._stack.keys_and_values(self._index, self.nets.view(state), rotary)

    def forward(self, chunk: Chunk, hidden: Tensor, slots: Tensor, queue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states [B, E, D] and the layer's memory in, both out: a function of tensors alone."""
        if drops_cache(self.layer):
            raise BackboneError(
                "Gradient checkpointing is on, and with it a layer drops the memory in front of it.",
                "Turn it off; save_activations=False recomputes layers here.",
            )
        frame, state = chunk.frame, LayerState(slots, queue)
        cache = Cache(layer_class_to_replicate=DynamicLayer)
        if frame.front_rotary is not None:
            cache.update(*self.front(state, frame.front_rotary), self._index)
        hidden = self._stack.run(self._index, hidden, frame.layout.position, frame.rotary, frame.mask, cache)
        outputs, readouts = take(hidden, frame.compression), take(hidden, frame.readouts)
        after = chunk.update.layer(self.nets, state, outputs, readouts)
        return hidden, after.slots, after.queue
