"""A bar for whoever watches a long evaluation in a terminal; files and pipes see nothing of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import track

T = TypeVar("T")


def watched(work: Iterable[T], total: int, what: str) -> Iterable[T]:
    """The same, one after the other, on standard error with how many of ``total`` are done and how long the rest takes.

    Args:
        what: is being done, in words.
    """
    people = Console(stderr=True)
    watching = people.is_terminal and total > 0
    return track(work, escape(what), total=total, console=people, transient=True, disable=not watching)
