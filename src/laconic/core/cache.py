"""A key/value cache that can forget: it evicts by row and still gets masks and positions right.

Three traps of transformers 5 are met here (measured in the design's ecosystem notes):

1. A shortened cache that reports its logical length as the offset of new queries lets tokens of a later block read
   ahead. Here ``get_seq_length`` is logical (positions count on), query offset and mask sizes are physical.
2. A 2D padding mask is indexed by logical place and points at the wrong keys after eviction. Here every cached key
   carries its ``Layout`` entry, 4D masks are built from those, and asking upstream for a mask of a ragged cache fails.
3. Gradient checkpointing drops the cache with a mere warning. Here it is an error.

Use: ``keys = cache.announce(block)``; run the model on the block with
``attention_mask(model, rule, keys, len(block))``, ``position_ids=block.position`` and ``past_key_values=cache``; then
``cache.keep(...)``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from laconic.core.compat import drop_keys, drops_cache
from laconic.core.layers import LayerStack
from laconic.core.layout import Kind, Layout, concatenate, run
from laconic.errors import BackboneError

_DROPPED = "Gradient checkpointing is on, and with it transformers drops the cache."
_DROPPED_REMEDY = "Turn it off, or give memory to the model as inputs_embeds."


class EvictingLayer(DynamicLayer):
    """Keys and values of one layer, ``[B, N, K, H]``, K columns of which are still here and ``evicted`` are not."""

    keys: Tensor
    values: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evicted = 0

    @property
    def physical_length(self) -> int:
        return self.keys.shape[-2] if self.is_initialized else 0

    def get_seq_length(self) -> int:
        """Columns ever seen: the logical length."""
        return self.physical_length + self.evicted

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys a mask must cover, and their offset."""
        return self.physical_length + query_length, 0

    def reset(self) -> None:
        drop_keys(self)
        super().reset()
        self.evicted = 0


def take(layers: Sequence[EvictingLayer], columns: Tensor) -> None:
    """Keep ``columns`` ``[B, K']`` of each row, in that order."""
    places: dict[tuple[int, int, torch.device], Tensor] = {}
    for layer in layers:
        layer.evicted += layer.physical_length - columns.shape[1]
        for name in ("keys", "values"):
            held: Tensor = getattr(layer, name)
            rows, heads, length, width = held.shape
            where = heads, length, held.device
            if where not in places:
                places[where] = _places(columns.to(held.device), heads, length)
            # whole vectors of keys are chosen: many times as fast on a CPU as gathering their numbers
            kept = held.reshape(-1, width).index_select(0, places[where])
            setattr(layer, name, kept.view(rows, heads, columns.shape[1], width))


def _places(columns: Tensor, heads: int, held: int) -> Tensor:
    """Where the columns of all rows and heads stand, if ``[B, heads, held]`` is one line."""
    rows = torch.arange(len(columns) * heads, device=columns.device).view(-1, heads, 1)
    return (rows * held + columns[:, None, :]).flatten()


