"""The evaluation of reasoning: what is asked, what is counted, and that a run goes on where it stopped."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from thinkers import KINDS, thinker

from laconic.data.problems import Problem, same_number, same_words, share_of_steps, stated_answer
from laconic.data.puzzles import PUZZLES
from laconic.data.segmenters import by_blank_line, by_line, by_sentence, by_tokens
from laconic.data.solutions import _same_choice
from laconic.errors import DataError
from laconic.eval.reasoning import Setting, _row, evaluate_reasoning, expected_peak, items_of, reasoning_task
from laconic.methods.baselines.window_thinker import WindowThinker


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_peak_is_what_the_formula_says_whatever_ended_the_text(kind: str) -> None:
    model = thinker(kind)
    problems = ["First we add.", "What is the passkey? Remember it.", "The sky is blue."]
    for count in (1, 5, 6, 7, 12, 33):
        for solution in model.solve(problems, max_new_tokens=count):
            bill = solution.bill
            ended = bill.stopped_by == "end"
            assert expected_peak(model, solution.prompt_tokens, bill.words, ended) == bill.peak_tokens
    words = model.solve(problems[:1], max_new_tokens=20)[0].bill.words
    end = words[7]
    model.decoder.generation_config.eos_token_id = [2, end]
    try:
        ended_early = model.solve(problems[:1], max_new_tokens=20)[0]
    finally:
        model.decoder.generation_config.eos_token_id = 2
    bill = ended_early.bill
    assert bill.stopped_by == "end"
    assert expected_peak(model, ended_early.prompt_tokens, bill.words, True) == bill.peak_tokens


def test_a_run_goes_on_where_it_stopped_and_sees_what_changed(tmp_path: Path) -> None:
    methods = {"lightthinker": thinker("lightthinker"), "memosight": thinker("memosight")}
    tasks = {"machine-2": reasoning_task("machine-2", 5)}
    out = tmp_path / "reasoning.json"

    def run() -> dict:
        return evaluate_reasoning(methods, tasks, out, max_new_tokens=20, batch_size=2, say=lambda text: None)  # type: ignore[arg-type]

    first = run()
    book = out.with_suffix(".items.jsonl")
    whole = book.read_text()
    assert len(whole.splitlines()) == 10
    book.write_text(whole[: len(whole) // 2])
    again = run()
    assert again["rows"] == json.loads(out.read_text())["rows"]
    untimed = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in result["rows"]] for result in (first, again)
    ]
    assert untimed[0] == untimed[1]
    assert len(book.read_text().splitlines()) >= 10
    for row in first["rows"]:
        assert row["items"] == 5
        assert row["peak_as_computed"] is True
        assert row["peak_tokens"] <= row["peak_fed"]
        assert row["seconds"] > 0
        assert 0 <= row["accuracy"]["low"] <= row["accuracy"]["mean"] <= row["accuracy"]["high"] <= 100
    assert first["solved"] == {"tasks": [], "over_tasks": []}  # nothing to compare with
    kept = items_of(first, tasks, out)
    few = items_of(first, {"machine-2": tasks["machine-2"][:3]}, out)
    assert [len(own) for own in few.values()] == [3, 3], "the journal has more than what is asked about"
    assert list(kept) == [row["method"] for row in first["rows"]]
    for row in first["rows"]:
        share = sum(line["right"] for line in kept[row["method"]].values()) / row["items"]
        assert row["accuracy"]["mean"] == pytest.approx(100 * share, abs=0.01)
    ended = next(iter(kept[first["rows"][0]["method"]].values())) | {"stopped_by": "end", "forwards": 3}
    setting = Setting(**{one.name: first["rows"][0][one.name] for one in fields(Setting)})
    assert _row(setting, [ended | {"generated_tokens": 3}])["tokens_per_forward"] == 1  # the end is the fourth
    light, sight = first["rows"]
    assert light["tokens_per_forward"] == 1
    assert light["acceptance"] == []
    assert len(sight["acceptance"]) in (1, 2)
    before = {row["method"]: row["version"] for row in first["rows"]}
    with torch.no_grad():
        next(iter(methods["lightthinker"].own_parameters().values())).add_(1.0)
    assert [row["method"] for row in run()["rows"] if row["version"] != before[row["method"]]] == ["lightthinker"]
    for change in ({"answer": "other"}, {"steps": ["other"]}):
        tasks["machine-2"][0] = replace(tasks["machine-2"][0], **change)
        assert len(book.read_text().splitlines()) < len((run(), book.read_text())[1].splitlines())


def test_tasks_that_vanilla_solves_are_also_taken_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {"vanilla": thinker("vanilla"), "lightthinker": thinker("lightthinker")}
    tasks = {name: reasoning_task(name, 3) for name in ("machine-2", "lists-2")}
    told = iter([*[True] * 3, *[True, False, False], *[False] * 6])  # task by task, vanilla first
    monkeypatch.setattr(type(tasks["lists-2"][0]), "solved_by", lambda self, text: next(told))
    out = tmp_path / "reasoning.json"
    result = evaluate_reasoning(methods, tasks, out, max_new_tokens=8, say=lambda text: None)  # type: ignore[arg-type]
    assert [(row["items"], row["accuracy"]["mean"]) for row in result["over_tasks"]] == [(6, 50.0), (6, 16.67)]
    assert result["solved"]["tasks"] == ["machine-2"]
    alone = [(row["method"], row["items"], row["accuracy"]["mean"]) for row in result["solved"]["over_tasks"]]
    assert alone == [("vanilla", 3, 100.0), ("lightthinker", 3, 33.33)]


def test_what_is_asked_is_the_same_for_all_and_no_problem_twice() -> None:
    for name in PUZZLES:
        asked = reasoning_task(f"{name}-3", 40)
        assert [p.question for p in asked] == [p.question for p in reasoning_task(f"{name}-3", 40)]
        assert len({p.question for p in asked}) == len(asked) == 40
        assert {len(p.steps) for p in asked} == {4}
    with pytest.raises(DataError, match="shuffle-12"):
        reasoning_task("nothing", 3)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so\nThe answer is 5.", "5"),
        ("The answer is 5.\nNo. The answer is: 7", "7"),
        (r"thus \boxed{red, blue} it is", "red, blue"),
        (r"The answer is \boxed{9}.", "9"),
        (r"so \boxed{\frac{1}{2}} of it", r"\frac{1}{2}"),
        (r"\boxed{\sqrt{\frac{a^{2}}{b}}}", r"\sqrt{\frac{a^{2}}{b}}"),
        (r"\boxed{1} or \boxed{x_{1}}, not \boxed{{2", r"x_{1}"),
        ("a\n#### 1,200", "1,200"),
        ("nothing said", None),
    ],
)
def test_the_answer_is_what_was_stated_last(text: str, answer: str | None) -> None:
    assert stated_answer(text) == answer


def test_answers_are_compared_as_what_they_are() -> None:
    assert same_number("1,200 dollars", "1200")
    assert same_number("$-3.50", "-3.5")
    assert same_number("10 - 5 = 5", "5")
    assert same_number("7. That is, 7 apples", "7")
    assert same_number("it is 1,234,567.5", "1234567.5")
    assert same_number("12,34,567 rupees", "1234567")
    assert not same_number("3,4", "34")
    assert not same_number("1,20", "120")
    assert not same_number("10 - 5 = 5", "10")
    assert not same_number("12 or 13", "12")
    assert not same_number("none", "0")
    assert same_words("Red, blue", "red blue")
    assert not same_words("blue, red", "red, blue")
    assert not same_words("5", "-5")
    assert same_words("- no: -5.", "no -5")
    assert not same_words("?", "!")
    assert not Problem("", "q", [], "5", same_number).solved_by("5")  # nothing stated


RIGHT = ["B", "(B)", "b", "(b) two", "B. two", "B) two", "option B", "Choice (B)"]
WRONG = ["a", "a man", "both", "Bob", "B man", ""]


@pytest.mark.parametrize("given", [*RIGHT, *WRONG])
def test_a_choice_is_its_letter(given: str) -> None:
    assert _same_choice(given, "B") is _same_choice(given, "(B)") is (given in RIGHT)


def test_steps_are_right_in_their_places() -> None:
    worked = ["Move 1: a.", "Move 2: b.", "The answer is b."]
    assert share_of_steps(worked, worked) == 1
    assert share_of_steps(["Move 1: a. ", "Move 2: c.", "The answer is b."], worked) == pytest.approx(2 / 3)
    assert share_of_steps([*worked, "more"], worked) == pytest.approx(3 / 4)
    assert share_of_steps(worked[1:], worked) == 0
    assert share_of_steps([], worked) == 0
    assert share_of_steps(worked, []) is None


@pytest.mark.parametrize("name", ["shuffle-11", "variables-11", "lists-11"])
def test_the_problem_does_not_say_the_answer_of_what_is_asked(name: str) -> None:
    """As it does after twelve moves: six rounds bring four balls or three cards back to where they began."""
    asked = reasoning_task(name, 100)
    begins = {"shuffle": r"row: (.*?)\.", "variables": r"has the (\w+) card", "lists": r"list: (.*?)\."}
    copied = [re.search(begins[name.partition("-")[0]], one.question)[1] for one in asked]  # type: ignore[index]
    right = sum(one.same(said, one.answer) for one, said in zip(asked, copied, strict=True))
    assert right <= (45 if name == "variables-11" else 5)  # of three cards one is right by chance


def test_what_a_baseline_holds_is_part_of_what_is_measured(tmp_path: Path) -> None:
    thinker("vanilla").save_pretrained(tmp_path / "vanilla")
    window = WindowThinker.from_pretrained(tmp_path / "vanilla", thinker("vanilla").backbone)
    tasks = {"machine-2": reasoning_task("machine-2", 2)}
    reads = []
    for window.tokens in (40, 12):
        found = evaluate_reasoning(
            {"window": window}, tasks, tmp_path / "out.json", max_new_tokens=9, say=lambda text: None
        )
        reads.append(found["rows"][0]["dependency"])
    assert reads[0] > reads[1]
    with pytest.raises(DataError, match="no problems"):
        evaluate_reasoning({"window": window}, {"none": []}, tmp_path / "other.json")


def test_segmenters() -> None:
    text = "One. Two? It is 3.5 now!\n\nFour\nfive.\n \nSix"
    assert by_blank_line(text) == ["One. Two? It is 3.5 now!", "Four\nfive.", "Six"]
    assert by_line(text) == ["One. Two? It is 3.5 now!", "Four", "five.", "Six"]
    assert by_sentence(text) == ["One.", "Two?", "It is 3.5 now!", "Four", "five.", "Six"]
    tokenizer = thinker("vanilla").backbone.tokenizer
    said = "the number of ships that passed is twelve"
    pieces = by_tokens(3, tokenizer)(said)  # type: ignore[arg-type]
    assert " ".join(pieces) == said
    assert all(len(tokenizer(" " + piece, add_special_tokens=False)["input_ids"]) <= 4 for piece in pieces)
    with pytest.raises(DataError, match="0 tokens"):
        by_tokens(0, tokenizer)  # type: ignore[arg-type]
