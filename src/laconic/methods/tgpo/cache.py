"""A teacher's scores on disk: an answer that comes again, in another run or epoch, is not scored again."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from laconic.errors import DataError
from laconic.methods.tgpo.teacher import Scores, TeacherScorer


class CachedTeacher:
    """A scorer whose answers are kept in a SQLite file, by the teacher's version and the exact tokens.

    Args:
        path: the file; several processes may share it.

    Raises:
        DataError: the file cannot be opened, or is something else.
    """

    def __init__(self, teacher: TeacherScorer, path: str | os.PathLike[str]) -> None:
        self.teacher, self.path = teacher, Path(path)
        self.version = teacher.version  # of many parameters; a teacher does not change
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.store = sqlite3.connect(self.path, timeout=60)
            self.store.execute("create table if not exists scores (key text primary key, content blob not null)")
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{path} cannot be used as a cache: {error}.", "Name another file.") from error

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
                real = answer_mask[place].bool()
                own = [getattr(fresh, name)[row][real].double().cpu().numpy() for name in ("ids", "log_probs", "said")]
                known[keys[place]] = np.stack(own)
            with self.store:
                self.store.executemany(
                    "insert or replace into scores values (?, ?)",
                    [(keys[place], known[keys[place]].tobytes()) for place in missing],
                )
        filled = []
        for number, kind in enumerate((torch.long, torch.float32, torch.float32)):
            whole = torch.zeros(answer.shape, dtype=kind, device=answer.device)
            for place, key in enumerate(keys):
                whole[place, answer_mask[place].bool()] = torch.from_numpy(known[key][number]).to(whole)
            filled.append(whole)
        return Scores(*filled)

    def _key(self, prompt: Tensor, answer: Tensor) -> str:
        digest = hashlib.sha256(self.version.encode())
        for part in (prompt, answer):
            digest.update(part.to("cpu", torch.int64).numpy().tobytes() + b"/")
        return digest.hexdigest()

    def _found(self, key: str) -> np.ndarray | None:
        row = self.store.execute("select content from scores where key = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(row[0]).reshape(3, -1)
