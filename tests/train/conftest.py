"""What trainings read in tests: no test needs data that is not in this repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from comets import BOOK, write_records


@pytest.fixture
def books(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data that holds two books and nothing else."""
    folder = tmp_path_factory.mktemp("data")
    for part in (0, 1):
        write_records(folder / f"books_train_{part}.jsonl.gz", {"text": BOOK})
    monkeypatch.setenv("LACONIC_DATA", str(folder))
    return folder
