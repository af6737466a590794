"""Signs that a sentence bears on a question, from the states of an encoder that has read both apart."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from laconic.core.segments import Range
from laconic.methods.pruning.scoring import SENTENCE_END

#: how many signs there are of each token
SIGNS = 5
#: where they lie with a general encoder of sentences, and how far apart (on forty excerpts of SQuAD's articles)
CENTRE, SPREAD = (0.55, 0.55, 0.5, 0.05, 0.4), (0.055, 0.07, 0.05, 0.05, 0.2)
#: what each is worth before anything is learnt
START = (0.7, 0.0, 0.7, 0.5, 0.0)
#: tokens of a sentence; what is longer is cut
LONGEST = 64


def sentence_numbers(text: str, offsets: Sequence[Range]) -> list[int]:
    """The number of the sentence each token is in; sentences end as in ``SENTENCE_END``, or when they are too long."""
    starts = [found.end() for found in SENTENCE_END.finditer(text)]
    numbers: list[int] = []
    number, begun, before = 0, 0, None
    for place, (start, _) in enumerate(offsets):
        own = bisect_right(starts, start)
        if place and (own != before or place - begun == LONGEST):
            number, begun = number + 1, place
        before = own
        numbers.append(number)
    return numbers


def signs(hidden: Tensor, sentence: Tensor, ids: Sequence[int], asked: Tensor, asked_ids: Sequence[int]) -> Tensor:
    """Signs of each token, ``[T, SIGNS]``.

    Of its sentence: the cosine of its mean state and the question's; the mean of that over both neighbours; how near
    the nearest of its tokens is to each of the question's, on average; and how much of the question's tokens it has,
    rare ones counting for more. Of itself: how near the nearest of the question's tokens is.

    Args:
        hidden, sentence, ids: of the text: states ``[T, D]``, sentence numbers ``[T]``, tokens.
        asked, asked_ids: of the question: states ``[Q, D]``, tokens.
    """
    count = int(sentence[-1]) + 1
    sums = hidden.new_zeros(count, hidden.shape[-1]).index_add(0, sentence, hidden)
    question = functional.normalize(asked.mean(0), dim=0)
    near = functional.normalize(sums, dim=-1) @ question
    around = functional.pad(near, (1, 1))
    around = (around[:-2] + around[2:]) / _neighbours(near)
    by_token = functional.normalize(hidden, dim=-1) @ functional.normalize(asked, dim=-1).T
    lowest = by_token.new_full((count, by_token.shape[-1]), -1.0)
    nearest = lowest.scatter_reduce(0, sentence[:, None].expand_as(by_token), by_token, "amax").mean(-1)
    shared = _shared(sentence, ids, asked_ids, count).to(hidden)
    of_sentence = torch.stack([near, around, nearest, shared], dim=-1)
    return torch.cat([of_sentence[sentence], by_token.amax(-1, keepdim=True)], dim=-1)


def _neighbours(like: Tensor) -> Tensor:
    """How many neighbours each sentence has, at least 1."""
    found = torch.full_like(like, 2.0)
    found[0] = found[-1] = 1.0
    return found


def _shared(sentence: Tensor, ids: Sequence[int], asked: Sequence[int], count: int) -> Tensor:
    """The share of the question's tokens that each sentence has; a token counts for more the fewer have it."""
    wanted = set(asked)
    having: dict[int, set[int]] = {token: set() for token in wanted}
    for number, token in zip(sentence.tolist(), ids, strict=True):
        if token in wanted:
            having[token].add(number)
    found = torch.zeros(count)
    total = 0.0
    for own in having.values():
        weight = math.log1p((count - len(own) + 0.5) / (len(own) + 0.5))  # as in BM25
        total += weight
        found[list(own)] += weight
    return found / max(total, 1e-9)
