"""Traces as layouts and who reads whom in them, against tables written out in plain words."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.core.layout import IGNORE, Kind, Layout, batch
from laconic.core.retention import Shortcuts, reaches
from laconic.core.thoughts import Shape, Trace, documents_apart, finished_words_hidden, lay_out, to_come
from laconic.core.visibility import readable_by, visible

END, EOS = 1, 2
SCHEMES = ("sequential", "uniform")


def trace(prompt: int, lengths: list[int], end: int | None = EOS) -> Trace:
    """Words numbered from 100, the last of every step its end."""
    number = iter(range(100, 1000))
    steps = [[next(number) for _ in range(length - 1)] + [END] for length in lengths]
    return Trace([50 + place for place in range(prompt)], steps, end)


def shape(count: int = 2, scheme: str = "sequential") -> Shape:
    return Shape(END, lambda words: count, scheme)  # type: ignore[arg-type]


def adaptive(scheme: str) -> Shape:
    return Shape(END, lambda words: min(-(-words // 3), 4), scheme)  # type: ignore[arg-type]


def row_of(layout: Layout) -> Layout:
    return layout.map(lambda field: field[None])


# --- who reads whom -------------------------------------------------------------------------------------------------


def may_read(q: tuple[int, int], k: tuple[int, int], retained: set[int], horizon: int, same: bool) -> bool:
    """Section 3 of HybridThinker's specification, word for word; (kind, step) of a query and an earlier key."""
    if k[0] == Kind.FORESIGHT:
        return same
    if k[0] != Kind.TEXT:
        return True
    s = k[1]
    if s not in retained:
        return q[0] in (Kind.TEXT, Kind.MEMORY, Kind.FORESIGHT) and q[1] == s
    if q[0] in (Kind.TEXT, Kind.MEMORY, Kind.FORESIGHT):
        return s <= q[1] <= s + horizon
    return q[0] == Kind.CONTINUE and s <= q[1] <= s + horizon - 1


@pytest.mark.parametrize("horizon", range(5))
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_the_mask_is_the_specification(steps: int, horizon: int) -> None:
    lengths = [2, 1, 3, 2, 1, 2][:steps]
    layout, _ = lay_out(trace(2, lengths), shape(), offset=1)
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(1, steps + 1), n) for n in range(4)):
        reach = torch.tensor([[0] + [horizon * (step in chosen) for step in range(1, steps + 1)]])
        seen = visible(finished_words_hidden(reach), row_of(layout))[0]
        tokens = list(zip(layout.kind.tolist(), layout.step.tolist(), strict=True))
        for q, k in itertools.product(range(len(tokens)), repeat=2):
            wanted = k <= q and (k == q or may_read(tokens[q], tokens[k], set(chosen), horizon, k == q))
            assert bool(seen[q, k]) == wanted, (chosen, q, k)


def test_no_shortcut_is_the_bottleneck_and_all_of_them_far_enough_hide_nothing() -> None:
    layout, _ = lay_out(trace(3, [2, 4, 1, 3]), shape())
    rows = row_of(layout)
    none = visible(finished_words_hidden(torch.zeros(1, 5, dtype=torch.long)), rows)
    assert torch.equal(none, visible(finished_words_hidden(0), rows))
    assert torch.equal(visible(finished_words_hidden(4), rows)[0], torch.ones(len(layout), len(layout)).tril().bool())


def test_a_gap_lets_a_step_read_one_far_one_alone() -> None:
    layout, _ = lay_out(trace(1, [2, 2, 2, 2, 2]), shape())
    seen = visible(finished_words_hidden(3, gap=True), row_of(layout))[0]
    words = layout.kind == Kind.TEXT
    for step, read in {4: [1, 4], 5: [2, 5], 3: [3]}.items():
        first = int((words & (layout.step == step)).nonzero()[1])  # its second word
        assert sorted(set(layout.step[seen[first] & words].tolist())) == read


def test_sequences_in_one_row_do_not_see_each_other() -> None:
    layout, _ = lay_out(trace(2, [2, 3]), shape())
    twice = batch([layout], "right").map(lambda field: torch.cat([field, field], 1))
    document = torch.arange(2).repeat_interleave(len(layout))[None]
    seen = visible(documents_apart(finished_words_hidden(1), document), twice)[0]
    alone = visible(finished_words_hidden(1), row_of(layout))[0]
    size = len(layout)
    assert torch.equal(seen[:size, :size], alone)
    assert torch.equal(seen[size:, size:], alone)
    assert not seen[size:, :size].any()


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("horizon", range(4))
def test_what_is_evicted_is_never_read_again(horizon: int, gap: bool) -> None:
    """Whatever nobody of ``to_come`` reads behind a step, no later token reads in the whole sequence."""
    layout, _ = lay_out(trace(2, [2, 3, 1, 2, 2, 4]), shape())
    rule = finished_words_hidden(horizon, gap)
    seen = visible(rule, row_of(layout))[0]
    for step in range(1, 6):
        until = int(((layout.kind == Kind.CONTINUE) & (layout.step == step)).nonzero()) + 1
        past = row_of(layout.map(lambda field, until=until: field[:until]))
        kept = readable_by(rule, row_of(to_come(step + 1, horizon)), past)[0]
        assert torch.equal(kept, kept | seen[until:, :until].any(0))
        if not gap:  # and nothing is kept for nobody, but by the last steps of this trace
            words = (past.kind[0] == Kind.TEXT) & kept
            assert sorted(set(past.step[0][words].tolist())) == [s for s in range(1, step + 1) if s > step - horizon]


