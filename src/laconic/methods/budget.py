"""The mildest compression that fits: ``--factor auto``."""

from __future__ import annotations

from laconic.errors import BudgetError


def auto_budget(window: int, prompt_tokens: int, max_new_tokens: int, budget: int | None = None) -> int:
    """Context tokens that the window leaves beside question and answer, or ``budget`` where that is less.

    Raises:
        BudgetError: the question and the answer leave no room.
    """
    room = window - prompt_tokens - max_new_tokens
    if room < 1:
        raise BudgetError(
            f"The question ({prompt_tokens} tokens) and the answer ({max_new_tokens}) fill the window of {window}.",
            "Ask a shorter question or lower --max-new-tokens.",
        )
    return room if budget is None else min(room, budget)
