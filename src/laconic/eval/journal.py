"""The journal beside a result: a line for every finished item, so that a run that was cut off goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from laconic.errors import DataError

Line = dict[str, Any]


def journal_of(out: Path) -> Path:
    """Where the journal of a result is."""
    return out.with_suffix(".items.jsonl")


class Journal:
    """Finished items, by the key of their setting and the digest of what they are.

    Args:
        out: the result; the journal has its name with the suffix ``.items.jsonl``.

    Raises:
        DataError: it cannot be written (found before the work).
    """

    def __init__(self, out: Path) -> None:
        self.path = journal_of(out)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("a").close()
        except OSError as error:
            raise DataError(
                f"{out} cannot be written: {error}.", "Choose a file in a folder you may write to."
            ) from error
        self.done = {(line["setting"], line["item"]): line for line in _finished(self.path)}

    def add(self, line: Line) -> None:
        """Write an item down, at once."""
        with self.path.open("a", encoding="utf-8") as book:
            book.write(json.dumps(line) + "\n")
        self.done[line["setting"], line["item"]] = line


def _finished(path: Path) -> Iterator[Line]:
    """The journal's whole lines; one that a kill tore is dropped, and the file ends in a line break again."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if text and not text.endswith("\n"):
        with path.open("a") as book:
            book.write("\n")
    for written in text.splitlines():
        try:
            line = json.loads(written)
        except ValueError:
            continue
        # lines of before items had digests cannot say what they were made of
        if isinstance(line, dict) and {"item", "setting"} <= set(line):
            yield line
