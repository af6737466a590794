"""``laconic write``: a method's own solutions as training data."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from outcomes import Run, assert_refused
from thinkers import thinker

from laconic.data.training import load_written
from laconic.methods.thinking.model import Thinker

FOUR = ["2 and 2.", "The answer is 4."]


def file_of(folder: Path, question: str) -> str:
    path = folder / "mine.jsonl"
    path.write_text(json.dumps({"question": question, "answer": 4}))
    return str(path)


def test_the_command_writes_what_a_method_says(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thinker("vanilla").save_pretrained(tmp_path / "adapter")
    name, out = file_of(tmp_path, "What is 2 and 2?"), tmp_path / "out.jsonl"
    options = ["--adapter", str(tmp_path / "adapter"), "--out", str(out), "--max-new-tokens", "5"]
    outcome = run("write", name, *options)  # it says whatever comes
    assert outcome.status == 2
    assert "error: No solution is right" in outcome.err
    right = [SimpleNamespace(steps=FOUR, text="\n".join(FOUR), bill=SimpleNamespace(stopped_by="end"))]
    monkeypatch.setattr(Thinker, "solve", lambda *_, **__: right)
    outcome = run("write", name, *options, "--seed", "1")
    assert outcome.status == 0, outcome.err
    assert outcome.out.endswith(f"1 solutions in {out}\n")
    assert [one.steps for one in load_written(out)] == [FOUR]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--method", "ram"], "no method 'ram' that reasons"), (["--out", "x.json"], "not named as recipes"),
        (["--samples", "2"], "are one"), (["--out", "./mine.jsonl"], "one of the files that are read"),
        (["--out", "mine.items.jsonl"], "not written by this command"),
    ],
)  # fmt: skip
def test_slips_are_found_before_a_model_is_loaded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
) -> None:
    """A user's own file is never written over, however it is named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.items.jsonl").write_text("mine")
    assert_refused(run("write", file_of(tmp_path, "a?"), *options), told)
    assert_refused(run("write", "mine.items.jsonl", "--out", "mine.jsonl"), "one of the files that are read")
    assert (tmp_path / "mine.items.jsonl").read_text() == "mine"
