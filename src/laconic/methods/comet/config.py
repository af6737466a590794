"""The hyper-parameters of CoMeT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from laconic.core.options import Options, option
from laconic.errors import LaconicError

Train = Literal["full", "lora", "memory"]


@dataclass(frozen=True, kw_only=True)
class CoMeTConfig(Options):
    """CoMeT, Collaborative Memory Transformer (arXiv 2602.01766). Section numbers refer to the method's card.

    The defaults suit a small backbone; ``CoMeTConfig.paper()`` gives the paper's.
    """

    title: ClassVar[str] = "CoMeT"

    chunk_tokens: int = option(512, "text tokens c of a full chunk")
    stride: int = option(8, "text tokens s that one compression token stands for; 0: no compression tokens")
    global_slots: int = option(32, "slots m of the gated global memory, and readout tokens; 0: none")
    global_depth: int = option(1, "states d that each slot holds, newest first: what it gives up moves one place back")
    fifo_slots: int = option(256, "compression tokens N_T that the temporary memory holds; 0: none")
    adapter_rank: int = option(8, "rank r of the residual low-rank adapters")
    shared_adapter: bool = option(False, "one low-rank adapter for both memories of a layer")
    gate: bool = option(True, "gate what the global memory keeps; without it every chunk writes it anew")
    gate_bias: float = option(3.0, "the gate's bias at the start: 3 keeps 95 % of a slot at each chunk; 0: no bias")
    plain_start: bool = option(
        True, "adapters start as the identity and the gate as its bias; False: the paper's noise"
    )
    train: Train = option("lora", "what of the decoder is trained: full, lora, or memory (nothing of it)")
    lora_rank: int = option(16, "rank of the LoRA, where train is lora")

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.chunk_tokens, self.global_depth, self.adapter_rank, self.lora_rank) < 1:
            raise LaconicError("chunk_tokens, global_depth, adapter_rank and lora_rank must be at least 1.")
        if min(self.stride, self.global_slots, self.fifo_slots) < 0:
            raise LaconicError("stride, global_slots and fifo_slots must not be negative.", "0 does without.")
        if self.stride > self.chunk_tokens:
            raise LaconicError(
                f"A chunk of {self.chunk_tokens} tokens is shorter than the stride of {self.stride}.",
                "Raise chunk_tokens or lower stride.",
            )
        if bool(self.stride) != bool(self.fifo_slots):
            raise LaconicError("stride and fifo_slots go together.", "Set both, or both to 0.")
        self.require_one_of("train", get_args(Train))

    @property
    def held_slots(self) -> int:
        """States g of the global memory that stand in front of a chunk in each layer."""
        return self.global_slots * self.global_depth

    @property
    def positions(self) -> int:
        """Positions that a full chunk takes behind a full memory: it never needs more."""
        entries = compressed(self.chunk_tokens, self.stride)
        return self.held_slots + self.fifo_slots + self.chunk_tokens + entries + self.global_slots

    @classmethod
    def paper(cls, **changes: Any) -> CoMeTConfig:
        """The configuration of the paper and its code, for parity."""
        values: dict[str, Any] = {
            "chunk_tokens": 2048, "stride": 8, "global_slots": 512, "fifo_slots": 2048, "adapter_rank": 8,
            "gate_bias": 0.0, "plain_start": False, "train": "full",
        }  # fmt: skip
        return cls(**(values | changes))


def compressed(tokens: int, stride: int) -> int:
    """Compression tokens b of a closed chunk of so many text tokens."""
    return -(-tokens // stride) if stride else 0