class EvictingCache(Cache):
    """A cache whose keys know what they are (``layout``) and can be evicted row by row.

    Rows that keep fewer keys than others are padded on the left, so the newest key of every row is in the last column.
    All layers hold the same columns, also those with a sliding window: masks honour windows, the cache does not.

    Args:
        model: the model that will fill it.

    Attributes:
        layout: ``[B, K]``, the cached keys; None while empty.

    Raises:
        BackboneError: the model is training with gradient checkpointing.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        if drops_cache(model):
            raise BackboneError(_DROPPED, _DROPPED_REMEDY)
        super().__init__(layer_class_to_replicate=EvictingLayer)
        self.layout: Layout | None = None
        self._ragged = False

    @property
    def physical_length(self) -> int:
        """Columns held now, padding included."""
        return self.layers[0].physical_length if self.layers else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values held now."""
        held = [layer for layer in self.layers if layer.is_initialized]
        return sum(t.numel() * t.element_size() for layer in held for t in (layer.keys, layer.values))

    def fork(self) -> EvictingCache:
        """A second cache with the same keys, which are not copied: both only ever replace their tensors."""
        other = copy.copy(self)
        other.layers = [copy.copy(layer) for layer in self.layers]
        return other

    def announce(self, block: Layout) -> Layout:
        """Say what the next forward pass will feed; returns the layout ``[B, K + Q]`` of all keys it will meet.

        Rows that feed less than others are padded in ``block``; the next ``keep`` clears that padding away.

        Raises:
            BackboneError: the keys of the block before never arrived.
        """
        announced = 0 if self.layout is None else len(self.layout)
        if announced != self.physical_length:
            raise BackboneError(
                f"{announced - self.physical_length} announced tokens never reached the cache.", _DROPPED_REMEDY
            )
        self.layout = block if self.layout is None else concatenate([self.layout, block])
        return self.layout

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if layer_idx == 0:
            self._account_for(key_states)
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def _account_for(self, keys: Tensor) -> None:
        """Describe tokens that nobody announced (``model.generate`` feeds such), or check those announced."""
        arriving = keys.shape[-2]
        announced = 0 if self.layout is None else len(self.layout) - self.physical_length
        if announced:
            assert announced == arriving, f"{announced} tokens were announced and {arriving} came"
            return
        if keys.shape[0] != 1:
            raise BackboneError(
                f"A batch of {keys.shape[0]} rows was fed without saying which tokens are padding.",
                "Call cache.announce(block) before the forward pass.",
            )
        start = self.get_seq_length()
        block = run(Kind.TEXT, torch.arange(start, start + arriving, device=keys.device)).map(lambda t: t[None])
        self.layout = block if self.layout is None else concatenate([self.layout, block])

    def keep(self, kept: Tensor) -> None:
        """Evict all keys but some, with one selection for the keys of a layer and one for its values.

        Args:
            kept: bool ``[B, K]`` over the columns of ``layout``; padding is dropped in any case.
        """
        assert self.layout is not None, "nothing to evict from"
        assert len(self.layout) == self.physical_length, "evicting between announcing a block and feeding it"
        kept = kept & self.layout.real
        counts = kept.sum(dim=1)
        shortest, longest = counts.min().item(), counts.max().item()
        self._ragged = shortest != longest
        if shortest == len(self.layout):
            return
        # a stable sort puts what goes before what stays and keeps the order of both: rows end up flush right
        columns = kept.int().argsort(dim=1, stable=True)[:, len(self.layout) - longest :]
        stays = kept.gather(1, columns)
        take(cast(list[EvictingLayer], self.layers), columns)
        # rows that keep less show a dead key there; as padding nobody reads it
        self.layout = self.layout.map(lambda field: field.gather(1, columns))
        self.layout = Layout(
            kind=self.layout.kind.masked_fill(~stays, Kind.PAD),
            step=self.layout.step,
            position=self.layout.position,
            label=self.layout.label,
        )

    def shift(self, stack: LayerStack, first: int, by: int) -> None:
        """Move the keys from column ``first`` on ``by`` positions later (earlier, if negative).

        Raises:
            BackboneError: the model scales its rotary positions.
        """
        assert self.layout is not None, "nothing to move"
        for index, layer in enumerate(self.layers):
            stays, moves = layer.keys.split([first, self.physical_length - first], dim=2)
            layer.keys = torch.cat([stays, stack.shift(index, moves, by)], dim=2)
        moved = torch.arange(len(self.layout), device=self.layout.position.device) >= first
        kind, step, position, label = self.layout.kind, self.layout.step, self.layout.position, self.layout.label
        self.layout = Layout(kind, step, position + by * moved, label)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Where the next query stands among the keys: physical, so that upstream's causal mask is right."""
        return self.physical_length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """For upstream's own masks.

        Raises:
            BackboneError: rows hold different numbers of keys, which a mask made upstream cannot know.
        """
        if self._ragged:
            raise BackboneError(
                "After eviction the rows of this cache are of different length; a 2D mask would hide the wrong keys.",
                "Give the model laconic.core.visibility.attention_mask(model, rule, cache.announce(block), queries).",
            )
        return super().get_mask_sizes(query_length, layer_idx)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` columns."""
        super().crop(tokens_to_remove)
        self._change_layout(lambda field: field[:, : self.physical_length])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._change_layout(lambda field: field[beam_idx.to(field.device)])

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._change_layout(lambda field: field[indices.to(field.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._change_layout(lambda field: field.repeat_interleave(repeats, dim=0))

    def reset(self) -> None:
        super().reset()
        self.layout = None
        self._ragged = False

    def _change_layout(self, change: Any) -> None:
        if self.layout is not None:
            self.layout = self.layout.map(change)
