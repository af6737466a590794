"""Reasoning with nothing compressed: the decoder tuned on the same steps, which reads all it has said.

What the other reasoning methods are measured against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laconic.core.visibility import Rule, causal
from laconic.generation.thinking import Forgets
from laconic.methods.thinking.config import ThinkingConfig
from laconic.methods.thinking.model import Thinker


@dataclass(frozen=True, kw_only=True)
class VanillaConfig(ThinkingConfig):
    """Supervised fine-tuning on worked-out steps."""

    title: ClassVar[str] = "Vanilla"


class Vanilla(Thinker):
    """A backbone tuned to reason step by step."""

    name = "vanilla"
    options = VanillaConfig
    config: VanillaConfig

    @property
    def memory_rows(self) -> int:
        return 0

    def memory_count(self, words: int) -> int:
        return 0

    @property
    def forgets(self) -> Forgets:
        return "nothing"

    def rule(self, reach: object) -> Rule:
        return causal
