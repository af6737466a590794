"""The hyper-parameters of LightThinker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laconic.core.options import option
from laconic.errors import LaconicError
from laconic.methods.thinking.config import ThinkingConfig


@dataclass(frozen=True, kw_only=True)
class LightThinkerConfig(ThinkingConfig):
    """LightThinker (arXiv 2502.15589). The paper has 9 memory tokens for Qwen2.5-7B and 7 for Llama3.1-8B."""

    title: ClassVar[str] = "LightThinker"

    memory_tokens: int = option(9, "memory tokens L that keep a step")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_memory(self.memory_tokens)


def require_memory(tokens: int) -> None:
    """Raise ``LaconicError`` for a step that nothing is kept of."""
    if tokens < 1:
        raise LaconicError("memory_tokens must be at least 1.", "vanilla is the method that compresses nothing.")
