"""Methods that reason, over all tasks together."""

from __future__ import annotations

import pytest

from laconic.eval.metrics import difference_with_interval
from laconic.eval.over_tasks import over_tasks, reference, solved_tasks


def test_differences_are_to_the_last_vanilla_problem_by_problem() -> None:
    """Two that are right on one problem in two each differ in all of them, or in none."""
    right = {
        "vanilla": [False] * 40,
        "vanilla, trained on": [True, False] * 20,
        "same": [True, False] * 20,
        "other": [False, True] * 20,
        "better": [True, True] * 20,
    }
    rows = {row["method"]: row for row in over_tasks(right)}
    assert rows["vanilla, trained on"]["accuracy"]["mean"] == 50
    assert "difference" not in rows["vanilla, trained on"]
    assert all(row["items"] == 40 for row in rows.values())
    assert {row["against"] for row in rows.values() if "against" in row} == {"vanilla, trained on"}
    assert rows["vanilla"]["difference"]["mean"] == -50
    same = rows["same"]["difference"]
    assert same["mean"] == 0
    assert -10 < same["low"] < -2 < 2 < same["high"] < 10, "forty that agree do not prove that the next does"
    other = rows["other"]["difference"]
    assert other["mean"] == 0
    assert other["low"] < -20 < 20 < other["high"]
    better = rows["better"]["difference"]
    assert 20 < better["low"] < better["mean"] == 50 < better["high"] < 80


@pytest.mark.parametrize(
    ("both", "own", "other", "neither", "low", "high"),
    [  # Newcombe (1998), table III, method 10: differences of paired proportions
        (36, 12, 2, 0, 0.0569, 0.3404),
        (54, 0, 0, 0, -0.0664, 0.0664),
    ],
)
def test_the_interval_of_pairs_is_newcombes(
    both: int, own: int, other: int, neither: int, low: float, high: float
) -> None:
    first = [1.0] * both + [1.0] * own + [0.0] * other + [0.0] * neither
    second = [1.0] * both + [0.0] * own + [1.0] * other + [0.0] * neither
    mean, *found = difference_with_interval(first, second)
    assert mean == pytest.approx((own - other) / len(first))
    assert found == pytest.approx([low, high], abs=5e-5)
    assert difference_with_interval(second, first)[1:] == pytest.approx((-high, -low), abs=5e-5)


def test_without_vanilla_there_is_nothing_to_compare_with() -> None:
    (row,) = over_tasks({"memosight": [True, False]})
    assert row.keys() == {"method", "items", "accuracy"}
    assert reference(["lightthinker"]) is None


def test_a_task_is_solved_where_the_reference_solves_it() -> None:
    """Not where any other method does, nor an earlier vanilla."""
    shares = {
        "vanilla": {"shuffle": 100.0, "lists": 100.0, "machine": 10.0},
        "vanilla, trained on": {"shuffle": 80.0, "lists": 79.9, "machine": 100.0},
        "memosight": {"shuffle": 0.0, "lists": 100.0, "machine": 0.0},
    }
    rows = [
        {"task": task, "method": method, "accuracy": {"mean": share}}
        for method, own in shares.items()
        for task, share in own.items()
    ]
    assert solved_tasks(rows) == ["shuffle", "machine"]
    assert solved_tasks([row for row in rows if row["method"] == "memosight"]) == []
