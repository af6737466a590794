"""AnLLM's anchors (arXiv 2402.07616) on reasoning: the token that ends a step is all that stays of it.

It reads its own step alone, and it is also what the next step goes on from: one token both compresses and continues,
which LightThinker parts into memory and restart tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from laconic.core.layout import Kind
from laconic.core.thoughts import finished_words_hidden
from laconic.core.visibility import Rule, Tokens
from laconic.methods.thinking.config import ThinkingConfig
from laconic.methods.thinking.model import Thinker


@dataclass(frozen=True, kw_only=True)
class AnchorsConfig(ThinkingConfig):
    """Anchors of AnLLM."""

    title: ClassVar[str] = "Anchors"


class Anchors(Thinker):
    """Steps of which only their last token stays."""

    name = "anchors"
    options = AnchorsConfig
    goes_on_from = ("vanilla",)
    config: AnchorsConfig

    @property
    def memory_rows(self) -> int:
        return 0

    def memory_count(self, words: int) -> int:
        return 0

    @property
    def anchors(self) -> bool:
        return True

    @property
    def reads_all(self) -> bool:
        return False  # an anchor does not

    def rule(self, reach: int | Tensor) -> Rule:
        hidden = finished_words_hidden(0)

        def own_step_alone(q: Tokens, k: Tokens) -> Tensor:
            return hidden(q, k) & ((q.kind != Kind.ANCHOR) | (k.step == q.step))

        return own_step_alone
