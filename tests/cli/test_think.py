"""``laconic think``: what it prints, and what it refuses before any work."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from outcomes import Run, assert_refused
from rich.console import Console
from thinkers import KINDS, thinker

from laconic.cli.think import _Watched

PROBLEM = "First we add the two numbers."


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("adapters")
    for kind in KINDS:
        thinker(kind).save_pretrained(root / kind)
    return {kind: str(root / kind) for kind in KINDS}


@pytest.mark.parametrize("kind", list(KINDS))
def test_one_json_object_and_nothing_else(run: Run, adapters: dict[str, str], kind: str) -> None:
    method = thinker(kind).name
    options = ["--method", method, "--adapter", adapters[kind], "--max-new-tokens", "30"]
    outcome = run("think", PROBLEM, *options, "--json")
    assert outcome.status == 0, outcome.err
    assert not outcome.err
    told = json.loads(outcome.out)
    wanted = thinker(kind).solve([PROBLEM], max_new_tokens=30)[0]
    assert told["answer"] == wanted.answer
    assert told["steps"] == wanted.steps
    assert told["generated_tokens"] == len(wanted.bill.words)
    assert told["peak_cache_tokens"] == wanted.bill.peak_tokens
    assert told["forwards"] == wanted.bill.forwards
    assert told["tokens_per_forward"] == pytest.approx(wanted.bill.tokens_per_forward, abs=1e-3)
    assert set(told["seconds"]) == {"prefill", "decode"}
    shown = run("think", PROBLEM, *options)
    assert shown.status == 0
    assert " ".join(shown.out.split()) == " ".join(wanted.answer.split())  # the answer alone on stdout
    assert "in the cache" in shown.err
    assert ("a pass" in shown.err) == (thinker(kind).guesses > 0)
    assert "bill" in shown.err


def test_a_stop_text(run: Run, adapters: dict[str, str]) -> None:
    options = ["--method", "vanilla", "--adapter", adapters["vanilla"], "--max-new-tokens", "30", "--json"]
    text = thinker("vanilla").solve([PROBLEM], max_new_tokens=30)[0].text
    told = json.loads(run("think", PROBLEM, *options, "--stop", text[10:13], "--stop", "never said").out)
    assert told["stopped_by"] == "stop"
    assert told["generated_tokens"] < 30
    assert_refused(run("think", PROBLEM, *options, "--stop", ""), "list of texts")


def test_a_problem_from_stdin(run: Run, adapters: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--method", "vanilla", "--adapter", adapters["vanilla"], "--max-new-tokens", "9", "--json"]
    monkeypatch.setattr("sys.stdin", io.StringIO(PROBLEM))
    assert (
        json.loads(run("think", "-", *options).out)["steps"] == json.loads(run("think", PROBLEM, *options).out)["steps"]
    )


def test_slips_are_told_in_one_line(run: Run, adapters: dict[str, str], tmp_path: Path) -> None:
    light = ["--adapter", adapters["lightthinker"]]
    assert_refused(run("think", " "), "empty")
    assert_refused(run("think", PROBLEM, "--seed", str(2**32)), "--seed")
    assert_refused(run("think", PROBLEM, "--method", "ram"), "no method 'ram' that reasons")
    assert_refused(run("think", PROBLEM, "--method", "lightthinker"), "no trained")
    assert_refused(run("think", PROBLEM, "--method", "memosight", *light), "lightthinker")
    assert_refused(run("think", PROBLEM, "--method", "lightthinker", "--adapter", str(tmp_path / "none")), "none")
    assert_refused(run("think", PROBLEM * 200, "--method", "lightthinker", *light), "fills the window")
    assert_refused(run("think", PROBLEM, "--max-new-tokens", "0"), "max-new-tokens")
    assert_refused(
        run("think", PROBLEM, "--method", "lightthinker", *light, "--repetition-penalty", "0"), "repetition_penalty"
    )


def test_a_pass_that_says_one_word_is_shown_as_one() -> None:
    """The first word comes with the prompt, and is of no pass."""
    out = io.StringIO()
    model = thinker("memosight", foresight=0)
    watched = _Watched(model, Console(file=out, width=200))
    watched.guesses = True
    model.solve([PROBLEM], max_new_tokens=30, on_text=watched.show)
    rates = re.findall(r"([0-9.]+) a pass", out.getvalue())
    assert len(rates) >= 2
    assert set(rates) == {"1.0"}
