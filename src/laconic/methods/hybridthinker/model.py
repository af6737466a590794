"""HybridThinker (arXiv 2606.03768): as LightThinker, and the last few steps stay readable for a while."""

from __future__ import annotations

from laconic.methods.hybridthinker.config import HybridThinkerConfig
from laconic.methods.thinking.retaining import RetainingThinker


class HybridThinker(RetainingThinker):
    """Memory tokens of all finished steps, and the words of the last ``retention`` of them."""

    name = "hybridthinker"
    options = HybridThinkerConfig
    goes_on_from = ("vanilla", "lightthinker")  # whose memory it keeps
    config: HybridThinkerConfig

    @property
    def memory_rows(self) -> int:
        return self.config.memory_tokens

    def memory_count(self, words: int) -> int:
        return self.config.memory_tokens
