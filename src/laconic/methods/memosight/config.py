"""The hyper-parameters of MemoSight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laconic.core.options import option
from laconic.core.positions import Scheme
from laconic.errors import LaconicError
from laconic.methods.thinking.config import RetainingConfig


@dataclass(frozen=True, kw_only=True)
class MemoSightConfig(RetainingConfig):
    """MemoSight (arXiv 2604.14889). Defaults as in the paper; ``retention`` keeps steps as HybridThinker does."""

    title: ClassVar[str] = "MemoSight"

    layout: Scheme = option("uniform", "positions of memory tokens: sequential, or uniform over their step")
    compression: int = option(5, "words c that one memory token stands for")
    max_memory: int = option(300, "most memory tokens of a step")
    foresight: int = option(2, "words ahead that foresight tokens guess at the most; 0: none")
    foresight_weight: float = option(0.3, "share of the loss that is the guesses'")

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.compression, self.max_memory) < 1:
            raise LaconicError("compression and max_memory must be at least 1.")
        if self.foresight < 0 or not 0 <= self.foresight_weight < 1:
            raise LaconicError("foresight must not be negative, and foresight_weight lie in [0, 1).")
