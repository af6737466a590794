"""Interludes: other text between the chunks of a text, most of it written without being read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from comets import comet, words

from laconic.core.layout import IGNORE
from laconic.data.needles import NEEDLES
from laconic.methods.comet.memory import Memory
from laconic.methods.comet.model import CoMeT
from laconic.train.comet import ReadingStage
from laconic.train.examples import Example, Interlude
from laconic.train.interludes import READ, Interrupted, read_over
from laconic.train.reading_examples import NeedleExamples, Shape, token_haystacks

TEXT = " ".join(f"On day {n} the keeper wrote down {n * 7} ships." for n in range(200))


def row(seed: int, **changes: Any) -> Example:
    ids = words(30, seed).tolist()
    return replace(Example(ids, [IGNORE] * 24 + words(6, seed + 50).tolist(), [12, 12, 6]), **changes)


def interlude(chunks: int, seed: int, behind: int = 0) -> Interlude:
    return Interlude([words(12, seed + n).tolist() for n in range(min(chunks, READ))], chunks, behind)


def behind_first(made: CoMeT, batch: list[Example]) -> Memory:
    return next(made.chunks([torch.tensor(r.ids) for r in batch], [r.plan for r in batch]))[1]


def spliced(text: Example) -> Example:
    """The row with what is read of its interlude as a part of its text."""
    assert text.interlude is not None
    at = sum(text.plan[: text.interlude.behind + 1])
    other = [token for chunk in text.interlude.read for token in chunk]
    plan = [*text.plan[: text.interlude.behind + 1], *map(len, text.interlude.read)]
    return Example(
        text.ids[:at] + other + text.ids[at:],
        text.labels[:at] + [IGNORE] * len(other) + text.labels[at:],
        plan + text.plan[text.interlude.behind + 1 :],
    )


@pytest.mark.parametrize("behind", [0, 1])
@pytest.mark.parametrize("fifo_slots", [[0], None])
def test_a_short_interlude_is_as_if_it_were_in_the_text(behind: int, fifo_slots: list[int] | None) -> None:
    made = comet(train="lora")
    batch = [row(seed, interlude=interlude(READ, 10 * seed, behind)) for seed in (1, 2)]
    stage = ReadingStage(made, fifo_slots=fifo_slots)
    got, wanted = stage(batch)[0].item(), stage([spliced(one) for one in batch])[0].item()
    assert got == pytest.approx(wanted, rel=1e-5)
    assert got != pytest.approx(stage([replace(one, interlude=None) for one in batch])[0].item(), rel=1e-4)


def test_a_long_one_is_written_in_turn() -> None:
    """Against the rule of section 2.4, chunk after chunk, with what was read once."""
    made = comet()
    batch = [row(1, interlude=interlude(2 * READ + 1, 10)), row(2), row(3, interlude=interlude(2 * READ + 1, 30))]
    with torch.no_grad():
        before = behind_first(made, batch)
        after = read_over(made, batch, None, 0, before)
        # what each chunk would write, by switching the gates off
        candidates, seen = [], before
        for number in range(READ):
            ids = [torch.tensor(r.interlude.read[number] if r.interlude else []).long() for r in batch]
            gates = [nets.gate for nets in made.memories]
            for nets in made.memories:
                nets.gate = None
            candidates.append(made.read_chunk(ids, seen, [True, False, True])[1])
            for nets, gate in zip(made.memories, gates, strict=True):
                nets.gate = gate
            _, seen = made.read_chunk(ids, seen, [True, False, True])
        for layer, nets in enumerate(made.memories):
            slots = before.layers[layer].slots
            for time in range(2 * READ + 1):
                new = candidates[time % READ].layers[layer].slots
                kept = torch.sigmoid(nets.gate(torch.cat([new, slots], dim=-1)))
                slots = kept * slots + (1 - kept) * new
            got = after.layers[layer].slots
            assert torch.allclose(got[[0, 2]], slots[[0, 2]], atol=1e-5)
            assert torch.equal(got[1], before.layers[layer].slots[1]), "this row has no interlude"
            queue, live = after.layers[layer].queue, int(after.counts.live[1])
            assert torch.equal(queue[[0, 2]], seen.layers[layer].queue[[0, 2]])
            assert torch.equal(queue[1, -live:], before.layers[layer].queue[1, -live:])
    assert after.counts.shape == seen.counts.shape


def test_the_gradient_goes_through_what_the_memory_keeps_alone() -> None:
    made = comet(train="lora")
    text = row(1, interlude=interlude(20, 10))
    with torch.no_grad():
        before = behind_first(made, [text])
    cut = Memory(tuple(s._replace(slots=s.slots.clone().requires_grad_()) for s in before.layers), before.counts)
    after = read_over(made, [text], None, 0, cut)
    sum(state.slots.sum() for state in after.layers).backward()
    for state, nets in zip(cut.layers, made.memories, strict=True):
        assert state.slots.grad.abs().min() > 0
        assert nets.gate.weight.grad.abs().max() > 0
        assert all(p.grad is None for p in nets.queue_adapter.parameters())
    assert all(p.grad is None for p in made.decoder.parameters())
    assert made.readouts.weight.grad is None
    assert not any(nets.global_norm._forward_pre_hooks for nets in made.memories)


@pytest.mark.parametrize("others", [1, 3])
def test_a_row_without_one_keeps_its_queue_and_the_gradient_through_it(others: int) -> None:
    """Beside a row that reads, as alone; behind one chunk the queue is not full, behind three it is."""
    made = comet(train="lora", global_slots=0)
    short = replace(row(1), ids=row(1).ids[:24], labels=row(1).labels[:24], plan=[12, 12])
    text = row(2, interlude=interlude(others, 10))
    found = []
    for batch in ([short], [short, text]):
        made.zero_grad()
        before = behind_first(made, batch)
        after = read_over(made, batch, None, 0, before)
        live = int(before.counts.live[0])
        queues = [state.queue[0, -live:] for state in after.layers]
        sum((queue**2).sum() for queue in queues).backward()
        assert made.compression.weight.grad is not None
        found.append([*queues, made.compression.weight.grad.clone()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_queue_alone_takes_in_what_is_read() -> None:
    made = comet(global_slots=0)
    text = row(1, interlude=interlude(9, 10))
    before = behind_first(made, [text])
    after, wanted = read_over(made, [text], None, 0, before), before
    for ids in text.interlude.read:
        _, wanted = made.read_chunk([torch.tensor(ids)], wanted, [True])
    assert all(torch.equal(a.queue, b.queue) for a, b in zip(after.layers, wanted.layers, strict=True))


def test_what_is_asked_aside_there_is_asked_behind_it() -> None:
    made, asked = comet(train="lora"), words(9, 5).tolist()
    aside = Example(asked[:-1], [IGNORE] * 3 + asked[4:], [8])
    text = row(1, interlude=interlude(READ, 10), asides={0: aside})
    whole = replace(spliced(text), asides={READ: aside})  # behind the last chunk of what is read
    stage = ReadingStage(made)
    assert stage([text])[0].item() == pytest.approx(stage([whole])[0].item(), rel=1e-5)
    before = replace(spliced(text), asides={0: aside})
    assert stage([text])[0].item() != pytest.approx(stage([before])[0].item(), rel=1e-5)


def test_nothing_happens_elsewhere() -> None:
    made, batch = comet(), [row(1, interlude=interlude(4, 10, behind=1))]
    before = behind_first(made, batch)
    assert read_over(made, batch, None, 0, before) is before
    assert read_over(made, [row(2)], None, 1, before) is before


def test_texts_are_the_same_with_interludes_or_without() -> None:
    backbone = comet(chunk_tokens=48).backbone
    books = token_haystacks(backbone, [TEXT])
    shape = Shape(chunk_tokens=48, chunks=[1, 2, 3], plans=["fixed"], questions=2, rows=3, seed=0)
    plain = NeedleExamples(backbone, books, [NEEDLES["number"]], 1, shape)
    drawn = Interrupted(plain, books, [0, 2, 40], 48, 0)
    lengths, places = set(), set()
    for index in range(30):
        rows = drawn(index)
        assert rows == drawn(index), "a step's batch follows from its number"
        assert [replace(one, interlude=None) for one in rows] == plain(index)
        made = [one.interlude for one in rows if one.interlude]
        lengths |= {one.chunks for one in made} or {0}
        places |= {(one.behind, len(text.plan)) for one, text in zip(made, rows, strict=False)}
        assert len({(one.chunks, one.behind) for one in made}) <= 1, "one length and one place a step"
        for one in made:
            assert [len(chunk) for chunk in one.read] == [48] * min(one.chunks, READ)
            assert one.read[0] != one.read[1]
        for text in rows:
            assert text.interlude is None or text.interlude.behind < len(text.plan) - 1, "something is read behind it"
    assert lengths == {0, 2, 40}
    assert {behind for behind, _ in places} >= {0, 1, 2}


def test_a_row_of_one_chunk_has_none() -> None:
    books = token_haystacks(comet().backbone, [TEXT])
    drawn = Interrupted(lambda index: [Example([1] * 9, [2] * 9, [9]), row(1)], books, [4], 12, 0)
    for index in range(6):
        short, long = drawn(index)
        assert short.interlude is None
        assert long.interlude is not None
