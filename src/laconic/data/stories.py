"""bAbI's stories as needles: hidden in books sentence by sentence, as BABILong (arXiv 2406.10149) hides them."""

from __future__ import annotations

import os
import random
import re

from laconic.data.folder import data_file
from laconic.data.jsonl import Record, parsed
from laconic.data.needles import Maker, Needle
from laconic.errors import DataError

NAME = re.compile(r"babi-(qa\d+)")
FILES = {True: "babi_train", False: "babi_test"}


def is_story(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def load_stories(name: str, folder: str | os.PathLike[str] | None = None, *, training: bool) -> list[list[Needle]]:
    """Every story of a task such as ``babi-qa1``: a needle for each of its questions, with the facts before it.

    Args:
        training: the stories to train on; False gives those kept for evaluation, without the questions that the former
            have as well, word for word with all their facts (bAbI's own splits overlap in the simplest tasks).

    Raises:
        DataError: the file or the task is missing.
    """
    match = NAME.fullmatch(name)
    assert match is not None, f"{name} is no task of bAbI"
    stories = _read(match[1], folder, training)
    if training:
        return stories
    trained = {_asked(needle) for story in _read(match[1], folder, True) for needle in story}
    fresh = [[needle for needle in story if _asked(needle) not in trained] for story in stories]
    return [story for story in fresh if story]


def _read(task: str, folder: str | os.PathLike[str] | None, training: bool) -> list[list[Needle]]:
    path = data_file(FILES[training], folder)
    each = parsed(path, "bAbI", lambda record: _questions(record) if record["task"].split("_")[0] == task else [])
    found = [story for story in each if story]
    if not found:
        raise DataError(f"{path} has no task {task}.", "There are qa1 to qa20.")
    return found


def _asked(needle: Needle) -> tuple[str, ...]:
    return (*needle.sentences, needle.question)


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
        answers = tuple(line["answer"].split(","))
        needles.append(Needle(sentences, line["question"], answers, ("story",), support))
    return needles
