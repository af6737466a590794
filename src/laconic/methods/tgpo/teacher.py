"""What a teacher says of a student's answers: at every visited prefix, what it would say, and how likely it finds both.

A scorer reads exact token ids and generates nothing. Scores are in the coordinates of the answer: entry t is what the
teacher says behind the prompt and the first t tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laconic.core.compat import require_plain_head
from laconic.core.fingerprint import fingerprint
from laconic.errors import LaconicError, TeacherError
from laconic.methods.tgpo.vocabulary import Side, shared_vocabulary, side_of

Target = Literal["argmax", "sample"]
#: rows that are read in one pass, and positions whose logits are held together
ROWS, POSITIONS = 8, 512


@dataclass(frozen=True)
class Scores:
    """Of each position of answers, ``[B, T]``; what is masked is 0.

    Attributes:
        ids: the student's id of what the teacher would say.
        log_probs: how likely the teacher finds that.
        said: how likely the teacher finds what the student said.
    """

    ids: Tensor
    log_probs: Tensor
    said: Tensor


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
        target: the likeliest token (of equals the lowest id), or one that is drawn.

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
        aliases: dict[int, int] | None = None,
        rows: int = ROWS,
        positions: int = POSITIONS,
    ) -> None:
        if target not in get_args(Target):
            raise LaconicError(f"Unknown target {target!r}.", f"Choose one of {', '.join(get_args(Target))}.")
        require_plain_head(model)
        self.model, self.target = model.eval().requires_grad_(False), target
        self.vocabulary = shared_vocabulary(student, side_of(model, tokenizer), aliases)
        self.rows, self.positions = rows, positions

    @property
    def version(self) -> str:
        known = f"{self.vocabulary.size} {sorted(self.vocabulary.aliases.items())} {self.target}"
        return f"{fingerprint(self.model.named_parameters(), torch.bfloat16)} {known}"

    @torch.no_grad()
    def score(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Scores:
        parts = [
            self._score(*(part[first : first + self.rows] for part in (prompt, prompt_mask, answer, answer_mask)))
            for first in range(0, len(prompt), self.rows)
        ]
        return Scores(*(torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "log_probs", "said")))

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
            raise TeacherError("The student said a token that no tokenizer knows.", "Never sample a head's padding.")
        hidden = self._read(prompt, prompt_mask, answer, answer_mask)
        device = hidden.device
        real = answer_mask.bool().to(device)
        told = [
            self._told(states, said)
            for states, said in zip(
                hidden[real].split(self.positions), answer.to(device)[real].split(self.positions), strict=True
            )
        ]
        filled = []
        for place, kind in enumerate((torch.long, torch.float32, torch.float32)):
            values = torch.cat([one[place] for one in told]) if told else torch.zeros(0, dtype=kind)
            whole = torch.zeros(answer.shape, dtype=kind, device=device).masked_scatter(real, values.to(kind))
            filled.append(whole.to(answer.device))
        return Scores(*filled)

    def _told(self, hidden: Tensor, said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.vocabulary.folded(self.model.get_output_embeddings()(hidden).float())
        log_probs = logits.log_softmax(-1)
        if self.target == "sample":
            chosen = torch.multinomial(log_probs.exp(), 1)[:, 0]
        else:
            chosen = log_probs.argmax(-1)
        own = log_probs.gather(-1, chosen[:, None])[:, 0]
        return chosen, own, log_probs.gather(-1, said[:, None])[:, 0]
