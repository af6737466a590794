"""``laconic ARGS`` in this process."""

from __future__ import annotations

import sys

import pytest
from outcomes import Outcome, Run
from tiny import tiny_backbone

from laconic.cli.main import main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``laconic ARGS`` in this process; the backbone is tiny, all else is real."""
    backbone = tiny_backbone()
    for module in ("ask", "compress", "evaluate", "evaluate_reasoning", "label", "profile", "read", "think", "write"):
        monkeypatch.setattr(f"laconic.cli.{module}.open_backbone", lambda *_: backbone)

    def call(*args: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["laconic", *args])
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 0
        return Outcome(status, *capsys.readouterr())

    return call
