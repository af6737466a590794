"""Whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from laconic.core.files import whole_file, write_whole


def test_text_and_bytes_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "result.table.md"
    write_whole(path, "ü\n")
    assert path.read_text(encoding="utf-8") == "ü\n"
    write_whole(path, b"\x89PNG")
    assert path.read_bytes() == b"\x89PNG"
    assert os.listdir(tmp_path) == [path.name]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_whole(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name], "nothing half-written is left"


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_whole(path, "old")

    def breaks_off() -> None:
        with whole_file(path) as file:
            file.write(b"half of it")
            raise KeyError

    with pytest.raises(KeyError):
        breaks_off()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_a_link_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    write_whole(real, "old")
    link.symlink_to(real)
    write_whole(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path, sizes, done = tmp_path / "result.json", set(), []

    def write(letter: str) -> None:
        for _ in range(20):
            write_whole(path, letter * 200_000)
        done.append(letter)

    write("a")
    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        sizes.add((path.stat().st_size, len(set(path.read_text()))))
    assert sizes == {(200_000, 1)}
    assert sorted(done) == ["a", "a", "b"], "nor does one stop the other"
