"""Tables of results of reasoning: what a terminal of 80 columns shows."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from laconic.eval import reasoning_report
from laconic.eval.over_tasks import over_tasks
from laconic.eval.reasoning_report import markdown, over_all, solved, tables


def row(task: str, method: str, peak: float, **more: Any) -> dict[str, Any]:
    right = {"mean": 100.0, "low": 80.64, "high": 100.0}
    row = {"task": task, "method": method, "items": 16, "accuracy": right, "ended": 100.0, "generated_tokens": 250.4}
    row |= {"peak_tokens": peak, "tokens_per_forward": 2.434, "seconds": 10.41, "acceptance": []}
    return row | {"steps_right": None, "all_steps_right": None} | more


RESULT = {
    "rows": [
        row("shuffle-11", "vanilla", 400.0),
        row("shuffle-11", "hybridthinker", 100.0, acceptance=[0.953, 0.7], steps_right=88.2, all_steps_right=75.0),
        row("gsm8k_test", "hybridthinker", 90.0),
    ],
    "over_tasks": over_tasks({"vanilla": [True, False], "hybridthinker": [True, True]}),
}


def test_a_terminal_of_80_columns_shows_all_of_it() -> None:
    shown = StringIO()
    Console(width=80, file=shown).print(*tables(RESULT))
    text = shown.getvalue()
    assert "\u2026" not in text, "nothing is cut short"
    lines = [line.split() for line in text.splitlines()]
    assert ["hybridthinker", "100", "(81-100)", "100", "%", "250", "100", "25%", "2.43", "10.4"] in lines
    assert ["hybridthinker", "100", "(81-100)", "100", "%", "250", "90", "-", "2.43", "10.4"] in lines, "no vanilla"
    assert ["hybridthinker", "100", "(34-100;", "2)", "+50.0", "(-27.3", "to", "+90.5)", "25%", "2.43"] in lines
    assert ["vanilla", "50", "(9-91;", "2)", "-", "100%", "2.43"] in lines


def test_a_page_has_steps_and_guesses_too() -> None:
    lines, whole = (part.splitlines() for part in markdown(RESULT).split("\n\n"))
    assert len(lines) == 5
    assert whole[0] == "| over all tasks | right, % (95 %) | less vanilla (95 %, paired) | peak | a pass |"
    assert whole[1:] == [
        "|---|---|---|---|---|",
        "| vanilla | 50 (9-91; 2) | - | 100% | 2.43 |",
        "| hybridthinker | 100 (34-100; 2) | +50.0 (-27.3 to +90.5) | 25% | 2.43 |",
    ]
    assert "| 100 (81-100; 16) | 75 | 88 | 250 | 100 | 25% | 2.43 | 95%, 70% |" in lines[3]
    assert "| - | - | 250 | 90 | - | 2.43 | - |" in lines[4]
    assert {line.count("|") for line in lines} == {11}


def test_of_one_task_nothing_is_said_over_all() -> None:
    one = RESULT | {"rows": [row("shuffle-11", "vanilla", 400.0), row("shuffle-11", "hybridthinker", 100.0)]}
    assert "over all tasks" not in markdown(one)
    assert len(tables(one)) == 1


def test_peaks_and_passes_over_all_tasks_are_means_over_tasks() -> None:
    """Each peak beside vanilla's on its own task, not sums of tokens, in which long tasks would count for more."""
    more = [row("lists-11", "vanilla", 200.0), row("lists-11", "hybridthinker", 150.0, tokens_per_forward=1.0)]
    rows = [one for one in RESULT["rows"] if one["task"] == "shuffle-11"] + more
    lines = over_all(RESULT | {"rows": rows}).splitlines()
    assert lines[2].endswith("| - | 100% | 2.43 |")
    assert lines[3].endswith("| 50% | 1.72 |"), "a quarter and three quarters; 2.434 and 1"


def test_over_the_tasks_that_vanilla_solves() -> None:
    more = [row("lists-11", "vanilla", 200.0), row("lists-11", "hybridthinker", 150.0)]
    own = {
        "tasks": ["lists-11"],
        "over_tasks": over_tasks({"vanilla": [True] * 4, "hybridthinker": [True] * 3 + [False]}),
    }
    result = RESULT | {"rows": [*RESULT["rows"], *more], "solved": own}
    assert [one["task"] for one in solved(result)["rows"]] == ["lists-11"] * 2
    assert solved(result)["over_tasks"][1]["difference"]["mean"] == -25
    assert len(result["rows"]) == 5


def test_without_a_vanilla_there_is_nothing_to_compare_with() -> None:
    rows = [row("shuffle-11", "hybridthinker", 100.0), row("lists-11", "hybridthinker", 150.0)]
    lines = over_all({"rows": rows, "over_tasks": over_tasks({"hybridthinker": [True, False]})}).splitlines()
    assert lines[0] == "| over all tasks | right, % (95 %) | a pass |"
    assert lines[2] == "| hybridthinker | 50 (9-91; 2) | 2.43 |"


def test_some_methods_can_be_left_out_of_all_tables() -> None:
    result = {"rows": [{"method": "a"}, {"method": "b"}], "over_tasks": [{"method": "b"}], "notes": {}}
    left = reasoning_report.without(result, ["b"])
    assert left == {"rows": [{"method": "a"}], "over_tasks": [], "notes": {}}
    assert len(result["rows"]) == 2
