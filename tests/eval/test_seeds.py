"""Means over seeds."""

from __future__ import annotations

import pytest

from laconic.eval.seeds import mean_with_t_interval, over_problems, over_seeds, over_seeds_and_tasks


def test_the_interval_is_students() -> None:
    # three values: t = 4.303, s = 2, so 4.303 * 2 / sqrt(3)
    mean, low, high = mean_with_t_interval([88.0, 90.0, 92.0])
    assert mean == 90
    assert high - mean == mean - low == pytest.approx(4.9687, abs=1e-3)
    assert mean_with_t_interval([5.0, 5.0]) == (5, 5, 5)
    for values in ([], [1.0] * 11):
        with pytest.raises(ValueError, match="values"):
            mean_with_t_interval(values)


def test_seeds_of_a_method_become_a_row() -> None:
    def row(task: str, method: str, right: float) -> dict:
        counts = {"items": 50, "generated_tokens": right, "peak_tokens": 100.0, "tokens_per_forward": 1.0}
        return {"task": task, "method": method, "accuracy": {"mean": right}} | counts

    rows = [row(task, f"light, seed {seed}", 80.0 + seed) for task in ("a", "b") for seed in range(3)]
    rows += [row("a", "light", 0.0), row("a", "alone, seed 0", 50.0)]
    seeds = {"light": [f"light, seed {n}" for n in range(3)], "alone": ["alone, seed 0"]}
    found = over_seeds(rows, seeds)
    assert [(one["task"], one["method"], one["seeds"]) for one in found] == [
        ("a", "light", 3),
        ("a", "alone", 1),
        ("b", "light", 3),
    ]
    assert found[0]["accuracy"] == {"mean": 81.0, "low": 78.52, "high": 83.48}
    assert found[0]["generated_tokens"] == 81
    assert found[1]["accuracy"] == {"mean": 50.0, "low": None, "high": None}


def test_methods_are_compared_seed_by_seed_over_all_tasks() -> None:
    """Tasks count the same; what all seeds of both methods have in common is no difference."""

    def row(task: str, method: str, right: float, peak: float, passes: float) -> dict:
        counts = {"items": 50, "peak_tokens": peak, "tokens_per_forward": passes}
        return {"task": task, "method": method, "accuracy": {"mean": right}} | counts

    rows = []
    for seed, (easy, hard) in enumerate([(90.0, 50.0), (92.0, 60.0), (94.0, 70.0)]):
        for task, right, peak in (("easy", easy, 100.0), ("hard", hard, 400.0)):
            rows.append(row(task, f"vanilla, seed {seed}", right, peak, 1.0))
            rows.append(row(task, f"memosight, seed {seed}", right - seed, peak / 2 if task == "easy" else 100.0, 2.5))
    seeds = {name: [f"{name}, seed {n}" for n in range(3)] for name in ("vanilla", "memosight")}
    vanilla, memosight = over_seeds_and_tasks(rows, seeds, "vanilla")
    assert vanilla["accuracy"]["mean"] == 76
    assert "difference" not in vanilla
    assert (vanilla["peak"], vanilla["tokens_per_forward"]) == (1, 1)
    # 0, -1 and -2: s = 1, 4.303 / sqrt(3)
    assert memosight["difference"] == {"mean": -1, "low": -3.48, "high": 1.48}
    assert memosight["accuracy"]["mean"] == 75
    assert memosight["peak"] == pytest.approx((0.5 + 0.25) / 2)
    assert memosight["tokens_per_forward"] == 2.5
    assert memosight["seeds"] == 3


def test_methods_are_compared_problem_by_problem_with_all_seeds_together() -> None:
    """Whatever the order of a seed's problems; seeds that part on one problem make a share of it."""
    seeds = {name: [f"{name} {n}" for n in range(2)] for name in ("vanilla", "light")}
    problems = [f"p{n}" for n in range(40)]
    right = {name: dict.fromkeys(problems, True) for names in seeds.values() for name in names}
    right["light 0"] = {p: p not in ("p3", "p7") for p in reversed(problems)}
    right["light 1"]["p3"] = False
    found = over_problems(right, seeds, "vanilla")
    assert list(found) == ["light"]
    assert found["light"]["mean"] == pytest.approx(-100 * 1.5 / 40, abs=0.01)
    assert found["light"]["low"] < -5 < found["light"]["mean"] < found["light"]["high"] <= 0
    for names in seeds.values():  # all of them wrong at the same problem, which is no difference
        for name in names:
            right[name] = {p: p != "p3" for p in (reversed(problems) if name == "light 1" else problems)}
    right["light 0"] = dict(reversed(right["light 0"].items()))
    same = over_problems(right, seeds, "vanilla")["light"]
    assert same["mean"] == 0
    assert -10 < same["low"] < 0 < same["high"] < 10
