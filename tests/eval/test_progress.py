"""Logs of trainings on own answers, and their picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from laconic.eval.progress import draw_progress, read_log

LINES = [
    {"step": 0, "samples": 0, "seconds": 0.5, "asked/right": 0.1, "asked/steps": 0.2},
    {"step": 1, "samples": 16, "seconds": 9.0, "reward": 0.3},
    {"step": 2, "samples": 32, "seconds": 20.0, "reward": 0.4, "asked/right": 0.5, "asked/steps": 0.6},
]


def test_of_a_log_those_lines_are_read_in_which_problems_were_asked(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    assert read_log(path) == [LINES[0], LINES[2]]


def test_the_picture_has_every_training(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "progress.png"
    draw_progress({"tgpo": [LINES[0], LINES[2]], "grpo": [LINES[0]]}, path, "two of them")
    assert path.read_bytes().startswith(b"\x89PNG")
