"""The hyper-parameters that all reasoning methods share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from laconic.core.options import Options, option
from laconic.core.positions import Scheme
from laconic.core.retention import Shortcuts
from laconic.errors import LaconicError

Train = Literal["full", "lora"]
#: in ``prompt``: the tokenizer's chat template
CHAT = "chat"


@dataclass(frozen=True, kw_only=True)
class ThinkingConfig(Options):
    """What a prompt looks like, how a step ends, and what of the decoder is trained."""

    prompt: str = option(CHAT, "what goes before the thoughts, with {problem} in it; chat: the chat template")
    step_end: str = option("\n", "text of the one token that ends a step")
    max_step_tokens: int = option(256, "a step that grows to so many tokens is ended by force")
    layout: Scheme = option("sequential", "positions of memory tokens: sequential, or uniform over their step")
    train: Train = option("lora", "what of the decoder is trained: full or lora")
    lora_rank: int = option(16, "rank of the LoRA, where train is lora")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt != CHAT and self.prompt.count("{problem}") != 1:
            raise LaconicError("prompt must hold {problem} once.", f"Or write {CHAT}, for the chat template.")
        if self.max_step_tokens < 2 or self.lora_rank < 1:
            raise LaconicError("max_step_tokens must be at least 2, lora_rank at least 1.")
        self.require_one_of("layout", get_args(Scheme))
        self.require_one_of("train", get_args(Train))


@dataclass(frozen=True, kw_only=True)
class RetainingConfig(ThinkingConfig):
    """Of methods that can keep the last finished steps readable for a while."""

    retention: int = option(0, "finished steps R that stay readable as they were written; 0: none")
    shortcuts: int = option(2, "steps of a trace that training lets reach that far, where shortcut_mode draws them")
    shortcut_mode: Shortcuts = option("sampled", "sampled, or an ablation: all, contiguous, dropout, gap")

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.retention, self.shortcuts) < 0:
            raise LaconicError("retention and shortcuts must not be negative.", "0 does without.")
        self.require_one_of("shortcut_mode", get_args(Shortcuts))
