"""A bar for whoever watches a long evaluation."""

from __future__ import annotations

import pytest

from laconic.eval.watching import watched


def test_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a terminal
    assert list(watched(iter("abc"), 3, "mine[1].jsonl  comet")) == ["a", "b", "c"]
    shown = capsys.readouterr()
    assert "mine[1].jsonl  comet" in shown.err
    assert "100%" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("variable", ["TTY_COMPATIBLE", "NO_COLOR"])
def test_a_file_sees_nothing(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "0" if variable == "TTY_COMPATIBLE" else "1")
    assert list(watched(range(3), 3, "mine")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
