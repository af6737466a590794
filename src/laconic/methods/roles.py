"""The roles a method can play. Small protocols: implement the narrowest that fits."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from laconic.core.results import Compressed


@runtime_checkable
class Compressor(Protocol):
    """Shortens a context, with or without a query in mind.

    Attributes:
        query_aware: whether the result depends on the query. If not, one result serves every
            question about a document.
    """

    query_aware: bool

    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        """Shorten ``context`` to ``ratio`` of its tokens, or to ``budget`` tokens (exactly one of the two is given).

        Raises:
            DocumentError: the context is empty.
            BudgetError: the ratio or budget cannot be delivered.
            QuestionError: the method needs a query and got none, or an empty one.
        """
        ...


@runtime_checkable
class Telling(Compressor, Protocol):
    """A compressor whose look at a text says something of how far it can be cut."""

    def features(self, context: str, query: str | None = None) -> list[float]:
        """Of a text, with a query in mind or without: ``pruning.summary.SIZE`` numbers."""
        ...