# --- labels and positions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@given(prompt=st.integers(1, 4), lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_positions_labels_and_numbers(scheme: str, prompt: int, lengths: list[int]) -> None:
    given = trace(prompt, lengths)
    made = adaptive(scheme)
    layout, ids = lay_out(given, made)
    kind, step, position, label = [], [], [], []
    numbers: list[int] = []

    def add(what: int, number: int, at: int, ident: int) -> None:
        kind.append(what), step.append(number), position.append(at), numbers.append(ident), label.append(IGNORE)

    for place, word in enumerate(given.prompt):
        add(Kind.PROMPT, 0, place, word)
    start = prompt
    for number, words in enumerate(given.steps, 1):
        for place, word in enumerate(words):
            label[-1] = word  # said by the last of the prompt, the word before, or the restart token
            add(Kind.TEXT, number, start + place, word)
        count, size = made.memory(len(words)), len(words)
        for k in range(count):
            between = start + int((k + 0.5) * size / count)
            add(Kind.MEMORY, number, between if scheme == "uniform" else start + size + k, k)
        after = start + size + (0 if scheme == "uniform" else count)
        add(Kind.CONTINUE, number, after, 0)
        start = after + 1
    label[-1] = EOS
    assert layout.kind.tolist() == kind
    assert layout.step.tolist() == step
    assert layout.position.tolist() == position
    assert ids.tolist() == numbers
    assert layout.label.tolist() == label
    assert int((layout.label != IGNORE).sum()) == sum(lengths) + 1


@pytest.mark.parametrize("offset", range(4))
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_foresight_tokens_stand_before_every_word_and_guess_inside_its_step(offset: int, lengths: list[int]) -> None:
    given = trace(2, lengths)
    plain, plain_ids = lay_out(given, adaptive("uniform"))
    layout, ids = lay_out(given, adaptive("uniform"), offset)
    ahead = layout.kind == Kind.FORESIGHT
    assert torch.equal(ids[~ahead], plain_ids)
    assert torch.equal(layout.position[~ahead], plain.position)
    assert torch.equal(layout.label[~ahead], plain.label)
    found = iter(ahead.nonzero()[:, 0].tolist())
    for number, words in enumerate(given.steps, 1):
        for place, word in enumerate(words):
            at = next(found)
            assert int(ids[at + 1]) == word  # the word it stands before
            start = int(layout.position[at + 1]) - place
            assert int(layout.step[at]) == number
            assert int(layout.position[at]) == start + min(place + offset - 1, len(words) - 1)
            target = words[place + offset] if place + offset < len(words) else IGNORE
            assert int(layout.label[at]) == target
    assert next(found, None) is None
    assert int((layout.label[ahead] != IGNORE).sum()) == sum(max(0, n - offset) for n in lengths)


def test_a_trace_that_was_cut_off_has_an_open_step_and_no_end() -> None:
    layout, ids = lay_out(Trace([5, 6], [[10, END], [11, 12]], None), shape())
    assert layout.kind.tolist() == [1, 1, 2, 2, 3, 3, 4, 2, 2]
    assert layout.label.tolist() == [IGNORE, 10, END, IGNORE, IGNORE, IGNORE, 11, 12, IGNORE]
    assert ids.tolist() == [5, 6, 10, END, 0, 1, 0, 11, 12]


def test_without_memory_a_step_end_says_the_next_step() -> None:
    layout, _ = lay_out(trace(1, [2, 2]), shape(0))
    assert layout.kind.tolist() == [1, 2, 2, 2, 2]
    assert layout.label.tolist() == [100, END, 101, END, EOS]
    assert layout.position.tolist() == [0, 1, 2, 3, 4]


# --- shortcuts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "horizon", "count"), [(8, 3, 2), (4, 3, 2), (3, 3, 2), (2, 3, 2), (6, 2, 9)])
def test_shortcuts_are_drawn_evenly_among_steps_with_successors_enough(steps: int, horizon: int, count: int) -> None:
    draw = random.Random(0)
    chosen: Counter[int] = Counter()
    for _ in range(2000):
        reach = reaches(steps, horizon, count, "sampled", draw)
        assert len(reach) == steps
        assert set(reach) <= {0, horizon}
        assert sum(map(bool, reach)) == min(count, max(0, steps - horizon))
        chosen.update(step for step, far in enumerate(reach) if far)
    eligible = max(0, steps - horizon)
    assert set(chosen) == set(range(eligible))
    for times in chosen.values():
        assert abs(times / 2000 - min(count, eligible) / eligible) < 0.05


def test_the_same_seed_draws_the_same_shortcuts_and_another_one_others() -> None:
    drawn = [[reaches(12, 2, 2, "sampled", random.Random(seed)) for seed in seeds] for seeds in ([1, 2, 3], [1, 2, 3])]
    assert drawn[0] == drawn[1]
    assert len({tuple(reach) for reach in drawn[0]}) > 1


def test_ablations_of_shortcuts() -> None:
    def mode(name: Shortcuts, seed: int = 0) -> list[int]:
        return reaches(7, 2, 1, name, random.Random(seed))

    assert mode("all") == mode("gap") == [2] * 7
    for seed in range(20):
        sampled, contiguous = mode("sampled", seed), mode("contiguous", seed)
        first = sampled.index(2)
        assert contiguous == [2 if s == first else 1 if s == first + 1 else 0 for s in range(7)]
    shares = [far > 0 for seed in range(400) for far in mode("dropout", seed)]
    assert abs(sum(shares) / len(shares) - 0.2) < 0.03
