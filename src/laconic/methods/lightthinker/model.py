"""LightThinker (arXiv 2502.15589): a finished step is replaced by a few memory tokens."""

from __future__ import annotations

from laconic.methods.lightthinker.config import LightThinkerConfig
from laconic.methods.thinking.model import Thinker


class LightThinker(Thinker):
    """Steps that are gone as soon as they are finished, but for ``memory_tokens`` memory tokens each."""

    name = "lightthinker"
    options = LightThinkerConfig
    goes_on_from = ("vanilla", "hybridthinker")  # which has the same memory, and reads more beside it
    config: LightThinkerConfig

    @property
    def memory_rows(self) -> int:
        return self.config.memory_tokens

    def memory_count(self, words: int) -> int:
        return self.config.memory_tokens
