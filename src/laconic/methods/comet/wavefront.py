"""Chunks side by side: layer i of one chunk while layer i - 1 of the next is computed.

A chunk follows its neighbour through the layers one behind it, each on a thread of its own. What is computed is what
one chunk after the other computes; on a CPU it keeps the cores busy that small matrices leave idle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from laconic.core.modes import autocast_here
from laconic.methods.comet.cells import Chunk
from laconic.methods.comet.memory import LayerState, Memory
from laconic.methods.comet.model import CoMeT

#: each row's tokens of a chunk, and which rows take it in
Part = tuple[Sequence[Tensor], Sequence[bool]]


@torch.no_grad()
def read_wavefront(comet: CoMeT, parts: Iterable[Part], memory: Memory, workers: int) -> Memory:
    """Read chunks that only the memory is wanted of.

    Args:
        workers: chunks that are under way at a time; they share torch's threads.
    """
    counts, cast = memory.counts, autocast_here(comet.backbone.device)
    states = [_settled(state) for state in memory.layers]
    running: deque[Future[None]] = deque()
    share = max(1, torch.get_num_threads() // workers)
    # a thread that is new does not take over how many threads torch may use
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,))
    with _threads(share), pool:
        for ids, closes in parts:
            chunk = comet.prepare([len(row) for row in ids], closes, counts)
            after: list[Future[LayerState]] = [Future() for _ in states]
            running.append(pool.submit(_through, comet, chunk, ids, states, after, cast))
            counts, states = chunk.after, after
            if len(running) > workers:
                running.popleft().result()
        for work in running:
            work.result()
    return Memory(tuple(state.result() for state in states), counts)


def _through(
    comet: CoMeT,
    chunk: Chunk,
    ids: Sequence[Tensor],
    before: Sequence[Future[LayerState]],
    after: Sequence[Future[LayerState]],
    cast: Callable[[], torch.autocast],
) -> None:
    try:
        with torch.no_grad(), cast():
            hidden = comet.embedded(ids, chunk.frame.layout)
            for cell, known, learnt in zip(comet.cells, before, after, strict=True):
                hidden, *state = cell(chunk, hidden, *known.result())
                learnt.set_result(LayerState(*state))
    except BaseException as error:
        for learnt in after:  # the chunks behind wait for these
            if not learnt.done():
                learnt.set_exception(error)
        raise


def _settled(state: LayerState) -> Future[LayerState]:
    future: Future[LayerState] = Future()
    future.set_result(state)
    return future


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
