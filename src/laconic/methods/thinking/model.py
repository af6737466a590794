"""What all reasoning methods are: a decoder, soft tokens that stand for its finished steps, and a layout of both.

A method (``vanilla``, ``lightthinker``, ``hybridthinker``, ``memosight``) says how many memory tokens a step gets, how
long its words stay readable and how far ahead foresight tokens guess; masks, trainer and decoder are the same for all.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from laconic.backbone import Backbone, text_ends
from laconic.core.compat import attention_mask_form
from laconic.core.layout import Kind
from laconic.core.lora import add_lora
from laconic.core.memory_tokens import MemoryTokens
from laconic.core.method import TrainedMethod
from laconic.core.segments import whole_characters
from laconic.core.sharing import shared_twin, unshared
from laconic.core.thoughts import Shape, Trace, finished_words_hidden
from laconic.core.visibility import Rule
from laconic.errors import AdapterError, BackboneError, DataError, LaconicError, QuestionError
from laconic.generation.thinking import Forgets
from laconic.methods.thinking.config import CHAT, ThinkingConfig
from laconic.methods.thinking.generate import Generating
from laconic.methods.thinking.solving import Solution, solve


class Thinker(TrainedMethod):
    """A backbone that reasons in steps.

    Attributes:
        decoder: a twin of the backbone's model that is trained.
        memory, restart, foresight: rows of the soft tokens, each ``[count, D]``; without any where the method has none.
        shape: how its steps lie in a sequence.
        retention: finished steps that decoding keeps readable.
        guesses: foresight tokens behind a word, at the most.

    Raises:
        LaconicError: the tokenizer has no single token for ``step_end``.
        BackboneError: the decoder's attention ignores masks, or a step could outgrow its window.
    """

    config: ThinkingConfig

    def __init__(self, backbone: Backbone, config: ThinkingConfig | None = None) -> None:
        super().__init__()
        self.config = config or self.options()  # type: ignore[assignment]
        self.backbone = backbone
        attention_mask_form(backbone.model)  # refuses an attention that ignores masks
        longest = self.config.max_step_tokens + self.memory_count(self.config.max_step_tokens) + 1
        if longest >= backbone.window:
            raise BackboneError(
                f"A step of {self.config.max_step_tokens} tokens and its memory fill the window of {backbone.window}.",
                "Lower max_step_tokens, or have fewer memory tokens.",
            )
        self.step_end = single_token(backbone, self.config.step_end)
        if self.step_end in text_ends(backbone.model, backbone.tokenizer):
            raise LaconicError(
                f"step_end {self.config.step_end!r} ends a text of {backbone.name}.", "Choose an ordinary token."
            )
        self.shape = Shape(self.step_end, self.memory_count, self.config.layout, self.anchors)
        self.decoder: PreTrainedModel = shared_twin(backbone.model)
        if self.config.train == "full":
            unshared(self.decoder).requires_grad_(True)
        else:
            add_lora(self.decoder, self.config.lora_rank, alpha=2 * self.config.lora_rank)
        row = backbone.embed(torch.tensor([self.step_end], device=backbone.device))
        self.memory = MemoryTokens(row, self.memory_rows)
        self.restart = MemoryTokens(row, int(self.memory_rows > 0), noise=0.0)
        self.foresight = MemoryTokens(row, int(self.guesses > 0), noise=0.0)
        self.to(backbone.device)

    def check_start(self, config: Mapping[str, Any], weights: Collection[str]) -> None:
        """Memory that was learnt in other places, or behind another end of steps, is another memory."""
        for name in ("layout", "step_end"):
            ours, theirs = getattr(self.config, name), config.get(name)
            if "memory.weight" in weights and theirs != ours:
                raise AdapterError(
                    f"The saved memory was trained with {name} {theirs!r}, and {name} is {ours!r} here.",
                    f"Set {name} as there, or start from vanilla.",
                )

    def adapted(self) -> list[nn.Module]:
        return [self.decoder]

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], backbone: Backbone) -> Any:
        thinker = super().from_pretrained(folder, backbone)
        for part in thinker.soft_tokens:
            part.float()
        return thinker

    @property
    def soft_tokens(self) -> tuple[MemoryTokens, MemoryTokens, MemoryTokens]:
        return self.memory, self.restart, self.foresight

    @property
    def unpenalised(self) -> list[int]:
        """Tokens that no penalty on what was said is for: the ends of steps, and what belongs to no text."""
        return [self.step_end, *self.backbone.tokenizer.all_special_ids]

    # --- what a method says of itself ----------------------------------------------------------------------------

    @property
    def memory_rows(self) -> int:
        """Memory tokens with rows of their own; 0 for a method that does not compress."""
        raise NotImplementedError

    def memory_count(self, words: int) -> int:
        """Memory tokens of a step of so many words, its end included. The same in training and decoding."""
        raise NotImplementedError

    @property
    def retention(self) -> int:
        return 0

    @property
    def guesses(self) -> int:
        return 0

    @property
    def anchors(self) -> bool:
        """Whether a step's end is itself what stays of the step."""
        return False

    @property
    def forgets(self) -> Forgets:
        """Behind what something can leave the cache."""
        return "steps"

    @property
    def reads_all(self) -> bool:
        """Whether a word reads all that something after it may read."""
        return True

    @property
    def longest_step(self) -> int:
        """Words at which a step is ended by force."""
        return self.config.max_step_tokens

    @property
    def foresight_weight(self) -> float:
        """Share of the training loss that is the guesses'."""
        return 0.0

    def training_reaches(self, steps: int, draw: random.Random) -> list[int]:
        """How many following steps may read each of a trace's steps in training."""
        return [0] * steps

    def rule(self, reach: int | Tensor) -> Rule:
        """Who may read whom (``core.thoughts``), where steps reach so far."""
        return finished_words_hidden(reach)

    @property
    def decoding(self) -> dict[str, Any]:
        """What changes its decoding besides the config, for result files."""
        return {}

    # --- reasoning --------------------------------------------------------------------------------------------------

    def solve(self, problems: Sequence[str], **options: Any) -> list[Solution]:
        """Solve problems side by side; see ``laconic.methods.thinking.solving.solve``."""
        return solve(self, problems, **options)

    def generating(self, streamer: BaseStreamer | None = None) -> Generating:
        """For ``self.decoder.generate(..., custom_generate=...)``; see ``laconic.methods.thinking.generate``."""
        return Generating(self, streamer)

    # --- sequences -------------------------------------------------------------------------------------------------

    def prompt_ids(self, problem: str) -> list[int]:
        """Raises ``QuestionError`` for an empty problem."""
        if not problem.strip():
            raise QuestionError("The problem is empty.", "Say what is to be solved.")
        problem = whole_characters(problem)
        if self.config.prompt != CHAT:
            return self.backbone.token_ids(self.config.prompt.replace("{problem}", problem.strip()))
        tokenizer = self.backbone.tokenizer
        if not tokenizer.chat_template:
            raise LaconicError(f"{self.backbone.name} has no chat template.", "Set prompt, for instance {problem}\\n.")
        said = [{"role": "user", "content": problem.strip()}]
        text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        return self.backbone.token_ids(str(text))

    def trace(self, problem: str, steps: Sequence[str], limit: int | None = None) -> Trace:
        """A problem and its worked-out steps as tokens; steps longer than a decoder would let them grow are cut in two.

        Args:
            limit: most tokens of prompt and steps; what is beyond is cut off, and the trace then has no end.

        Raises:
            DataError: there is no step, a step is empty or holds what ends a step, or the prompt leaves no room.
        """
        prompt = self.prompt_ids(problem)
        room = None if limit is None else limit - len(prompt)
        if room is not None and room < 1:
            raise DataError(f"A prompt of {len(prompt)} tokens leaves no room in {limit}.", "Raise the limit.")
        pieces = [piece for step in steps for piece in self._pieces(step)]
        if not pieces:
            raise DataError("A trace has no steps.", "Give at least one.")
        kept: list[list[int]] = []
        for piece in pieces:
            if room is not None and len(piece) > room:
                return Trace(prompt, [*kept, piece[:room]] if room else kept, None)
            kept.append(piece)
            room = None if room is None else room - len(piece)
        return Trace(prompt, kept, self.backbone.tokenizer.eos_token_id)

    def _pieces(self, step: str) -> list[list[int]]:
        ids = self.backbone.token_ids(step)
        if not ids:
            raise DataError("A step is empty.", "Leave empty steps out.")
        # as text too: two line ends can be another token than one
        if self.step_end in ids or self.config.step_end in step:
            raise DataError(
                f"The step {step[:60]!r} holds {self.config.step_end!r}, which ends a step.",
                "Segment there, or choose another step_end.",
            )
        most = self.config.max_step_tokens - 1
        return [[*ids[start : start + most], self.step_end] for start in range(0, len(ids), most)]

    def embedded(self, kind: Tensor, ids: Tensor) -> Tensor:
        """What the decoder is fed, ``[B, T, D]``.

        Args:
            kind, ids: ``[B, T]``; ids are token ids, the number of a memory token, or 0 (``core.thoughts.lay_out``).
        """
        soft = (kind == Kind.MEMORY) | (kind == Kind.CONTINUE) | (kind == Kind.FORESIGHT)
        hidden = self.decoder.get_input_embeddings()(ids.masked_fill(soft, 0))
        for which, tokens in zip((Kind.MEMORY, Kind.CONTINUE, Kind.FORESIGHT), self.soft_tokens, strict=True):
            place = kind == which
            if bool(place.any()):
                rows = tokens(ids[place], hidden.dtype)
                hidden = hidden.masked_scatter(place.unsqueeze(-1), rows)
        return hidden


def single_token(backbone: Backbone, text: str) -> int:
    """The token that is this text.

    Raises:
        LaconicError: there is none.
    """
    alone, before, behind = map(backbone.token_ids, (text, "a", "a" + text))
    if len(alone) == 1:
        return alone[0]
    if len(behind) == len(before) + 1 and behind[:-1] == before:  # some tokenizers begin every text with a space
        return behind[-1]
    raise LaconicError(
        f"The tokenizer of {backbone.name} has no single token {text!r}.", "Choose a step_end that is one token of it."
    )
