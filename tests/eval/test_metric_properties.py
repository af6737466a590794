"""What must hold of the metrics whatever is said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from laconic.eval.metrics import (
    contains,
    evidence_recall,
    exact_match,
    f1,
    mean_with_interval,
    normalise,
    rouge_l,
    wilson,
)

texts = st.text(alphabet="abthe .,-2É", max_size=16)
references = st.lists(texts, min_size=1, max_size=3)
ranges = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 8)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=5
)


@given(texts)
def test_normalising_the_case_and_spacing_first_changes_nothing(text: str) -> None:
    assert normalise(f"  {text.upper()}  ") == normalise(text)


@given(texts, references)
def test_scores_stay_in_bounds_and_no_convention_is_mixed(answer: str, accepted: list[str]) -> None:
    scores = [metric(answer, accepted) for metric in (exact_match, f1, contains, rouge_l)]
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert exact_match(answer, accepted) <= f1(answer, accepted), "an exact match is a full F1"
    assert f1(answer, accepted) == max(f1(answer, [one]) for one in accepted)


@given(texts, references, texts)
def test_another_reference_never_lowers_a_score(answer: str, accepted: list[str], other: str) -> None:
    for metric in (exact_match, f1, contains, rouge_l):
        assert metric(answer, [*accepted, other]) >= metric(answer, accepted)


@given(texts, texts)
def test_f1_is_symmetric(one: str, other: str) -> None:
    assert f1(one, [other]) == f1(other, [one])


@given(ranges, ranges)
def test_recall_agrees_with_counting_characters(evidence: list[tuple[int, int]], kept: list[tuple[int, int]]) -> None:
    seen = {at for start, end in kept for at in range(start, end)}
    expected = float(any(set(range(start, end)) <= seen for start, end in evidence)) if evidence else None
    assert evidence_recall(evidence, kept) == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 5))
def test_the_interval_lies_within_the_values(values: list[float], seed: int) -> None:
    _, low, high = mean_with_interval(values, seed, draws=100)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert mean_with_interval(values, seed, draws=100) == mean_with_interval(values, seed, draws=100)


@given(st.integers(1, 2000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_of_a_share_holds_it_and_mirrors_that_of_the_others(case: tuple[int, int]) -> None:
    right, count = case
    share, low, high = wilson(right, count)
    assert 0 <= low <= share <= high <= 1
    assert low < high
    _, other_low, other_high = wilson(count - right, count)
    assert abs(low - (1 - other_high)) < 1e-9
    assert abs(high - (1 - other_low)) < 1e-9
