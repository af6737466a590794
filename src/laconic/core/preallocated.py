"""A key/value cache that has its room from the start.

Upstream's dynamic layers copy all they hold for every piece of prompt and every new token, and scatter the heap with
what they leave behind. Here a layer writes into room taken once; on a CPU, room that is not yet written costs nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor
from transformers import Cache, PretrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer

from laconic.core.compat import drop_keys


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, [B, N, K, H]: views of room for ``tokens`` columns, and for more when they come.

    For inference: it writes in place, so a view handed out before a ``crop`` changes when the layer goes on.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, tokens: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tokens = tokens
        self._room: dict[str, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        self.keys = self._append("keys", self.keys, key_states, held)
        self.values = self._append("values", self.values, value_states, held)
        return self.keys, self.values

    def _append(self, name: str, old: Tensor, new: Tensor, held: int) -> Tensor:
        needed = held + new.shape[-2]
        room = self._room.get(name)
        if room is None or room.shape[-2] < needed or not _is_view(old, room, new):
            grown = max(self.tokens, needed if room is None else needed + needed // 4)
            room = self._room[name] = new.new_empty(*new.shape[:-2], grown, new.shape[-1])
            if held:
                room[..., :held, :] = old
        room[..., held:needed, :] = new
        return room[..., :needed, :]

    def reset(self) -> None:
        drop_keys(self)
        super().reset()
        self._room = {}


def _is_view(old: Tensor, room: Tensor, new: Tensor) -> bool:
    """Whether ``room`` still holds what was cached: rows that were selected, repeated or reordered lie elsewhere."""
    empty = not old.numel()  # then only the shape must suit those who come
    return room.shape[:-2] == new.shape[:-2] and (empty or room.data_ptr() == old.data_ptr())


def preallocated_cache(tokens: int, config: PretrainedConfig | None = None) -> Cache:
    """A cache with room for so many tokens.

    Args:
        config: of the model; layers with a sliding window then keep no more than it. None keeps every key, so that the
            cache can be cropped anywhere.
    """
    if config is None:
        return Cache(layer_class_to_replicate=partial(PreallocatedLayer, tokens))
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer(tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
