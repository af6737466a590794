"""Visibility rules like those the methods will bring, for the tests: as tensor predicates and in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from laconic.core.layout import Kind
from laconic.core.visibility import Rule, Tokens


@dataclass
class Token:
    """One token, for the plain versions."""

    row: int
    column: int
    kind: int
    step: int
    position: int


def finished_text_hidden(horizon: int, retained: Tensor | None = None) -> Rule:
    """A finished step's text stays readable through the memory tokens of the ``horizon``-th step after it, and is gone
    from that step's CONTINUE on. With ``retained`` (bool ``[B, steps]``) only those steps have a horizon at all.
    """

    def rule(q: Tokens, k: Tokens) -> Tensor:
        reach: Tensor | int = horizon if retained is None else horizon * retained[q.row, k.step]
        last = k.step + reach - (q.kind == Kind.CONTINUE).long()
        allowed = (k.step <= q.step) & (q.step <= last)
        return (k.kind != Kind.TEXT) | allowed

    return rule


def plain_finished_text_hidden(q: Token, k: Token, horizon: int, retained: Tensor | None = None) -> bool:
    if k.kind != Kind.TEXT:
        return True
    if retained is not None and not retained[q.row, k.step]:
        horizon = 0
    if q.kind == Kind.CONTINUE:
        return k.step <= q.step <= k.step + horizon - 1
    return k.step <= q.step <= k.step + horizon


def own_foresight_only(q: Tokens, k: Tokens) -> Tensor:
    """Foresight tokens are read by themselves alone, so several may stand in one sequence."""
    return (k.kind != Kind.FORESIGHT) | (k.column == q.column)


def plain_own_foresight_only(q: Token, k: Token) -> bool:
    return k.kind != Kind.FORESIGHT or k.column == q.column
