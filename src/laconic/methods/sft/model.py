"""Supervised fine-tuning alone: the backbone with LoRA, and nothing that compresses.

What a trained method must be measured against: its backbone, tuned on the same examples, that reads everything, or
everything that a window holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from laconic.backbone import Backbone
from laconic.core.lora import add_lora
from laconic.core.method import TrainedMethod
from laconic.core.options import Options, option
from laconic.core.sharing import shared_twin
from laconic.errors import LaconicError


@dataclass(frozen=True, kw_only=True)
class SFTConfig(Options):
    """Supervised fine-tuning of a decoder with LoRA."""

    title: ClassVar[str] = "SFT"

    lora_rank: int = option(16, "rank of the LoRA on every linear layer")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank < 1:
            raise LaconicError("lora_rank must be at least 1.")


class SFT(TrainedMethod):
    """A backbone tuned with LoRA; the readers of all baselines can answer with it.

    Attributes:
        decoder: a twin of the backbone's model that is trained.
    """

    name = "sft"
    options = SFTConfig
    config: SFTConfig

    def __init__(self, backbone: Backbone, config: SFTConfig | None = None) -> None:
        super().__init__()
        self.config = config or SFTConfig()
        self.backbone = backbone
        self.decoder = shared_twin(backbone.model)
        add_lora(self.decoder, self.config.lora_rank, alpha=2 * self.config.lora_rank)
        self.to(backbone.device)

    def adapted(self) -> list[nn.Module]:
        return [self.decoder]
