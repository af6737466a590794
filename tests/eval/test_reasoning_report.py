"""Tables of results of reasoning: what a terminal of 80 columns shows."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from laconic.eval.reasoning_report import markdown, tables


def row(task: str, method: str, peak: float, **more: Any) -> dict[str, Any]:
    right = {"mean": 100.0, "low": 100.0, "high": 100.0}
    row = {"task": task, "method": method, "items": 16, "accuracy": right, "ended": 100.0, "generated_tokens": 250.4}
    row |= {"peak_tokens": peak, "tokens_per_forward": 2.434, "seconds": 10.41, "acceptance": []}
    return row | {"steps_right": None, "all_steps_right": None} | more


RESULT = {
    "rows": [
        row("shuffle-11", "vanilla", 400.0),
        row("shuffle-11", "hybridthinker", 100.0, acceptance=[0.953, 0.7], steps_right=88.2, all_steps_right=75.0),
        row("gsm8k_test", "hybridthinker", 90.0),
    ]
}


def test_a_terminal_of_80_columns_shows_all_of_it() -> None:
    shown = StringIO()
    Console(width=80, file=shown).print(*tables(RESULT))
    text = shown.getvalue()
    assert "\u2026" not in text, "nothing is cut short"
    lines = [line.split() for line in text.splitlines()]
    assert ["hybridthinker", "100", "(100-100)", "100", "%", "250", "100", "25%", "2.43", "10.4"] in lines
    assert ["hybridthinker", "100", "(100-100)", "100", "%", "250", "90", "-", "2.43", "10.4"] in lines, "no vanilla"


def test_a_page_has_steps_and_guesses_too() -> None:
    lines = markdown(RESULT).splitlines()
    assert len(lines) == 5
    assert "| 100 (100-100; 16) | 75 | 88 | 250 | 100 | 25% | 2.43 | 95%, 70% |" in lines[3]
    assert "| - | - | 250 | 90 | - | 2.43 | - |" in lines[4]
    assert {line.count("|") for line in lines} == {11}
