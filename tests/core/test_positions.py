"""Position layouts against their formulas, written as loops."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from laconic.core.positions import memory_positions, uniform

starts, spans, counts = st.integers(0, 500), st.integers(1, 200), st.integers(1, 60)


@given(starts, spans, counts)
def test_uniform_is_the_floor_rule(start: int, span: int, count: int) -> None:
    expected = [start + math.floor((k + Fraction(1, 2)) * span / count) for k in range(count)]
    assert uniform(start, span, count).tolist() == expected


@given(starts, spans, counts)
def test_uniform_lies_within_its_span_in_order(start: int, span: int, count: int) -> None:
    got = uniform(start, span, count).tolist()
    assert start <= got[0] <= got[-1] <= start + span - 1
    assert got == sorted(got)
    if count <= span:
        assert len(set(got)) == count


@given(starts, spans, counts)
def test_uniform_memory_consumes_no_positions(start: int, span: int, count: int) -> None:
    memory, after = memory_positions("uniform", start, span, count)
    assert memory.tolist() == uniform(start, span, count).tolist()
    assert after == start + span


@given(starts, spans, counts)
def test_sequential_memory_follows_its_span(start: int, span: int, count: int) -> None:
    memory, after = memory_positions("sequential", start, span, count)
    assert memory.tolist() == [start + span + k for k in range(count)]
    assert after == start + span + count


def test_no_memory_tokens() -> None:
    assert uniform(4, 3, 0).tolist() == []
    assert memory_positions("uniform", 4, 3, 0)[1] == memory_positions("sequential", 4, 3, 0)[1] == 7
