"""bAbI's stories as needles: hidden in books sentence by sentence, they are BABILong's tasks (arXiv 2406.10149)."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

from laconic.data.jsonl import Record, records
from laconic.data.needles import Maker, Needle
from laconic.errors import DataError

NAME = re.compile(r"babi-(qa\d+)")
FILES = {True: "babi_train", False: "babi_test"}


def is_story(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def load_stories(name: str, folder: str | os.PathLike[str] | None = None, *, training: bool) -> list[list[Needle]]:
    """Every story of a task such as ``babi-qa1``: a needle for each of its questions, with the facts before it.

    Args:
        training: the stories to train on; False gives those kept for evaluation.

    Raises:
        DataError: the file or the task is missing.
    """
    match = NAME.fullmatch(name)
    assert match is not None, f"{name} is no task of bAbI"
    path = Path(folder or os.environ.get("LACONIC_DATA") or "../shared/data") / f"{FILES[training]}.jsonl.gz"
    found = [_questions(record) for _, record in records(path) if record["task"].split("_")[0] == match[1]]
    if not found:
        raise DataError(f"{path} has no task {match[1]}.", "There are qa1 to qa20.")
    return found


def any_of(stories: list[list[Needle]]) -> Maker:
    """Draws a story and one of its questions."""

    def maker(draw: random.Random) -> Needle:
        return draw.choice(draw.choice(stories))

    return maker


def _questions(record: Record) -> list[Needle]:
    facts: list[Record] = []
    needles = []
    for line in record["lines"]:
        if "question" not in line:
            facts.append(line)
            continue
        support = tuple(place for place, fact in enumerate(facts) if fact["n"] in line["support"])
        sentences = tuple(f" {fact['fact']}" for fact in facts)
        needles.append(Needle(sentences, line["question"], (line["answer"],), "story", support))
    return needles
