"""Segments tile the text, budgets are floors, keep sets are ranking prefixes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_backbone

from laconic.core.segments import longest_affordable_prefix, resolve_budget, segment, spans_of
from laconic.errors import BudgetError, DocumentError

BACKBONE = tiny_backbone()
TEXT = st.text(alphabet="ab c\n.é😀", min_size=1, max_size=120).filter(lambda text: text.strip())


@given(TEXT, st.integers(1, 9))
def test_segments_tile_tokens_and_characters(text: str, width: int) -> None:
    cut = segment(BACKBONE.tokenizer, text, width)
    assert "".join(cut.segment_texts()) == text
    assert [token for start, end in cut.token_spans for token in cut.ids[start:end]] == cut.ids
    assert all(length == width for length in cut.lengths[:-1])
    assert 1 <= cut.lengths[-1] <= width
    assert all(start <= end for start, end in cut.char_spans)


@given(TEXT, st.integers(1, 9), st.data())
def test_spans_are_the_documents_own_words(text: str, width: int, data: st.DataObject) -> None:
    cut = segment(BACKBONE.tokenizer, text, width)
    kept = data.draw(st.sets(st.integers(0, len(cut) - 1)))
    spans = spans_of(cut, list(kept), [float(i) for i in range(len(cut))])
    assert all(text[span.start : span.end] == span.text for span in spans)
    assert sum(len(span.text) for span in spans) == sum(len(cut.segment_texts()[i]) for i in kept)
    assert all(one.end < other.start for one, other in pairwise(spans) if one.text and other.text)


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_a_ratio_is_a_floor(tokens: int, factor: int) -> None:
    assert resolve_budget(tokens, 1 / factor, None) == (tokens // factor, 1 / factor)


@pytest.mark.parametrize(
    ("ratio", "budget"), [(None, None), (0.5, 10), (0.0, None), (1.5, None), (-1.0, None), (None, 0), (None, -3)]
)
def test_impossible_budgets_are_refused(ratio: float | None, budget: int | None) -> None:
    with pytest.raises(BudgetError):
        resolve_budget(100, ratio, budget)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(0, 60))
def test_the_prefix_is_the_longest_that_fits(costs: list[int], budget: int) -> None:
    ranking = list(range(len(costs)))[::-1]
    kept = longest_affordable_prefix(ranking, costs, budget)
    assert kept == ranking[: len(kept)]
    assert sum(costs[i] for i in kept) <= budget
    assert len(kept) == len(costs) or sum(costs[i] for i in ranking[: len(kept) + 1]) > budget


def test_nothing_to_cut() -> None:
    with pytest.raises(DocumentError):
        segment(BACKBONE.tokenizer, " \n\t", 8)
