"""Reading and writing in portions is reading at once: CoMeT's invariants 5 and 13, rollover and batches included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comets import ROTARY, comet, outputs, words
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from laconic.errors import LaconicError
from laconic.methods.comet.files import SavedMemory, Source, save_memory
from laconic.methods.comet.memory import Memory
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.stream import ChunkStream


def full_chunks(length: int, size: int = 12) -> list[int]:
    """What a stream makes of a text: full chunks, and the rest (which may be full as well)."""
    return [size] * ((length - 1) // size) + [(length - 1) % size + 1]


def assert_same(a: Memory, b: Memory, row: int = 0, other: int = 0) -> None:
    assert int(a.counts.live[row]) == int(b.counts.live[other])
    assert int(a.counts.chunks[row]) == int(b.counts.chunks[other])
    assert int(a.counts.tokens[row]) == int(b.counts.tokens[other])
    live = int(a.counts.live[row])
    for one, two in zip(a.layers, b.layers, strict=True):
        torch.testing.assert_close(one.slots[row], two.slots[other], atol=5e-5, rtol=1e-4)
        if live:
            torch.testing.assert_close(one.queue[row, -live:], two.queue[other, -live:], atol=5e-5, rtol=1e-4)


def step_by_step(made: CoMeT, ids: Tensor) -> tuple[Tensor, Memory]:
    stream = ChunkStream(made)
    logits = torch.cat([stream.feed([token[None]]) for token in ids])
    return logits, stream.memory


@pytest.mark.parametrize("arch", ROTARY)
@torch.no_grad()
def test_token_by_token_equals_chunk_by_chunk(arch: str) -> None:
    """Every logit, over three rollovers; the chunk behind them has no trailing compression token yet."""
    made, ids = comet(arch), words(41)
    (expected,), memories = outputs(made, [ids], [full_chunks(41)])
    got, memory = step_by_step(made, ids)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert_same(memory, memories[-1])


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"global_slots": 0},
        {"global_depth": 3},
        {"stride": 0, "fifo_slots": 0},
        {"stride": 12},
        {"stride": 5},
        {"gate": False},
    ],
)
def test_variants_token_by_token(changes: dict[str, object]) -> None:
    made, ids = comet(**changes), words(41)
    (expected,), memories = outputs(made, [ids], [full_chunks(41)])
    got, memory = step_by_step(made, ids)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert_same(memory, memories[-1])


@torch.no_grad()
def test_what_is_held_counts_all_states_of_a_slot() -> None:
    stream = ChunkStream(comet(global_depth=4), batch=2)
    stream.feed([words(41), words(7)])
    assert stream.held == [3 * 4 + 5 + 5, 7], "a row that has read no chunk has no slots"


@given(st.integers(1, 60), st.data())
def test_any_portions_of_any_rows(length: int, data: st.DataObject) -> None:
    """Two rows of different length in random portions: each has the logits and the memory of the row alone."""
    made = comet()
    other = data.draw(st.integers(1, 60))
    rows = [words(length), words(other, seed=4)]
    stream = ChunkStream(made, batch=2)
    done = [0, 0]
    while done != [length, other]:
        portion = [data.draw(st.integers(0, 30)) for _ in rows]
        if not any(portion):
            portion = [1, 1]
        logits = stream.feed([row[at : at + n] for row, at, n in zip(rows, done, portion, strict=True)])
        done = [min(len(row), at + n) for row, at, n in zip(rows, done, portion, strict=True)]
    for number, row in enumerate(rows):
        (expected,), memories = outputs(made, [row], [full_chunks(len(row))])
        torch.testing.assert_close(logits[number], expected[-1], atol=1e-4, rtol=1e-4)
        assert_same(stream.memory, memories[-1], number)


@torch.no_grad()
def test_a_stream_goes_on_from_a_memory() -> None:
    made, ids = comet(), words(30)
    first = ChunkStream(made)
    first.feed([ids[:24]])
    memory = first.close()
    assert first.open == [0]
    assert int(memory.counts.tokens) == 24
    second = ChunkStream(made, memory)
    got = second.feed([ids[24:]])
    (expected,), _ = outputs(made, [ids], [[12, 12, 6]])
    torch.testing.assert_close(got[0], expected[-1], atol=1e-4, rtol=1e-4)
    assert first.close() is memory, "nothing is open, nothing changes"


@torch.no_grad()
def test_closing_early_is_a_short_chunk() -> None:
    made, ids = comet(), words(19)
    stream = ChunkStream(made)
    stream.feed([ids[:5]])
    stream.feed([ids[5:7]])
    stream.close()
    got = stream.feed([ids[7:]])
    (expected,), _ = outputs(made, [ids], [[7, 12]])
    torch.testing.assert_close(got[0], expected[-1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_fork_goes_its_own_way() -> None:
    made, ids, other = comet(), words(30), words(20, seed=8)
    stream = ChunkStream(made)
    stream.feed([ids[:17]])
    fork = stream.fork()
    forked = fork.feed([other])
    got = stream.feed([ids[17:]])
    (expected,), _ = outputs(made, [ids], [full_chunks(30)])
    torch.testing.assert_close(got[0], expected[-1], atol=1e-4, rtol=1e-4)
    (expected,), _ = outputs(made, [torch.cat([ids[:17], other])], [full_chunks(37)])
    torch.testing.assert_close(forked[0], expected[-1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_rows_out_of_step_hold_no_more() -> None:
    """Invariant 7 in a batch: some row is always within a chunk, and what the others closed is let go of."""
    made = comet()
    stream = ChunkStream(made, batch=2)
    stream.feed([words(5), words(5)[:0]])
    held = []
    for token in words(12 * 20):
        stream.feed([token[None]] * 2)
        held.append((stream.nbytes, stream.cache_tokens, sum(real.shape[1] for real in stream._real)))
    assert tuple(map(max, zip(*held[12 * 3 :], strict=True))) <= tuple(map(max, zip(*held[12 : 12 * 3], strict=True)))


@torch.no_grad()
def test_what_is_held_stays_constant() -> None:
    """Invariant 7: neither the memory nor the cache of the open chunk grows with what was read or written."""
    made = comet()
    stream = ChunkStream(made)
    held = []
    for token in words(12 * 20):
        stream.feed([token[None]])
        held.append((stream.memory.nbytes, stream.cache_tokens))
    assert max(held[12 * 3 :]) <= max(held[12 * 2 : 12 * 3])
    assert stream.cache_tokens == 3 + 5 + 12 + 2, "slots, queue, text, compression tokens between"


@pytest.mark.parametrize("when", [0, 1, 2])
@torch.no_grad()
def test_a_stream_that_broke_off_says_so(monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    """Fed again, it would have its memory twice in front of the chunk, and answer from that."""
    made = comet()
    stream = ChunkStream(made)
    stream.feed([words(24)])
    stream.close()
    before, calls, real = stream.fork(), [], made.stack.run

    def interrupted(*args: Any, **kwargs: Any) -> torch.Tensor:
        if len(calls) == when:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(made.stack, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.feed([words(5, 3)])
    monkeypatch.undo()
    for use in (stream.feed, stream.read, stream.fork().feed):
        with pytest.raises(LaconicError, match="halfway"):
            use([words(5, 3)])
    with pytest.raises(LaconicError, match="halfway"):
        stream.close()
    with pytest.raises(LaconicError, match="halfway"):
        save_memory("never.memory", SavedMemory(stream, [Source("a", "b", 1, 1)]))
    again = ChunkStream(made)
    again.feed([words(24)])
    again.close()
    assert torch.equal(before.feed([words(5, 3)]), again.feed([words(5, 3)]))


@torch.no_grad()
def test_an_interrupt_between_chunks_leaves_no_memory_to_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No chunk is open then, and what the memory has is a part of what was fed."""
    made, calls = comet(), []
    stream, real = ChunkStream(made), made.read_chunk

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(made, "read_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.feed([words(60)])
    assert not any(stream.open)
    with pytest.raises(LaconicError, match="halfway"):
        stream.close()


@pytest.mark.parametrize(
    "rows",
    [[], [words(3), words(3)], [torch.tensor([1.5])], [torch.tensor([-1])], [torch.tensor([10**6])], [words(4)[None]]],
)
def test_what_is_fed_are_token_ids_of_each_row(rows: list[torch.Tensor]) -> None:
    stream = ChunkStream(comet())
    for use in (stream.feed, stream.read):
        with pytest.raises(LaconicError, match="fed"):
            use(rows)
    assert not stream.interrupted
    assert stream.feed([words(3)]).isfinite().all(), "it is none the worse for it"


@torch.no_grad()
def test_what_was_not_computed_is_no_number() -> None:
    """Of chunks that are closed at once nothing but the memory is kept."""
    stream = ChunkStream(comet(), batch=2)
    stream.read([words(24), words(5)])
    logits = stream.feed([words(0), words(1)])
    assert bool(logits[0].isnan().all())
    assert bool(logits[1].isfinite().all())
    assert bool(stream.feed([words(1), words(0)]).isfinite().all())


@torch.no_grad()
def test_a_row_that_was_closed_early_may_wait() -> None:
    stream = ChunkStream(comet(), batch=2)
    before = stream.feed([words(24, 1), words(30, 2)])
    stream.close([True, False])
    after = stream.feed([words(0), words(3)])
    assert torch.equal(after[0], before[0])


@torch.no_grad()
def test_nothing_fed_at_all_has_the_decoders_dtype() -> None:
    made = comet()
    made.decoder.to(torch.bfloat16)
    assert ChunkStream(made).feed([words(0)]).dtype == torch.bfloat16
