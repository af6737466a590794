"""Whole books: the filler that needles are hidden in, and text to read on."""

from __future__ import annotations

import os
from importlib.resources import files

from laconic.data.folder import data_file
from laconic.data.jsonl import Record, parsed
from laconic.errors import DataError

#: files of books, and whether they may be trained on
BOOKS: dict[str, tuple[tuple[str, ...], bool]] = {
    "books_train": (("books_train_0", "books_train_1"), True),
    "books_val": (("books_val",), False),
}
SAMPLE = "sample_book"


def load_books(name: str, folder: str | os.PathLike[str] | None = None, *, training: bool = False) -> list[str]:
    """The texts of a set of books; ``sample_book`` is the one inside this package.

    Raises:
        DataError: an unknown or missing set, or one that must not be trained on.
    """
    if name == SAMPLE and not training:
        return [(files("laconic") / "data/samples/twelve-years-a-slave.txt").read_text(encoding="utf-8")]
    if name != SAMPLE and name not in BOOKS:
        raise DataError(f"There are no books {name!r}.", f"Choose from: {', '.join([*BOOKS, SAMPLE])}.")
    parts, trained = BOOKS.get(name, ((), False))  # the sample is one of those kept for evaluation
    if training and not trained:
        raise DataError(f"{name} is kept for evaluation and must not be trained on.", "Choose training data.")
    return [text for part in parts for text in parsed(data_file(part, folder), part, _text)]


def _text(record: Record) -> str:
    text = record["text"]
    if not isinstance(text, str):
        raise TypeError("its text is none")
    return text
