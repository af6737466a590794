"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) as ``whole_file`` does."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write under a temporary name, renamed at the end: a kill or an error leaves the old file, never half.

    Of two writers one wins. A link stays one; what it points to is replaced.
    """
    path = Path(os.path.realpath(path))
    # a name may have 255 bytes
    begin = os.fsdecode(os.fsencode(path.name)[:200])
    part = path.with_name(f"{begin}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def names_lines(name: object) -> bool:
    """Whether this is named as a file of JSON lines is."""
    return isinstance(name, str) and name.endswith((".jsonl", ".jsonl.gz"))


def names_file(name: str) -> bool:
    """Whether a file is meant, and not a task: there is one of this name, or it is named as JSON lines are."""
    try:
        return names_lines(name) or Path(name).is_file()
    except (OSError, ValueError):  # too long for a file name, or with a null character: then it is no file's
        return False


def task_names(given: Sequence[str]) -> list[str]:
    """Names of tasks and files one by one: those of tasks may be joined by commas, as those of methods are."""
    return [name for one in given for name in ([one] if names_file(one) else one.split(","))]
