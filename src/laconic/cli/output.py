"""What commands print for programs, and files they write."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from laconic.errors import DataError


def print_json(value: Any) -> None:
    """One line of JSON; where it holds what standard output cannot (a file's name that is no text), in ASCII."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")  # a closed output has none
    except UnicodeEncodeError:
        text = json.dumps(value)
    print(text)


def check_writable(out: Path) -> None:
    """Raise ``DataError`` for a result that could not be written, with its journal, table and plot beside it."""
    if out.suffix != ".json" and not out.is_dir():  # these have the other suffixes
        raise DataError(f"{out} is not named as JSON.", f"Write {out}.json.")
    check_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)


def check_place(out: Path) -> None:
    """Raise ``DataError`` for a file that could not be written, in folders that may still have to be made."""
    try:
        tempfile.TemporaryFile(dir=next(parent for parent in out.absolute().parents if parent.exists())).close()
        if out.is_dir():
            raise IsADirectoryError(21, "it is a folder")
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}.", "Choose a file in a folder you may write to."
        ) from error
