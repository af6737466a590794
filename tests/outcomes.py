"""What a run of the command line left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Outcome:
    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status == 2
    assert outcome.out == ""
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in outcome.err
    assert outcome.err.count("error: ") == 1
    for word in words:
        assert word in last
