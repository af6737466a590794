"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) under a temporary name, then rename: a kill leaves the old file, never half.

    Of two writers one wins. A link stays one; what it points to is replaced.
    """
    path = Path(os.path.realpath(path))
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on an empty file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def is_file(name: str) -> bool:
    """Whether there is a file of this name, whatever else the name may be: a task's, or a whole text."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a file name, or with a null character: then it is no file's
        return False
