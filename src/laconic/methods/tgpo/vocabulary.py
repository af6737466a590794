"""Whether a teacher's tokens are the student's, and what to make of those that are not (TGPO, arXiv 2605.13230).

Teacher and student often have heads of different sizes over one tokenizer, and end a text with different tokens: a base
model with one, a chat model with another. Unless that is said, a teacher that ends a text teaches the student a token
it does not stop on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laconic.backbone import text_ends
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

    def to_teacher(self, ids: Tensor) -> Tensor:
        """The teacher's ids of what the student said; of several that mean the same, the first."""
        found = ids.clone()
        for theirs, ours in reversed(list(self.aliases.items())):
            found[ids == ours] = theirs
        return found

    def to_student(self, ids: Tensor) -> Tensor:
        """The ids that scores stand at: the student's own token for one that it may say but that stands for another."""
        found = ids.clone()
        for theirs, ours in self.aliases.items():
            found[ids == theirs] = ours
        return found

    def folded(self, logits: Tensor) -> Tensor:
        """A teacher's logits ``[..., V]`` over the student's shared ids, ``[..., size]``: what an alias would get, the
        student's token for it gets; tokens that stand for others are at minus infinity."""
        found = logits.clone()
        for theirs, ours in self.aliases.items():
            found[..., ours] = torch.logaddexp(found[..., ours], logits[..., theirs])
        if self._twins:
            found[..., self._twins] = float("-inf")
        return found[..., : self.size]

    def compared(self, logits: Tensor) -> Tensor:
        """Logits ``[..., size]`` of either over the tokens that both can say: without those that stand for others."""
        if not self._twins:
            return logits[..., : self.size]
        twins = set(self._twins)
        kept = torch.tensor([token for token in range(self.size) if token not in twins], device=logits.device)
        return logits.index_select(-1, kept)

    @property
    def _twins(self) -> list[int]:
        return [theirs for theirs in self.aliases if theirs < self.size]


@dataclass(frozen=True)
class Side:
    """What a model can say.

    Attributes:
        size: rows of its head; of a model that is served, as many as its tokenizer has tokens.
        ends: tokens that end its texts.
    """

    tokenizer: PreTrainedTokenizerBase
    size: int
    ends: Sequence[int]


def side_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Side:
    """A model in this process."""
    return Side(tokenizer, model.get_output_embeddings().weight.shape[0], text_ends(model, tokenizer))


def shared_vocabulary(student: Side, teacher: Side, aliases: Mapping[int, int] | None = None) -> SharedVocabulary:
    """What both share, checked token by token.

    Args:
        aliases: by the teacher's id, the student's; None: all ends of the teacher's texts are the student's.

    Raises:
        LaconicError: a shared id is another token for each, the student has tokens that the teacher cannot read, or an
            alias lies outside of either vocabulary or leads to an alias.
    """
    size = min(len(student.tokenizer), len(teacher.tokenizer), student.size, teacher.size)
    known = dict(aliases) if aliases is not None else _ends(student, teacher)
    for theirs, ours in known.items():
        if not (0 <= theirs < teacher.size and 0 <= ours < size):
            raise LaconicError(
                f"The alias {theirs} -> {ours} lies outside of a vocabulary.", "Name tokens of both models."
            )
        if ours in known:
            raise LaconicError(
                f"The alias {theirs} -> {ours} leads to a token that stands for another itself.",
                "Name the student's token at once, and none for tokens that are the same.",
            )
    ids = list(range(size))
    own, others = (side.tokenizer.convert_ids_to_tokens(ids) for side in (student, teacher))
    apart = [i for i, (a, b) in enumerate(zip(own, others, strict=True)) if a != b and i not in known]
    if apart:
        raise LaconicError(
            f"The teacher's token {apart[0]} is {others[apart[0]]!r} and the student's {own[apart[0]]!r} "
            f"({len(apart)} differ): their vocabularies are not one.",
            "Choose a teacher of the student's family, or name aliases.",
        )
    if len(student.tokenizer) > size:
        raise LaconicError(
            f"The teacher cannot read {len(student.tokenizer) - size} of the student's tokens, such as "
            f"{student.tokenizer.convert_ids_to_tokens(size)!r}.",
            "Choose a teacher that knows them, or a tokenizer without them.",
        )
    return SharedVocabulary(size, known)


def _ends(student: Side, teacher: Side) -> dict[int, int]:
    """Ends of the teacher's texts that do not end the student's, each with the student's own end."""
    if not student.ends:
        return {}
    return {end: student.ends[0] for end in teacher.ends if end not in student.ends}
