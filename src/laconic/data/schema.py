"""The one record every question-answering task is turned into."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class QAItem:
    """A question about a document.

    Attributes:
        answers: accepted answers; the first is the one to train on.
        evidence: character spans of ``document`` that bear the answer; empty where nobody marked them.
        document_id: the same for all questions about one document.
        parts: where the answer is a list, what must be in it, in any order.
    """

    id: str
    document: str
    question: str
    answers: list[str]
    evidence: list[tuple[int, int]]
    document_id: str
    parts: list[str] = field(default_factory=list)


def by_document(items: Iterable[QAItem]) -> dict[str, list[QAItem]]:
    """The questions about each document, documents and questions in the order they came."""
    found: dict[str, list[QAItem]] = {}
    for item in items:
        found.setdefault(item.document_id, []).append(item)
    return found
