"""What a token classifier thinks of each word of a text of any length.

A text is cut into rows that the classifier's window holds, where a sentence ends if there is one near; each row may
have a question in front. A word's score is the mean over its tokens of the probability that they are kept, as in
LLMLingua-2 (arXiv 2403.12968).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from laconic.core.segments import Range
from laconic.errors import BudgetError
from laconic.methods.pruning.words import mean_by_word

#: rows that are classified in one pass
ROWS = 16
#: a row may be this share shorter to end with a sentence
GIVE = 0.25


class TokenClassifier(Protocol):
    """Says of each token of a row whether it is kept.

    Attributes:
        row_tokens: of the longest row, what opens and closes it included.
        reads_query: whether a question may stand before the text.
    """

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def row_tokens(self) -> int: ...

    @property
    def reads_query(self) -> bool: ...

    def logits(self, ids: Tensor, real: Tensor, part: Tensor) -> Tensor:
        """Log odds that each token is kept, ``[B, T]``.

        Args:
            ids: token ids ``[B, T]``, padded on the right.
            real: 1 for tokens, 0 for padding.
            part: 0 for the question, 1 for the text behind one; 0 where there is none.
        """
        ...


@dataclass(frozen=True)
class Row:
    """A piece of text between the tokens that open and close it.

    Attributes:
        ahead: how many tokens stand before the text's own.
        offsets: character span of each of the text's tokens.
    """

    ids: list[int]
    ahead: int
    offsets: list[Range]


def rows_of(classifier: TokenClassifier, text: str, query: str | None) -> list[Row]:
    """A text in rows; every token is in exactly one.

    Raises:
        BudgetError: the question leaves less than half of a row.
    """
    tokenizer = classifier.tokenizer
    opening, closing = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    if query is not None and classifier.reads_query:
        question = tokenizer(query, add_special_tokens=False, verbose=False)["input_ids"]
        if 2 * (len(question) + 3) > classifier.row_tokens:
            raise BudgetError(
                f"A question of {len(question)} tokens leaves too little of the classifier's {classifier.row_tokens}.",
                "Shorten the question.",
            )
        opening = [*opening, *question, *closing]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    width = classifier.row_tokens - len(opening) - len(closing)
    rows, start = [], 0
    while start < len(ids):
        end = _end(text, offsets, start, width)
        rows.append(Row([*opening, *ids[start:end], *closing], len(opening), offsets[start:end]))
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


def padded(rows: Sequence[Row], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, what is real, and part of rows side by side, ``[B, T]`` each."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    real, part = torch.zeros_like(ids), torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        real[place, : len(row.ids)] = 1
        if row.ahead > 1:
            part[place, row.ahead : len(row.ids)] = 1
    return ids, real, part


@torch.inference_mode()
def word_scores(classifier: TokenClassifier, text: str, words: Sequence[Range], query: str | None) -> list[float]:
    """The probability that each word is kept; one pass over the text. Errors as ``rows_of``."""
    rows = rows_of(classifier, text, query)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))  # little padding
    kept: list[list[float]] = [[] for _ in rows]
    for first in range(0, len(order), ROWS):
        some = order[first : first + ROWS]
        ids, real, part = padded([rows[place] for place in some], classifier.tokenizer.pad_token_id or 0)
        device = classifier.device
        found = classifier.logits(ids.to(device), real.to(device), part.to(device)).float().sigmoid().cpu()
        for own, place in zip(found, some, strict=True):
            row = rows[place]
            kept[place] = own[row.ahead : row.ahead + len(row.offsets)].tolist()
    return mean_by_word([p for own in kept for p in own], [span for row in rows for span in row.offsets], words)
