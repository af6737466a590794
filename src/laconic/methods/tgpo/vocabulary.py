"""Whether a teacher's tokens are the student's, and what to make of those that are not (TGPO, arXiv 2605.13230).

Teacher and student often have heads of different sizes over one tokenizer, and end a text with different tokens: a base
model with one, a chat model with another. Unless that is said, a teacher that ends a text teaches the student a token
it does not stop on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laconic.errors import LaconicError


@dataclass(frozen=True)
class SharedVocabulary:
    """Tokens that mean the same to both.

    Attributes:
        size: ids below it are shared; what a teacher predicts beyond is not looked at.
        aliases: the student's token for a teacher's, where their ids differ: ends of texts.
    """

    size: int
    aliases: Mapping[int, int]

    def to_student(self, ids: Tensor) -> Tensor:
        """The student's ids of what the teacher would say."""
        found = ids.clone()
        for theirs, ours in self.aliases.items():
            found[ids == theirs] = ours
        return found

    def to_teacher(self, ids: Tensor) -> Tensor:
        """The teacher's ids of what the student said; of several that mean the same, the first."""
        found = ids.clone()
        for theirs, ours in reversed(list(self.aliases.items())):
            found[ids == ours] = theirs
        return found

    def compared(self, logits: Tensor) -> Tensor:
        """Logits ``[..., V]`` over what both can say, ``[..., size]``: without tokens that stand for others."""
        twins = [theirs for theirs in self.aliases if theirs < self.size]
        kept: Tensor = logits[..., : self.size]
        return kept.index_fill(-1, torch.tensor(twins, device=logits.device, dtype=torch.long), float("-inf"))

    def compared_teachers(self, logits: Tensor) -> Tensor:
        """As ``compared``, of the teacher: what an alias would get, the student's token for it gets."""
        found = logits.clone()
        for theirs, ours in self.aliases.items():
            found[..., ours] = torch.logaddexp(found[..., ours], logits[..., theirs])
        return self.compared(found)


def shared_vocabulary(
    student: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    teacher: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    aliases: Mapping[int, int] | None = None,
) -> SharedVocabulary:
    """What both share, checked token by token.

    Args:
        student, teacher: model and tokenizer.
        aliases: by the teacher's id, the student's; None: all ends of the teacher's texts are the student's.

    Raises:
        LaconicError: a shared id is another token for each, or an alias lies outside of either vocabulary.
    """
    (own_model, own), (their_model, theirs) = student, teacher
    size = min(
        len(own), len(theirs), *(model.get_output_embeddings().weight.shape[0] for model in (own_model, their_model))
    )
    known = dict(aliases) if aliases is not None else _ends(student, teacher)
    for theirs_id, own_id in known.items():
        if not (0 <= theirs_id < their_model.get_output_embeddings().weight.shape[0] and 0 <= own_id < size):
            raise LaconicError(
                f"The alias {theirs_id} -> {own_id} lies outside of a vocabulary.", "Name tokens of both models."
            )
    ids = list(range(size))
    ours, others = own.convert_ids_to_tokens(ids), theirs.convert_ids_to_tokens(ids)
    apart = [i for i, (a, b) in enumerate(zip(ours, others, strict=True)) if a != b and i not in known]
    if apart:
        raise LaconicError(
            f"The teacher's token {apart[0]} is {others[apart[0]]!r} and the student's {ours[apart[0]]!r} "
            f"({len(apart)} differ): their vocabularies are not one.",
            "Choose a teacher of the student's family, or name aliases.",
        )
    return SharedVocabulary(size, known)


def ends_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a text of a model."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = own if isinstance(own, list) else [own]
    return list(dict.fromkeys(int(end) for end in (tokenizer.eos_token_id, *ends) if end is not None))


def _ends(
    student: tuple[PreTrainedModel, PreTrainedTokenizerBase], teacher: tuple[PreTrainedModel, PreTrainedTokenizerBase]
) -> dict[int, int]:
    """Ends of the teacher's texts that do not end the student's, each with the student's own end."""
    own = ends_of(*student)
    if not own:
        return {}
    return {end: own[0] for end in ends_of(*teacher) if end not in own}


def masked_to(size: int, logits: Tensor, aliases: Mapping[int, int]) -> Tensor:
    """Logits ``[..., V]`` with what neither is shared nor has an alias at minus infinity."""
    outside = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    outside[:size] = False
    for theirs in aliases:
        outside[theirs] = False
    return logits.masked_fill(outside, float("-inf"))
