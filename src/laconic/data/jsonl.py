"""JSON lines, plain or gzipped, with errors that name the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from laconic.errors import DataError

Record = dict[str, Any]
Made = TypeVar("Made")


def parsed(path: Path, what: str, make: Callable[[Record], Made]) -> list[Made]:
    """What is made of each object of a file that is expected to hold such.

    Args:
        what: of what they are records.

    Raises:
        DataError: as ``records``; also for an object of another shape, by its line, and for a file without any.
    """
    found = []
    for number, record in records(path):
        try:
            found.append(make(record))
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                f"{path}, line {number} is not a record of {what} ({type(error).__name__}: {error}).",
                "Fetch the file again, or name another folder with --data.",
            ) from error
    if not found:
        raise DataError(f"{path} holds no records.", "Fetch the file again.")
    return found


def records(path: Path) -> Iterator[tuple[int, Record]]:
    """The objects with their line numbers, counted from 1; blank lines are passed over.

    Raises:
        DataError: no such file, damaged, not UTF-8, or a line that is not a JSON object.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Check the path.")
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError("not an object")
                    yield number, record
    except UnicodeDecodeError as error:  # text is decoded in blocks, so this line is only near the fault
        raise DataError(f"{path}, after line {number}: not UTF-8 ({error}).", "Save the file as UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}, after line {number}: {error}.", "The file is damaged; fetch or pack it again."
        ) from error
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise DataError(f"{path}, line {number}: {what}.", "Each line must be one JSON object.") from error
