"""A teacher's scores on disk: an answer that comes again, in another run or epoch, is not scored again."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from laconic.errors import DataError
from laconic.methods.tgpo.teacher import Scores, TeacherScorer

#: of what a file holds: 2 has a line to a token
LAYOUT = 2


class CachedTeacher:
    """A scorer whose answers are kept in a SQLite file, by the teacher's version and the exact tokens.

    Args:
        path: the file; several processes may share it.

    Raises:
        DataError: the file cannot be opened, or is something else; later, where it cannot be read or written.
    """

    def __init__(self, teacher: TeacherScorer, path: str | os.PathLike[str]) -> None:
        self.teacher, self.path = teacher, Path(path)
        self.version = teacher.version  # of many parameters; a teacher does not change
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.store = sqlite3.connect(self.path, timeout=60)
            self.store.execute("create table if not exists scores (key text primary key, content blob not null)")
            self.store.execute("select key, content from scores limit 0")  # another program's table may have that name
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{path} cannot be used as a cache: {error}.", "Name another file.") from error

    @property
    def window(self) -> int | None:
        """Positions the teacher has; None where nothing says so."""
        return getattr(self.teacher, "window", None)

    def score(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Scores:
        keys = [
            self._key(p[m.bool()], a[n.bool()])
            for p, m, a, n in zip(prompt, prompt_mask, answer, answer_mask, strict=True)
        ]
        known = {key: found for key in keys if (found := self._found(key)) is not None}
        missing = [place for place, key in enumerate(keys) if key not in known]
        if missing:
            fresh = self.teacher.score(*(part[missing] for part in (prompt, prompt_mask, answer, answer_mask)))
            for row, place in enumerate(missing):
                known[keys[place]] = _table(fresh, row, answer_mask[place].bool())
            self._keep({keys[place]: known[keys[place]] for place in missing})
        sizes = answer_mask.sum(1).tolist()
        tables = [known[key].reshape(size, -1) for key, size in zip(keys, sizes, strict=True) if size]
        return Scores.laid_out(_columns(np.concatenate(tables or [np.zeros((0, 3))])), answer_mask)

    def _key(self, prompt: Tensor, answer: Tensor) -> str:
        digest = hashlib.sha256(f"{LAYOUT} {self.version}".encode())
        for part in (prompt, answer):
            digest.update(part.to("cpu", torch.int64).numpy().tobytes() + b"/")
        return digest.hexdigest()

    def _found(self, key: str) -> np.ndarray | None:
        with self._named():
            row = self.store.execute("select content from scores where key = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(row[0])

    def _keep(self, tables: Mapping[str, np.ndarray]) -> None:
        with self._named(), self.store:
            lines = [(key, table.tobytes()) for key, table in tables.items()]
            self.store.executemany("insert or replace into scores values (?, ?)", lines)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Names the file's errors (it is locked for long, the disk is full), so that a training keeps a checkpoint."""
        try:
            yield
        except sqlite3.Error as error:
            raise DataError(
                f"The cache {self.path} failed: {error}.", "Make room, or let the process that holds it end."
            ) from error


def _table(scores: Scores, row: int, real: Tensor) -> np.ndarray:
    """All that is known of one answer, a line to a token: id, log-probability, that of what was said, and those of a
    soft target."""
    own = [column[row][real].double().cpu() for column in scores.columns]
    table: np.ndarray = torch.cat([one if one.ndim == 2 else one[:, None] for one in own], dim=1).numpy()
    return table


def _columns(table: np.ndarray) -> list[Tensor]:
    ids, log_probs, said, *rest = torch.from_numpy(table).unbind(1)
    found = [ids.long(), log_probs.float(), said.float()]
    if rest:
        top = torch.stack(rest, dim=1)
        found += [top[:, : len(rest) // 2].long(), top[:, len(rest) // 2 :].float()]
    return found
