"""Solutions that a method writes for others to be trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from thinkers import thinker

from laconic.data.puzzles import _held_out as held_out
from laconic.data.training import load_written
from laconic.errors import DataError, LaconicError
from laconic.eval.reasoning import reasoning_task
from laconic.eval.writing import Drawing, problems_to_train_on, write_solutions


class Writer:
    """A thinker that says these steps to each problem, one solution after the other."""

    def __init__(self, said: dict[str, Sequence[list[str]]], cut_off: Sequence[str] = ()) -> None:
        own = thinker("vanilla")
        self.identity, self.config, self.backbone = own.identity, own.config, own.backbone
        self.decoding, self.prompt_ids, self.cut_off = own.decoding, own.prompt_ids, cut_off
        self.said = {question: list(solutions) for question, solutions in said.items()}
        self.asked: list[list[str]] = []
        self.seeds: list[int] = []

    def solve(self, questions: list[str], *, seed: int, **_: Any) -> list[Any]:
        self.asked.append(questions)
        self.seeds.append(seed)
        steps = [self.said[question].pop(0) for question in questions]
        stops = ["length" if question in self.cut_off else "end" for question in questions]
        return [
            SimpleNamespace(steps=own, text="\n".join(own), bill=SimpleNamespace(stopped_by=stop))
            for own, stop in zip(steps, stops, strict=True)
        ]


def file_of(folder: Path, *questions: str) -> str:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps({"question": one, "answer": 4}) + "\n" for one in questions))
    return str(path)


def write(writer: Writer, name: str, out: Path, **how: Any) -> dict[str, int]:
    tasks = {name: problems_to_train_on(name)}
    found: Any = writer
    return write_solutions(found, tasks, out, Drawing(**how), say=lambda _: None)


FOUR, FIVE = ["2 and 2.", "The answer is 4."], ["The answer is 5."]


def test_right_solutions_are_written_once_and_can_be_trained_on(tmp_path: Path) -> None:
    name, out = file_of(tmp_path, "a?", "b?"), tmp_path / "out.jsonl"
    writer = Writer({"a?": [FOUR, FIVE, FOUR], "b?": [FIVE, ["It is 4.", "The answer is 4."], FOUR]})
    counts = write(writer, name, out, samples=3, temperature=1.0, together=2)
    assert counts == {"written": 3, "wrong": 2, "unfinished": 0, "twice": 1}
    found = {(one.question, tuple(one.steps)) for one in load_written(out)}
    assert found == {("a?", tuple(FOUR)), ("b?", tuple(FOUR)), ("b?", ("It is 4.", "The answer is 4."))}
    assert all(one.solved_by("The answer is 4.0") for one in load_written(out)), "compared as a number still"
    assert [len(batch) for batch in writer.asked] == [2, 2, 2]
    assert len(set(writer.seeds)) == 3, "batches that were drawn alike would have one another's words"


def test_a_run_that_was_cut_off_goes_on_and_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    name = file_of(tmp_path, "a?", "b?", "c?")
    said = {"a?": [FOUR], "b?": [FOUR], "c?": [FIVE]}
    whole = Writer(said)
    write(whole, name, tmp_path / "whole.jsonl", together=1)
    last = whole.asked[-1][0]
    with pytest.raises(IndexError):
        write(Writer(said | {last: []}), name, tmp_path / "cut.jsonl", together=1)
    again = Writer(said)
    assert write(again, name, tmp_path / "cut.jsonl", together=1)["written"] == 2
    assert again.asked == [[last]]
    assert (tmp_path / "cut.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    other = Writer(said)
    write(other, name, tmp_path / "cut.jsonl", together=1, seed=1)
    assert len(other.asked) == 3, "another setting is asked anew"


def test_more_problems_of_the_same_are_all_that_is_solved(tmp_path: Path) -> None:
    write(Writer({"a?": [FOUR]}), file_of(tmp_path, "a?"), tmp_path / "out.jsonl", together=4)
    more = Writer({"b?": [FOUR], "c?": [FIVE]})
    counts = write(more, file_of(tmp_path, "a?", "b?", "c?"), tmp_path / "out.jsonl", together=4)
    assert (counts["written"], counts["wrong"]) == (2, 1)
    assert sorted(more.asked[0]) == ["b?", "c?"]


def test_what_did_not_end_or_holds_an_end_within_a_step_is_left_out(tmp_path: Path) -> None:
    torn = ["One\nstep.", "The answer is 4."]
    writer = Writer({"a?": [FOUR], "b?": [torn], "c?": [FOUR]}, cut_off=("c?",))
    counts = write(writer, file_of(tmp_path, "a?", "b?", "c?"), tmp_path / "out.jsonl")
    assert counts == {"written": 1, "wrong": 0, "unfinished": 2, "twice": 0}


def test_a_problem_that_fills_the_window_is_found_first(tmp_path: Path) -> None:
    writer = Writer({})
    with pytest.raises(DataError, match="takes"):
        write(writer, file_of(tmp_path, "a?", "why " * writer.backbone.window), tmp_path / "out.jsonl")
    assert writer.asked == []


def test_what_is_drawn_does_not_hang_on_what_was_done_before(tmp_path: Path) -> None:
    name, how = file_of(tmp_path, "a?", "b?", "c?"), {"samples": 2, "temperature": 1.0, "together": 2}
    said = {"a?": [FOUR, FIVE], "b?": [FOUR, FIVE], "c?": [FOUR, FIVE]}
    whole = Writer(said)
    write(whole, name, tmp_path / "whole.jsonl", **how)
    last = whole.asked[-1]
    with pytest.raises(IndexError):
        write(Writer(said | {last[0]: []}), name, tmp_path / "cut.jsonl", **how)
    again = Writer(said)
    write(again, name, tmp_path / "cut.jsonl", **how)
    assert again.asked == [last]
    assert again.seeds == whole.seeds[-1:]


def test_puzzles_are_none_that_evaluations_ask(tmp_path: Path) -> None:
    trained, asked = problems_to_train_on("machine-3", 20), reasoning_task("machine-3", 20)
    assert len({one.question for one in trained}) == 20
    assert not any(held_out(one.question) for one in trained)
    assert all(held_out(one.question) for one in asked)
    assert not {one.question for one in trained} & {one.question for one in asked}
    assert problems_to_train_on("machine-3", 20, seed=1) != trained
    with pytest.raises(DataError, match="must not be trained on"):
        problems_to_train_on("gsm8k_test")
    with pytest.raises(DataError, match="There is no task 'shuffle'") as raised:
        problems_to_train_on("shuffle")
    assert "shuffle-12" in str(raised.value)
    assert "gsm8k_test" not in str(raised.value)


def test_nothing_right_is_nothing_to_train_on(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match="No solution is right"):
        write(Writer({"a?": [FIVE]}), file_of(tmp_path, "a?"), out)
    assert not out.exists()
    with pytest.raises(LaconicError, match="all 2 solutions of a problem are one"):
        Drawing(samples=2)
