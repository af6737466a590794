"""The faster ways through the cells compute what the plain one computes."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from comets import comet, words
from torch import Tensor

from laconic.methods.comet import wavefront
from laconic.methods.comet.cells import Cell
from laconic.methods.comet.memory import Memory
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.stream import ChunkStream, whole_chunks


def assert_equal(one: Memory, other: Memory) -> None:
    assert one.counts.shape == other.counts.shape
    assert torch.equal(one.counts.tokens, other.counts.tokens)
    for mine, theirs in zip(one.layers, other.layers, strict=True):
        torch.testing.assert_close(mine.slots, theirs.slots, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mine.queue, theirs.queue, atol=1e-4, rtol=1e-4)


def read(made: CoMeT, rows: list[Tensor], workers: int | None = 1) -> tuple[Tensor, Memory]:
    stream = ChunkStream(made, batch=len(rows), workers=workers)
    logits = stream.feed(rows)
    return logits, stream.memory


@pytest.mark.parametrize("workers", [2, 3, 9])
@pytest.mark.parametrize(("arch", "depth"), [("llama", 1), ("gemma3", 1), ("llama", 2)])
def test_side_by_side_equals_one_after_the_other(arch: str, depth: int, workers: int) -> None:
    made, rows = comet(arch, global_depth=depth), [words(100, 1), words(37, 2), words(12, 3)]
    before = torch.get_num_threads()
    expected, memory = read(made, rows)
    logits, side = read(made, rows, workers)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert_equal(side, memory)
    assert torch.get_num_threads() == before


def test_two_chunks_are_read_side_by_side_where_that_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way: list[int] = []

    def noted(comet: CoMeT, parts: Any, memory: Memory, workers: int) -> Memory:
        under_way.append(workers)
        return wavefront.read_wavefront(comet, parts, memory, workers)

    monkeypatch.setattr("laconic.methods.comet.stream.read_wavefront", noted)
    made, text = comet(), words(100)
    expected = read(made, [text], workers=1)
    before = torch.get_num_threads()
    try:
        for threads, tokens, side in ((1, 100, []), (3, 100, []), (2, 25, [2]), (2, 24, []), (2, 100, [2])):
            torch.set_num_threads(threads)
            under_way.clear()
            found = read(made, [text[:tokens]], workers=None)
            assert under_way == side, (threads, tokens)
        read(made, [text, text], workers=None)
        assert under_way == [2], "rows keep threads busy by themselves"
        monkeypatch.setattr(CoMeT, "compiled", True)
        read(made, [text], workers=None)
        assert under_way == [2], "what was compiled is used"
        monkeypatch.undo()
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0], expected[0], atol=1e-4, rtol=1e-4)
    assert_equal(found[1], expected[1])


def test_an_error_in_one_chunk_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks behind it wait for it; they must not wait for ever."""
    made, real, calls = comet(), Cell.forward, []

    def fails(self: Cell, *args: Any) -> Any:
        calls.append(threading.get_ident())
        if len(calls) == 5:
            raise MemoryError("no room")
        return real(self, *args)

    monkeypatch.setattr(Cell, "forward", fails)
    with pytest.raises(MemoryError, match="no room"):
        read(made, [words(100)], workers=3)


def test_the_last_chunk_stays_open() -> None:
    rows = [torch.arange(25), torch.arange(24), torch.arange(0)]
    parts = list(whole_chunks(rows, 12, ends=True))
    assert [[len(row) for row in ids] for ids, _ in parts] == [[12, 12, 0], [12, 0, 0]]
    assert [closes for _, closes in parts] == [[True, True, False], [True, False, False]]
    assert torch.cat([ids[0] for ids, _ in parts]).tolist() == list(range(24))
    more = [closes for _, closes in whole_chunks(rows, 12, ends=False)]
    assert more == [[True, True, False], [True, True, False]], "of a text that goes on, no full chunk stays open"


@pytest.mark.parametrize("portion", [5, 12, 24, 30])
def test_reading_on_is_feeding(portion: int) -> None:
    """What more will follow is closed at once, which changes no number."""
    made, rows = comet(), [words(100, 1), words(77, 2)]
    expected, memory = read(made, rows)
    stream = ChunkStream(made, batch=2)
    for parts in zip(rows[0][:60].split(portion), rows[1][:60].split(portion), strict=True):
        stream.read(parts)
        assert max(stream.open) < 12
    stream.read([rows[0][60:60], rows[1][60:70]])
    logits = stream.feed([rows[0][60:], rows[1][70:]])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert_equal(stream.memory, memory)


def test_a_thread_casts_as_its_caller_does() -> None:
    made = comet()
    with torch.autocast("cpu", torch.bfloat16):
        expected, memory = read(made, [words(100)])
        logits, side = read(made, [words(100)], workers=3)
    assert torch.equal(logits, expected)
    assert_equal(side, memory)


