"""What a teacher says of a student's answers: at every visited prefix, what it would say, and how likely it finds both.

A scorer reads exact token ids and generates nothing. Scores are in the coordinates of the answer: entry t is what the
teacher says behind the prompt and the first t tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laconic.core.compat import require_plain_head
from laconic.core.fingerprint import fingerprint
from laconic.errors import LaconicError, TeacherError
from laconic.methods.tgpo.vocabulary import Side, shared_vocabulary, side_of

#: the likeliest token (of equals the lowest id); one that is drawn; several, as likely as they are beside each other
Target = Literal["argmax", "sample", "soft"]
#: how many of the likeliest tokens a soft target has
TOP = 8
#: rows that are read in one pass, and positions whose logits are held together
ROWS, POSITIONS = 8, 512


@dataclass(frozen=True)
class Scores:
    """Of each position of answers, ``[B, T]``; what is masked is 0.

    Attributes:
        ids: the student's id of what the teacher would say.
        log_probs: how likely the teacher finds that.
        said: how likely the teacher finds what the student said.
        top_ids, top_log_probs: where the target is soft, its tokens, ``[B, T, K]``, likeliest first; of fewer than K
            that are known, the rest are at minus infinity.
    """

    ids: Tensor
    log_probs: Tensor
    said: Tensor
    top_ids: Tensor | None = None
    top_log_probs: Tensor | None = None

    @classmethod
    def joined(cls, parts: Iterable[Scores]) -> Scores:
        """Of the answers of all parts, one after the other."""
        return cls(*(torch.cat(some) for some in zip(*(part.columns for part in parts), strict=True)))

    @classmethod
    def laid_out(cls, told: Sequence[Tensor], mask: Tensor) -> Scores:
        """From columns of the real positions alone, ``[N, ...]`` each, laid out as ``mask`` ``[B, T]`` has them."""
        whole = [one.new_zeros(*mask.shape, *one.shape[1:], device=mask.device) for one in told]
        for filled, one in zip(whole, told, strict=True):
            filled[mask.bool()] = one.to(mask.device)
        return cls(*whole)

    @property
    def columns(self) -> list[Tensor]:
        """All that is known, in order."""
        known = (self.ids, self.log_probs, self.said, self.top_ids, self.top_log_probs)
        return [one for one in known if one is not None]

    @property
    def aims(self) -> tuple[Tensor, Tensor]:
        """The student's ids that it is guided to and the share of each, ``[B, T, K]``."""
        if self.top_ids is None or self.top_log_probs is None:
            return self.ids[..., None], torch.ones_like(self.log_probs[..., None])
        return self.top_ids, self.top_log_probs.softmax(-1)


