"""Where the data files are."""

from __future__ import annotations

import os
from pathlib import Path

from laconic.errors import DataError


def data_file(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """The packed file of this name in a folder, by default ``$LACONIC_DATA``, else ``../shared/data``.

    Raises:
        DataError: it is not there.
    """
    path = Path(folder or os.environ.get("LACONIC_DATA") or "../shared/data") / f"{name}.jsonl.gz"
    if not path.is_file():
        raise DataError(
            f"There is no file {path}.", "Name the folder of the data with $LACONIC_DATA, or --data of `laconic eval`."
        )
    return path
