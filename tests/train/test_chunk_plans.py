"""Where texts are cut (section 3 of CoMeT's specification)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.train.chunk_plans import LEAST, PLANS, at_random, boundary, fixed, right, uniform


@given(
    st.sampled_from(sorted(PLANS)), st.integers(1, 300), st.integers(LEAST, 48), st.integers(1, 9), st.integers(0, 5)
)
def test_every_plan_is_the_text_in_chunks_that_fit(name: str, tokens: int, full: int, most: int, seed: int) -> None:
    plan = PLANS[name](range(tokens), full, most, random.Random(seed), lambda token: token % 7 == 6)
    assert sum(plan) == tokens
    assert 1 <= min(plan) <= max(plan) <= full


def test_the_kinds() -> None:
    assert fixed(100, 48) == [48, 48, 4]
    assert fixed(96, 48) == [48, 48]
    assert right(100, 48) == [4, 48, 48]
    assert uniform(100, 48, 4) == [25, 25, 25, 25]
    assert uniform(100, 24, 4) == [20, 20, 20, 20, 20], "more than asked for, where fewer would not fit"
    ends = [n in (10, 30, 40, 95) for n in range(100)]
    assert boundary(ends, 48) == [41, 48, 11], "the last end that fits, or a full chunk where there is none"


@pytest.mark.parametrize("seed", range(20))
def test_chance_keeps_to_its_bounds(seed: int) -> None:
    plan = at_random(100, 48, 8, random.Random(seed))
    assert min(plan) >= LEAST
    assert 3 <= len(plan) <= 8


def test_chance_uses_its_bounds() -> None:
    counts = {len(at_random(100, 48, 8, random.Random(seed))) for seed in range(200)}
    assert counts == {3, 4, 5, 6, 7, 8}
