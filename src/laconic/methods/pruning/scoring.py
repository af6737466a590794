"""What a token classifier thinks of each word of a text of any length.

A text is cut into rows that the classifier's window holds, where a sentence ends if there is one near. A word's score
is the mean over its tokens of the probability that they are kept, as in LLMLingua-2 (arXiv 2403.12968).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from laconic.core.segments import Range
from laconic.methods.pruning.words import mean_by_word

#: rows that are read in one pass
ROWS = 16
#: a row may be this share shorter to end with a sentence
GIVE = 0.25
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


class TokenClassifier(Protocol):
    """Says of each token of a text whether it is kept.

    Attributes:
        reads_query: whether a question changes what it says.
    """

    @property
    def reads_query(self) -> bool: ...

    def token_scores(self, text: str, query: str | None) -> tuple[list[float], list[Range]]:
        """The probability that each token is kept, and its character span."""
        ...


def word_scores(classifier: TokenClassifier, text: str, words: Sequence[Range], query: str | None) -> list[float]:
    """The probability that each word is kept."""
    return mean_by_word(*classifier.token_scores(text, query), words)


@dataclass(frozen=True)
class Row:
    """A piece of text between the tokens that open and close it, which have no offsets."""

    ids: list[int]
    offsets: list[Range]


def rows_of(tokenizer: PreTrainedTokenizerBase, text: str, row_tokens: int) -> list[Row]:
    """A text in rows of at most so many tokens, the two around it included; every token is in exactly one."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    rows, start = [], 0
    while start < len(ids):
        end = _end(text, offsets, start, row_tokens - 2)
        own = [tokenizer.cls_token_id, *ids[start:end], tokenizer.sep_token_id]
        rows.append(Row(own, offsets[start:end]))
        start = end
    return rows


def _end(text: str, offsets: Sequence[Range], start: int, width: int) -> int:
    """Where a row from ``start`` on ends: behind a sentence, else behind a word, if one ends near; else when full."""
    full = start + width
    if full >= len(offsets):
        return len(offsets)
    word = None
    for end in range(full, full - int(GIVE * width), -1):
        between = text[offsets[end - 1][1] : offsets[end][0]]
        if "\n" in between or (between and text[offsets[end - 1][1] - 1] in ".!?"):
            return end
        if word is None and between:
            word = end
    return word or full


def read_rows(
    rows: Sequence[Row], pad: int, device: torch.device, forward: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """What a model makes of the own tokens of each row, those of about one length read together.

    Args:
        forward: from ids and what is real ``[B, T]`` to anything ``[B, T, ...]``.
    """
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for first in range(0, len(order), ROWS):
        some = order[first : first + ROWS]
        fed = torch.nn.utils.rnn.pad_sequence([torch.tensor(rows[p].ids) for p in some], True, pad)
        real = torch.nn.utils.rnn.pad_sequence([torch.ones(len(rows[p].ids), dtype=torch.long) for p in some], True)
        made = forward(fed.to(device), real.to(device))
        for own, place in zip(made, some, strict=True):
            found[place] = own[1 : 1 + len(rows[place].offsets)]
    return found
