"""Stopping a pass where nobody reads on: of a text only keys and values are wanted, and its last states are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer


class _AllKept(Exception):
    """The last layer's keys and values are there."""


class LastLayer(DynamicLayer):
    """Of the last layer; within ``keys_alone`` it ends the pass as soon as it has its keys and values."""

    stopping = False

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        kept = super().update(key_states, value_states, *args, **kwargs)
        if self.stopping:
            raise _AllKept
        return kept


def cache_for(layers: int) -> Cache:
    """An empty cache for so many layers, whose passes can be stopped."""
    return Cache(layers=[*(DynamicLayer() for _ in range(layers - 1)), LastLayer()])


@contextmanager
def keys_alone(cache: Cache) -> Iterator[None]:
    """A pass within fills the cache and goes no further: without the last layer's attention and feed-forward part."""
    last = cache.layers[-1]
    assert isinstance(last, LastLayer)
    last.stopping = True
    try:
        yield
    except _AllKept:
        pass
    finally:
        last.stopping = False
