"""Layouts: concatenating, padding and batching change nothing but what they say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.core.layout import IGNORE, Kind, Layout, Side, batch, concatenate, pad, run

FIELDS = ("kind", "step", "position", "label")
PADDING = {"kind": Kind.PAD, "step": 0, "position": 0, "label": IGNORE}

tokens = st.tuples(
    st.integers(Kind.PROMPT, Kind.FORESIGHT), st.integers(0, 9), st.integers(0, 99), st.integers(-100, 99)
)
sequences = st.lists(tokens, max_size=12)
sides = st.sampled_from(["left", "right"])


def build(sequence: list[tuple[int, int, int, int]]) -> Layout:
    return Layout(*(torch.tensor([token[i] for token in sequence], dtype=torch.long) for i in range(4)))


def read(layout: Layout) -> list[tuple[int, ...]]:
    return list(zip(*(getattr(layout, field).tolist() for field in FIELDS), strict=True))


def plain(sequence: list[tuple[int, int, int, int]]) -> list[tuple[int, ...]]:
    return [tuple(int(value) for value in token) for token in sequence]


@given(st.lists(sequences, min_size=1, max_size=4))
def test_concatenate_keeps_every_token_in_order(parts: list[list[tuple[int, int, int, int]]]) -> None:
    joined = concatenate([build(part) for part in parts])
    assert read(joined) == [token for part in parts for token in plain(part)]


@given(st.lists(sequences, min_size=1, max_size=4), sides)
def test_batch_pads_on_the_side_asked_for(rows: list[list[tuple[int, int, int, int]]], side: Side) -> None:
    stacked = batch([build(row) for row in rows], side)
    longest = max(len(row) for row in rows)
    assert len(stacked) == longest
    filler = tuple(PADDING[field] for field in FIELDS)
    for index, row in enumerate(rows):
        missing = [filler] * (longest - len(row))
        expected = missing + plain(row) if side == "left" else plain(row) + missing
        assert read(stacked.map(lambda field, index=index: field[index])) == expected
        assert int(stacked.real[index].sum()) == len(row)


@given(st.lists(sequences, min_size=1, max_size=3), st.lists(sequences, min_size=1, max_size=3))
def test_batches_concatenate_row_by_row(
    first: list[list[tuple[int, int, int, int]]], second: list[list[tuple[int, int, int, int]]]
) -> None:
    rows = min(len(first), len(second))
    left = batch([build(row) for row in first[:rows]], "left")
    right = batch([build(row) for row in second[:rows]], "right")
    joined = concatenate([left, right])
    for index in range(rows):
        row = joined.map(lambda field, index=index: field[index])
        assert [token for token in read(row) if token[0] != Kind.PAD] == plain(first[index]) + plain(second[index])


def test_a_run_has_one_kind_and_one_step_and_predicts_only_what_it_is_told() -> None:
    silent = run(Kind.MEMORY, torch.tensor([7, 8]), step=3)
    assert read(silent) == [(Kind.MEMORY, 3, 7, IGNORE), (Kind.MEMORY, 3, 8, IGNORE)]
    speaking = run(Kind.TEXT, torch.tensor([9]), label=torch.tensor([42]))
    assert read(speaking) == [(Kind.TEXT, 0, 9, 42)]


def test_fields_of_different_shape_are_refused() -> None:
    with pytest.raises(AssertionError, match="shape"):
        Layout(torch.zeros(2), torch.zeros(2), torch.zeros(3), torch.zeros(2))


def test_padding_never_cuts() -> None:
    with pytest.raises(AssertionError, match="fit"):
        pad(run(Kind.TEXT, torch.arange(3)), 2, "left")
