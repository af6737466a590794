"""The hyper-parameters of HybridThinker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laconic.core.options import option
from laconic.errors import LaconicError
from laconic.methods.lightthinker.config import require_memory
from laconic.methods.thinking.config import RetainingConfig


@dataclass(frozen=True, kw_only=True)
class HybridThinkerConfig(RetainingConfig):
    """HybridThinker (arXiv 2606.03768). The defaults are the paper's: w = 4, which is R = 3, and two shortcuts."""

    title: ClassVar[str] = "HybridThinker"

    memory_tokens: int = option(9, "memory tokens L that keep a step")
    retention: int = option(3, "finished steps R that stay readable as they were written")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_memory(self.memory_tokens)
        if self.retention < 1:
            raise LaconicError("retention must be at least 1.", "lightthinker is the method that keeps no step.")
