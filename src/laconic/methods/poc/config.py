"""The hyper-parameters of PoC's predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from laconic.core.options import Options, option
from laconic.errors import LaconicError

Head = Literal["monotone", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class PoCConfig(Options):
    """PoC (arXiv 2603.19733). The paper has a sigmoid head on two layers of a model of 1B parameters, and no query."""

    title: ClassVar[str] = "PoC"

    layers: int = option(2, "decoder layers of the backbone that are used")
    lora_rank: int = option(16, "rank of the LoRA on them")
    head: Head = option("monotone", "monotone: a curve that never falls, 1 at ratio 1; sigmoid: each ratio by itself")
    knots: int = option(20, "pieces of a monotone curve")
    bands: int = option(8, "frequencies a ratio is written in, for the sigmoid head")
    chunk_tokens: int = option(512, "tokens of a text that are read together")
    query: bool = option(True, "whether the question is read before the text")
    features: bool = option(False, "whether what the compressor's look has found is weighed too (a classifier's has)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.layers, self.lora_rank, self.knots, self.bands) < 1 or self.chunk_tokens < 16:
            raise LaconicError("layers, lora_rank, knots and bands must be at least 1, chunk_tokens at least 16.")
        self.require_one_of("head", get_args(Head))