class TeacherScorer(Protocol):
    """A teacher, wherever it runs."""

    @property
    def version(self) -> str:
        """What it is, for caches."""
        ...

    def score(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Scores:
        """Score answers ``[B, T]``, padded on the right, to prompts ``[B, P]``, padded on the left.

        Raises:
            LaconicError: a score is missing.
        """
        ...


class LocalTeacher:
    """A model in this process; frozen, in eval mode.

    Args:
        student: what the student can say (``side_of``).
        target: see ``Target``.
        top: tokens of a soft target.

    Raises:
        LaconicError: vocabularies that are not one (``shared_vocabulary``).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        student: Side,
        *,
        target: Target = "argmax",
        top: int = TOP,
        aliases: dict[int, int] | None = None,
        rows: int = ROWS,
        positions: int = POSITIONS,
    ) -> None:
        check_target(target, top)
        require_plain_head(model)
        self.model, self.target, self.top = model.eval().requires_grad_(False), target, top
        self.vocabulary = shared_vocabulary(student, side_of(model, tokenizer), aliases)
        self.rows, self.positions = rows, positions

    @property
    def version(self) -> str:
        known = f"{self.vocabulary.size} {sorted(self.vocabulary.aliases.items())} {named(self.target, self.top)}"
        # the same weights compute other scores in another dtype, or with other positions
        config = json.dumps(self.model.config.to_dict(), sort_keys=True, default=str)
        settings = hashlib.sha256(f"{self.model.dtype} {config}".encode()).hexdigest()[:16]
        return f"{fingerprint(self.model.named_parameters(), torch.bfloat16)} {settings} {known}"

    @property
    def window(self) -> int | None:
        """Positions it has; None where nothing says so."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @torch.no_grad()
    def score(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Scores:
        return Scores.joined(
            self._score(*(part[first : first + self.rows] for part in (prompt, prompt_mask, answer, answer_mask)))
            for first in range(0, len(prompt), self.rows)
        )

    @torch.no_grad()
    def states(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Tensor:
        """Its last states before each token of the answers, ``[B, T, D]``; ``logits`` makes of them what it would
        say."""
        parts = [
            self._read(*(part[first : first + self.rows] for part in (prompt, prompt_mask, answer, answer_mask)))
            for first in range(0, len(prompt), self.rows)
        ]
        return torch.cat(parts)

    def logits(self, states: Tensor) -> Tensor:
        """Float32 logits of states ``[N, D]``, over what both can say (``SharedVocabulary.compared``)."""
        return self.vocabulary.compared(self.vocabulary.folded(self.model.get_output_embeddings()(states).float()))

    def _read(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Tensor:
        """States before the answers' tokens, ``[B, T, D]``."""
        device = self.model.device
        mask = torch.cat([prompt_mask, answer_mask], dim=1).to(device)
        # masked positions may hold anything, also ids the teacher does not have; what ends a turn inside a prompt is
        # no end of a text
        ids = torch.cat([prompt.to(device), self.vocabulary.to_teacher(answer.to(device))], dim=1) * mask
        hidden = self.model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False
        ).last_hidden_state
        return hidden[:, prompt.shape[1] - 1 : -1]

    def _score(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Scores:
        if bool((answer * answer_mask >= self.vocabulary.size).any()):
            raise TeacherError(
                "The student said a token that no tokenizer knows: a row of padding of its head.",
                "Train it on written solutions first, or cut its head to the tokenizer's size.",
            )
        hidden = self._read(prompt, prompt_mask, answer, answer_mask)
        real = answer_mask.bool().to(hidden.device)
        told = [
            self._told(states, said)
            for states, said in zip(
                hidden[real].split(self.positions), answer.to(hidden.device)[real].split(self.positions), strict=True
            )
        ]
        return Scores.laid_out([torch.cat(column) for column in zip(*told, strict=True)], answer_mask)

    def _told(self, hidden: Tensor, said: Tensor) -> tuple[Tensor, ...]:
        logits = self.vocabulary.folded(self.model.get_output_embeddings()(hidden).float())
        log_probs = logits.log_softmax(-1)
        if self.target == "sample":
            chosen = torch.multinomial(log_probs.exp(), 1)[:, 0]
        else:
            chosen = log_probs.argmax(-1)
        said = self.vocabulary.to_student(said)
        own, theirs = (log_probs.gather(-1, ids[:, None])[:, 0] for ids in (chosen, said))
        if self.target != "soft":
            return chosen, own, theirs
        top = log_probs.topk(min(self.top, log_probs.shape[-1]))
        return chosen, own, theirs, top.indices, top.values


def check_target(target: str, top: int, known: Sequence[str] = get_args(Target)) -> None:
    """Raise ``LaconicError`` for a target that is none of those, or has no token."""
    if target not in known:
        raise LaconicError(f"Unknown target {target!r}.", f"Choose one of {', '.join(known)}.")
    if top < 1:
        raise LaconicError(f"A soft target of {top} tokens says nothing.", "Choose 1 or more.")


def named(target: str, top: int) -> str:
    """A target, for caches."""
    return f"{target} {top}" if target == "soft" else target
