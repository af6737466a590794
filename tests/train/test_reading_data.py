"""The data part of a stage: what decides a batch, and how often each task comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comets import write_records
from tiny import tiny_backbone

from laconic.data.needles import NEEDLES
from laconic.train.examples import Examples
from laconic.train.reading_data import ReadingData, load_reading, reading_examples

TEXT = "The lighthouse keeper wrote down the weather every morning. " * 80
BACKBONE = tiny_backbone()


def made(seed: int = 0, **changes: Any) -> Examples:
    stage = {
        "name": "two", "task": ["number"], "chunk_tokens": 96, "chunks": [2], "plans": ["fixed"],
        "questions": 1, "distractors": 0, "rows": 2,
    } | changes  # fmt: skip
    makers = [NEEDLES[name] for name in stage["task"] if name in NEEDLES]
    return reading_examples(BACKBONE, stage, ReadingData([TEXT], makers, []), seed)


def texts(examples: Examples, steps: int = 12) -> list[str]:
    return [BACKBONE.tokenizer.decode(row.ids) for step in range(steps) for row in examples(step)]


def test_seed_and_name_decide() -> None:
    assert texts(made()) == texts(made())
    assert texts(made()) != texts(made(seed=1))
    assert texts(made()) != texts(made(name="three"))


def test_distractors_are_told_and_not_asked() -> None:
    for distractors in (0, 3):
        told = [text.count("'s number is") for text in texts(made(distractors=distractors))]
        assert set(told) == set(range(1, distractors + 2))
        assert all(text.count("Question:") == 1 for text in texts(made(distractors=distractors)))


def test_every_task_comes_as_often() -> None:
    """Kinds of needles share one source, which is drawn as often as there are kinds."""
    seen = texts(made(task=["passkey", "number", "place", "continuation"]), steps=100)
    running = sum("Question:" not in text for text in seen) / len(seen)
    assert 0.15 < running < 0.35


def test_a_task_that_is_named_twice_comes_twice_as_often(books: Path) -> None:
    def share(task: list[str], mark: str) -> float:
        seen = texts(made(task=task), steps=150)
        return sum(mark in text for text in seen) / len(seen)

    assert 0.25 < share(["passkey", "number", "continuation"], "The passkey is") < 0.42
    assert 0.42 < share(["passkey", "number", "passkey", "continuation"], "The passkey is") < 0.58
    assert 0.42 < share(["passkey", "continuation", "number", "continuation"], "Question:") < 0.58
    data = load_reading({"task": ["passkey", "number", "passkey"], "books": "books_train"})
    assert len(data.makers) == 3
    record = {"id": "1", "document": "A story.", "qas": [{"question": "What?", "answers": ["A story."]}]}
    write_records(books / "squality_train.jsonl.gz", record)
    data = load_reading({"task": ["squality_train", "continuation", "squality_train"], "books": "books_train"})
    assert [len(items) for items in data.documents] == [1, 1]
