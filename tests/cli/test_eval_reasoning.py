"""``laconic eval`` of methods that reason: what it leaves behind, and what it refuses before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from outcomes import Run, assert_refused
from thinkers import thinker

from laconic.data.solutions import load_problem_file
from laconic.errors import DataError


@pytest.fixture
def problems(tmp_path: Path) -> str:
    path = tmp_path / "mine.jsonl"
    lines = [
        {"question": "What is two and two?", "answer": 4, "steps": ["Two and two is 4.", "The answer is 4."]},
        {"question": "Which is red? (A) sky (B) blood", "answer": "(B)"},
        {"question": "Who is it?", "answer": "Mary Ann", "id": "who"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_methods_are_compared_on_puzzles_and_on_own_problems(run: Run, problems: str, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    thinker("vanilla").save_pretrained(adapter)
    out = tmp_path / "out.json"
    options = ["--method", "vanilla", "--adapter", str(adapter), "--limit", "2", "--max-new-tokens", "12"]
    outcome = run("eval", "machine-2", problems, *options, "--json", str(out))
    assert outcome.status == 0, outcome.err
    rows = json.loads(out.read_text())["rows"]
    assert [(row["task"], row["items"], row["max_new_tokens"]) for row in rows] == [
        ("machine-2", 2, 12),
        (problems, 2, 12),
    ]
    assert "machine-2, 2 problems" in outcome.out
    assert out.with_suffix(".table.md").read_text().count("\n") == 4
    assert {path.name for path in tmp_path.glob("out*.png")} == {"out.machine-2.png", "out.mine.png"}
    said = len(out.with_suffix(".items.jsonl").read_text().splitlines())
    assert run("eval", "machine-2", problems, *options, "--json", str(out)).status == 0
    assert len(out.with_suffix(".items.jsonl").read_text().splitlines()) == said == 4


def test_slips_are_told_in_one_line(run: Run, problems: str, tmp_path: Path) -> None:
    out = ["--json", str(tmp_path / "out.json")]
    assert_refused(run("eval", problems, "--method", "vanilla,ram", *out), "no method 'ram' that reasons")
    assert_refused(run("eval", problems, "--method", "vanilla", "--factor", "4", *out), "--factor", "read documents")
    assert_refused(run("eval", problems, "--method", "vanilla", "--against", "full", *out), "--against")
    assert_refused(run("eval", "nothing-3", "--method", "vanilla", *out), "no task", "shuffle-12")
    several = ["--method", "vanilla,memosight", "--adapter", "somewhere"]
    assert_refused(run("eval", problems, *several, *out), "One adapter")
    assert_refused(run("eval", problems, "--method", "vanilla", "--json", "out.png"), "not named as JSON")
    assert_refused(run("eval", problems, "--method", "vanilla", *out), "no trained")


def test_help_names_what_is_taken_where_nothing_is_said(run: Run) -> None:
    shown = run("eval", "--help").out
    assert "(4,8)" in shown
    assert "$LACONIC_DATA" in shown


def test_own_problems_are_compared_as_what_they_are(problems: str) -> None:
    four, blood, who = load_problem_file(problems)
    assert four.solved_by("The answer is 4.0 apples.")
    assert not four.solved_by("The answer is 44.")
    assert blood.solved_by("The answer is B.")
    assert who.solved_by("The answer is mary ann")
    assert [(one.id, len(one.steps)) for one in (four, blood, who)] == [("1", 2), ("2", 0), ("who", 0)]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"question": "q"}', "answer"),
        ('{"question": " ", "answer": "a"}', "question"),
        ('{"question": "q", "answer": true}', "answer"),
        ('{"question": "q", "answer": "a", "steps": "one"}', "steps"),
        ("[1]", "line 2"),
        ("", "no records"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(DataError, match=fault) as raised:
        load_problem_file(path)
    assert ("line 2" in str(raised.value)) == bool(line)


def test_of_several_numbers_each_counts(tmp_path: Path) -> None:
    """A list is no number whose digits are grouped."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "q", "answer": "1,2,3"}\n{"question": "q", "answer": "1,200"}')
    several, one = load_problem_file(path)
    assert several.solved_by("The answer is 1, 2, 3.")
    assert not several.solved_by("The answer is 123.")
    assert one.solved_by("The answer is 1200.")
