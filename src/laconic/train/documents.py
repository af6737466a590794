"""Documents with questions, as stages name them: some tasks, and how much of a document is taken."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from laconic.core.files import names_lines
from laconic.core.segments import Range
from laconic.data.schema import QAItem, by_document
from laconic.data.training import load_for_training
from laconic.errors import DataError, RecipeError
from laconic.train.checks import positive

#: what such a stage says
KEYS = ("data", "excerpt")


def check_documents(stage: dict[str, Any], where: str, look: str) -> None:
    """Raise ``RecipeError`` for a slip in what a stage says of its documents.

    Args:
        look: where to see an example.
    """
    excerpt = stage["excerpt"]
    check_data(stage["data"], where, look)
    if excerpt is not None and not (
        isinstance(excerpt, list) and len(excerpt) == 2 and all(map(positive, excerpt)) and excerpt[0] <= excerpt[1]
    ):
        raise RecipeError(f"{where}: excerpt must be null, or two numbers of characters, from and to.", look)


def check_data(data: object, where: str, look: str) -> None:
    """Raise ``RecipeError`` for what names no tasks or files with a number of items each."""
    named = isinstance(data, dict) and data and all(isinstance(name, str) for name in data)
    if not named or not all(n is None or positive(n) for n in data.values()):  # type: ignore[attr-defined]
        raise RecipeError(f"{where}: data must map tasks to a number of items, or to null for all.", look)


def load_documents(stage: dict[str, Any]) -> list[QAItem]:
    """Raises ``DataError`` for what is missing, must not be trained on, or has no evidence to learn from."""
    found = {name: load_for_training(name, limit=limit) for name, limit in stage["data"].items()}
    for name, items in found.items():
        if not any(item.evidence for item in items):
            raise DataError(f"No question of {name} has its evidence marked.", "Train on another task.")
    # of a user's file, what cannot be learnt from is left out; tasks are as they always were
    return [item for name, items in found.items() for item in items if item.evidence or not names_lines(name)]


@dataclass(frozen=True)
class Group:
    """A document, some of its questions with their answers, and the evidence of each."""

    document: str
    questions: list[str]
    answers: list[str]
    evidence: list[list[Range]]


class DocumentGroups:
    """Groups of questions by document; the group of a step follows from the step's number and the seed alone."""

    def __init__(self, items: Sequence[QAItem], questions: int, excerpt: tuple[int, int] | None, seed: int) -> None:
        """
        Args:
            questions: most questions to take of one document.
            excerpt: characters of the excerpt to take of a document, from and to; None takes it whole.
        """
        self.documents = list(by_document(items).values())
        self.questions, self.excerpt, self.seed = questions, excerpt, seed

    def __call__(self, index: int) -> Group:
        epoch, place = divmod(index, len(self.documents))
        order = list(range(len(self.documents)))
        random.Random(f"{self.seed}/{epoch}").shuffle(order)
        items = self.documents[order[place]]
        draw = random.Random(f"{self.seed}/{index}")
        document = items[0].document
        start, end = 0, len(document)
        if self.excerpt is not None and len(document) > self.excerpt[0]:
            size = min(len(document), int(draw.uniform(*self.excerpt)))
            start = draw.randrange(0, len(document) - size + 1)
            end = start + size
        inside = [item for item in items if any(start <= a and b <= end for a, b in item.evidence)]
        chosen = draw.sample(inside, min(self.questions, len(inside)))
        return Group(
            document[start:end],
            [item.question for item in chosen],
            [item.answers[0] for item in chosen],
            [[(a - start, b - start) for a, b in item.evidence if start <= a and b <= end] for item in chosen],
        )
