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
    assert out.with_suffix(".table.md").read_text().count("\n") == 8
    assert {path.name for path in tmp_path.glob("out*.png")} == {"out.machine-2.png", "out.mine.png"}
    said = len(out.with_suffix(".items.jsonl").read_text().splitlines())
    assert run("eval", "machine-2", problems, *options, "--json", str(out)).status == 0
    assert len(out.with_suffix(".items.jsonl").read_text().splitlines()) == said == 4


def test_a_problem_may_hold_anything(run: Run, tmp_path: Path) -> None:
    """Formulas that are none to the picture's title, names that are marks to the terminal, files of one name."""
    thinker("vanilla").save_pretrained(tmp_path / "adapter")
    names = [tmp_path / folder / "mine [v2].jsonl" for folder in ("a", "b")]
    for path in names:
        path.parent.mkdir()
        path.write_text(json.dumps({"question": "Let $x=\\begin{cases}1\\end{cases}$, $20 & 50%", "answer": "x+2"}))
    options = ["--method", "vanilla", "--adapter", str(tmp_path / "adapter"), "--max-new-tokens", "5"]
    outcome = run("eval", *map(str, names), *options, "--json", str(tmp_path / "out.json"))
    assert outcome.status == 0, outcome.err
    assert "[v2]" in outcome.out
    assert len(list(tmp_path.glob("out.*.png"))) == 2


def test_a_problem_that_fills_the_window_is_named_before_any_is_solved(run: Run, tmp_path: Path) -> None:
    thinker("vanilla").save_pretrained(tmp_path / "adapter")
    path = tmp_path / "mine.jsonl"
    lines = [{"question": "Why?", "answer": "so"}, {"question": "Why? " * 999, "answer": "so", "id": "endless"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--method", "vanilla", "--adapter", str(tmp_path / "adapter"), "--json", str(tmp_path / "out.json")]
    assert_refused(run("eval", str(path), *options), "endless", "Shorten")
    assert not (tmp_path / "out.items.jsonl").exists() or not (tmp_path / "out.items.jsonl").read_text()


def test_slips_are_told_in_one_line(run: Run, problems: str, tmp_path: Path) -> None:
    out = ["--json", str(tmp_path / "out.json")]
    assert_refused(run("eval", problems, "--method", "vanilla,ram", *out), "no method 'ram' that reasons")
    assert_refused(run("eval", problems, "--method", "vanilla", "--factor", "4", *out), "--factor", "read documents")
    assert_refused(run("eval", problems, "--method", "vanilla", "--against", "full", *out), "--against")
    assert_refused(run("eval", "nothing-3", "--method", "vanilla", *out), "no task", "shuffle-12")
    assert_refused(run("eval", "missing.jsonl", "--method", "vanilla", *out), "There is no file missing.jsonl")
    assert_refused(run("eval", "missing.jsonl", "--method", "head", *out), "There is no file missing.jsonl")
    assert_refused(run("eval", "gsm8k_test", "--method", "vanilla", "--data", str(tmp_path), *out), str(tmp_path))
    several = ["--method", "vanilla,memosight", "--adapter", "somewhere"]
    assert_refused(run("eval", problems, *several, *out), "One adapter")
    assert_refused(run("eval", problems, "--method", "vanilla", "--json", "out.png"), "not named as JSON")
    assert_refused(run("eval", problems, "--method", "vanilla", *out), "no trained")


def test_a_solution_may_take_longer_than_an_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    for module in ("evaluate", "evaluate_reasoning"):
        monkeypatch.setattr(f"laconic.cli.{module}.run", lambda *_, max_new_tokens, **__: asked.append(max_new_tokens))
    run("eval", "shuffle-3", "--method", "vanilla")
    run("eval", "squad_articles_dev", "--method", "head")
    run("eval", "shuffle-3", "--method", "vanilla", "--max-new-tokens", "7")
    assert asked == [512, 32, 7]


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
        ('{"question": "q", "answer": NaN}', "answer"),
        ('{"question": "q", "answer": " ?!"}', "nothing that could be compared"),
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


@pytest.mark.parametrize(
    ("answer", "right", "wrong"),
    [
        ("\u5317\u4eac", "\u5317\u4eac", "\u5317"), ("\u0434\u0430", "\u0414\u0430.", "\u043d\u0435\u0442"),
        ("<", "<", ">"), ("1/2", "1/2", "1.2"), ("x+2", "x+2", "x-2"), ("-x", "-x", "x"),
        ("red and blue", "Red and blue", "blue and red"),
        (1e-05, "0.00001", "0.0001"), (1e16, "10000000000000000", "1"), (".5", "0.5", "5"), ("0.5", ".5", "5"),
        ("C", "(c) three", "a C"),
    ],
)  # fmt: skip
def test_answers_in_any_script(tmp_path: Path, answer: object, right: str, wrong: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": answer}))
    (problem,) = load_problem_file(path)
    assert problem.solved_by(f"The answer is {right}")
    assert not problem.solved_by(f"The answer is {wrong}")
