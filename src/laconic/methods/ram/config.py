"""The hyper-parameters of RAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from laconic.core.options import Options, option
from laconic.errors import LaconicError

Score = Literal["mean", "maxsim", "cross"]
BudgetMode = Literal["exact", "paper"]


@dataclass(frozen=True, kw_only=True)
class RAMConfig(Options):
    """RAM, "Read As Human" (arXiv 2602.01840). Section numbers refer to the method's card.

    The defaults are ours where a better choice was measured; ``RAMConfig.paper()`` gives the paper's.
    """

    title: ClassVar[str] = "RAM"

    segment_tokens: int = option(48, "width L of a segment, in tokens")
    row_segments: int = option(
        4, "neighbouring segments in one encoder row, each seeing those before it; 1: the paper's"
    )
    encoder_layers: int = option(8, "decoder layers the encoder runs (the first K of the backbone)")
    score: Score = option("maxsim", "relevance: mean (the paper's), maxsim (late interaction) or cross")
    encode: Literal["bi", "cross"] = option("bi", "cross: each segment is encoded behind the query")
    projection: int = option(128, "width of the projected token states that maxsim compares")
    lexical: bool = option(True, "add a learned multiple of BM25 to the score")
    neighbours: bool = option(True, "add a learned multiple of the two neighbouring segments' scores")
    window: int = option(
        0, "segments on either side in which maxsim seeks a query token's match for a second term of the score; 0: none"
    )
    sink_prefix: bool = option(False, "encode each segment behind one sink token that pooling leaves out")
    skim_temperature: float = option(0.1, "temperature of the query weights inside a skim vector; 1.0 is the paper's")
    contrastive_temperature: float = option(0.02, "temperature of the contrastive loss")
    skim_share: float = option(0.17, "share of an exact budget that skim vectors may take before neighbours share them")
    budget_mode: BudgetMode = option(
        "exact", "exact: never more than floor(T/factor) tokens; paper: k = floor(T/(factor L))"
    )
    fusion_layer: bool = option(False, "let the skim vectors attend to each other in one decoder layer")
    encoder_rank: int = option(16, "LoRA rank of the encoder; 0 trains a copy of its weights")
    decoder_rank: int = option(8, "LoRA rank of the decoder; 0 leaves the decoder as it is")

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.encoder_rank, self.decoder_rank) < 0:
            raise LaconicError("encoder_rank and decoder_rank must not be negative.", "0 does without LoRA.")
        if min(self.segment_tokens, self.row_segments, self.encoder_layers, self.projection) < 1:
            raise LaconicError("segment_tokens, row_segments, encoder_layers and projection must be at least 1.")
        if self.window < 0 or (self.window and self.score != "maxsim"):
            raise LaconicError(f"A window of {self.window} needs the score maxsim.", "0 does without.")
        self.require_one_of("score", get_args(Score))
        self.require_one_of("encode", ("bi", "cross"))
        self.require_one_of("budget_mode", get_args(BudgetMode))
        if (self.score == "cross") and self.encode != "cross":
            raise LaconicError("The cross score reads query-conditioned states.", "Set encode: cross with it.")
        if not 0.0 < self.skim_share <= 1.0:
            raise LaconicError(f"skim_share {self.skim_share} is not in (0, 1].", "1 gives every segment its vector.")
        if self.skim_temperature <= 0 or self.contrastive_temperature <= 0:
            raise LaconicError("Temperatures must be positive.")

    @classmethod
    def paper(cls, **changes: Any) -> RAMConfig:
        """The configuration of the paper and its code, for parity."""
        values: dict[str, Any] = {
            "segment_tokens": 50, "row_segments": 1, "score": "mean", "lexical": False, "neighbours": False,
            "window": 0, "skim_temperature": 1.0, "contrastive_temperature": 0.05, "budget_mode": "paper",
            "encoder_rank": 0,
        }  # fmt: skip
        return cls(**(values | changes))