def test_what_was_prepared_in_inference_mode_is_not_trained_with() -> None:
    made, row = comet(), words(12)
    with torch.inference_mode():
        list(made.chunks([row], [[12]]))
    ((outputs, _),) = made.chunks([row], [[12]])
    made.logits(outputs).sum().backward()


def test_full_chunks_behind_a_full_queue_share_what_is_known_of_them() -> None:
    made, ids = comet(), words(12 * 8)
    memory, frames = made.empty_memory(1), []
    for part in ids.split(12):
        frames.append(made.prepare([12], [True], memory.counts).frame)
        _, memory = made.read_chunk([part], memory, [True])
    assert frames[-1] is frames[-2]
    assert frames[0] is not frames[1]
    other = made.prepare([11], [True], memory.counts)
    assert other.frame is not frames[-1]
    assert int(other.after.tokens) == 12 * 8 + 11


def test_what_is_compiled_reads_full_chunks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [words(100, 1), words(100, 2)]
    expected, memory = read(comet(), rows)
    made, seen = comet(), []

    def compiled(function: Any, **options: Any) -> Any:
        assert options == {"mode": "reduce-overhead", "dynamic": False}

        def run(chunk: Any, hidden: Tensor, layers: Any) -> Any:
            seen.append((chunk.frame, hidden.shape, [[t.shape for t in state] for state in layers]))
            return function(chunk, hidden, layers)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    logits, behind = read(made.compile("reduce-overhead"), rows)
    torch.testing.assert_close(logits, expected)
    assert_equal(behind, memory)
    assert 3 < len(seen) < 8, "not the first chunks, and not the last"
    assert all(frame is seen[0][0] for frame, _, _ in seen)
    assert all(entry[1:] == seen[0][1:] for entry in seen)
    calls = len(seen)
    read(made, rows[:1])
    assert len(seen) == calls, "another batch size is read as before"


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    rows, made = [words(100)], comet()
    expected, memory = read(comet(), rows)
    logits, behind = read(made.compile(), rows)
    made._compiled = torch.compile(made.through, dynamic=False, fullgraph=True)
    read(made, rows)  # fails where the graph breaks
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    assert_equal(behind, memory)


@torch.no_grad()
def test_streams_on_several_threads_keep_apart() -> None:
    """What was prepared for one's last chunk must not be taken for another's."""
    made = comet()
    one, other = ([12, 0], [True, False]), ([5, 12], [True, True])
    stop, wrong = threading.Event(), []

    def prepare(lengths: list[int], closes: list[bool]) -> None:
        while not stop.is_set():
            chunk = made.prepare(lengths, closes, made.empty_memory(2).counts)
            if chunk.text.sum(1).tolist() != lengths:
                wrong.append(lengths)

    class Slow(tuple[Any, ...]):
        """Between asking whether it fits and taking it, the other thread has its turn."""

        def __getitem__(self, place: Any) -> Any:
            time.sleep(1e-4)
            return super().__getitem__(place)

    threads = [threading.Thread(target=prepare, args=case) for case in (one, other)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        last = made._last
        if last is not None:
            made._last = Slow(last)
        time.sleep(2e-3)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


@torch.no_grad()
def test_no_more_chunks_are_under_way_than_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the text: each holds its activations."""
    made, taken, most = comet(), [0, 0], 0
    real = made.prepare
    through = wavefront._through

    def prepare(*args: Any) -> Any:
        nonlocal most
        taken[0] += 1
        most = max(most, taken[0] - taken[1])
        return real(*args)

    def done(*args: Any) -> None:
        time.sleep(0.01)
        through(*args)
        taken[1] += 1

    monkeypatch.setattr(made, "prepare", prepare)
    monkeypatch.setattr(wavefront, "_through", done)
    wavefront.read_wavefront(made, whole_chunks([words(12 * 12)], 12, ends=False), made.empty_memory(1), 2)
    assert taken == [12, 12]
    assert most <= 4


def test_what_was_prepared_fits_only_its_like() -> None:
    made = comet()
    memory = made.empty_memory(1)
    for part in words(36).split(12):
        _, memory = made.read_chunk([part], memory, [True])
    first = made.prepare([12], [True], memory.counts)
    assert made.prepare([12], [True], memory.counts).frame is first.frame
    assert int(made.prepare([12], [True], memory.counts, capacity=2).after.live) == 2
    assert made.prepare([12], [True], memory.counts, capacity=2).update.columns.shape[1] == 2
    made.decoder.to(torch.bfloat16)
    turned = made.prepare([12], [True], memory.counts).frame
    assert all(cosine.dtype == torch.bfloat16 for cosine, _ in turned.rotary.values())
    made.decoder.to(torch.float32).set_attn_implementation("eager")
    assert made.prepare([12], [True], memory.counts).frame is not turned
