"""Metrics on cases small enough to do by hand."""

from __future__ import annotations

import pytest

from laconic.eval.metrics import (
    contains,
    evidence_recall,
    exact_match,
    f1,
    mean_with_interval,
    percent,
    rouge_l,
    score_with_interval,
)


def test_exact_match_normalises_as_squad_does() -> None:
    assert exact_match("The Eiffel Tower.", ["eiffel tower"]) == 1.0
    assert exact_match("Eiffel", ["eiffel tower", "Eiffel"]) == 1.0
    assert exact_match("", ["x"]) == 0.0


def test_f1_takes_the_best_reference_and_counts_repeats_once_each() -> None:
    assert f1("in Paris France", ["Paris"]) == pytest.approx(0.5)
    assert f1("in Paris France", ["Paris", "Paris France"]) == pytest.approx(0.8)
    assert f1("Paris Paris", ["Paris"]) == pytest.approx(2 / 3)
    assert f1("", ["Paris"]) == 0.0
    assert f1("the", ["an"]) == 1.0


def test_a_list_counts_by_the_share_of_its_parts() -> None:
    parts = ["1234", "5678", "9012"]
    assert contains("5678 and 1234", ["1234, 5678, 9012"], parts) == pytest.approx(2 / 3)
    assert contains("9012, 1234, 5678", ["1234, 5678, 9012"], parts) == 1.0, "in any order"
    assert contains("12345", ["1234, 5678, 9012"], parts) == 0.0


def test_contains_wants_whole_words() -> None:
    assert contains("It was in May 2018, I think", ["may 2018"]) == 1.0
    assert contains("mayor", ["may"]) == 0.0


def test_rouge() -> None:
    assert rouge_l("the cat sat", ["the cat sat", "dog"]) == pytest.approx(1.0)


def test_recall_wants_a_span_whole_across_joined_pieces() -> None:
    assert evidence_recall([(5, 15)], [(0, 10), (10, 20)]) == 1.0
    assert evidence_recall([(5, 15)], [(0, 10), (11, 20)]) == 0.0
    assert evidence_recall([(5, 15), (30, 31)], [(25, 40)]) == 1.0
    assert evidence_recall([], [(0, 10)]) is None


def test_the_interval_holds_the_mean_and_repeats() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    mean, low, high = mean_with_interval(values)
    assert low <= mean <= high
    assert mean == pytest.approx(0.6)
    assert (mean, low, high) == mean_with_interval(values)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_the_interval_of_right_and_wrong_is_wilsons(right: int, count: int, low: float, high: float) -> None:
    found = score_with_interval([1.0] * right + [0.0] * (count - right))
    assert found == pytest.approx((right / count, low, high), abs=5e-5)


def test_scores_between_right_and_wrong_are_drawn_anew() -> None:
    values = [0.0, 0.5, 1.0, 1.0]
    assert score_with_interval(values) == mean_with_interval(values)


def test_all_right_and_all_wrong_say_how_little_few_items_show() -> None:
    assert percent(score_with_interval([True] * 16)) == {"mean": 100.0, "low": 80.64, "high": 100.0}
    assert str(percent(score_with_interval([0.0] * 16))) == "{'mean': 0.0, 'low': 0.0, 'high': 19.36}", "and no -0.0"
