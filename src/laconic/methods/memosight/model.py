"""MemoSight (arXiv 2604.14889): as LightThinker, and several words at a time, by guesses of foresight tokens."""

from __future__ import annotations

from laconic.methods.memosight.config import MemoSightConfig
from laconic.methods.thinking.retaining import RetainingThinker


class MemoSight(RetainingThinker):
    """A memory token for every few words of a finished step; foresight tokens that guess the next words."""

    name = "memosight"
    options = MemoSightConfig
    goes_on_from = ("vanilla", "lightthinker", "hybridthinker")  # whose memory it keeps, where both have as many rows
    config: MemoSightConfig

    @property
    def memory_rows(self) -> int:
        longest = -(-self.config.max_step_tokens // self.config.compression)
        return min(longest, self.config.max_memory)  # no step needs more

    def memory_count(self, words: int) -> int:
        return min(-(-words // self.config.compression), self.memory_rows)

    @property
    def guesses(self) -> int:
        return self.config.foresight

    @property
    def foresight_weight(self) -> float:
        return self.config.foresight_weight if self.guesses else 0.0
