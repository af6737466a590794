"""Cut a text into fixed-width token segments and keep the ones a budget affords.

Used by RAM and by every baseline that selects passages, so that all of them cut in the same places and count the same
tokens. Segments are plain token slices (RAM, section 2.2); character spans come from the tokenizer's offsets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from laconic.core.results import Span
from laconic.errors import BudgetError, DocumentError, QuestionError

Range = tuple[int, int]


@dataclass(frozen=True)
class SegmentedText:
    """A text, its token ids, and where each segment lies in tokens and in characters.

    The character spans tile the text: each begins where the one before ends, so white space between two tokens
    belongs to exactly one segment and kept text can be shown word for word.
    """

    text: str
    ids: list[int]
    token_spans: list[Range]
    char_spans: list[Range]

    def __len__(self) -> int:
        return len(self.token_spans)

    @property
    def lengths(self) -> list[int]:
        return [end - start for start, end in self.token_spans]

    def segment_texts(self) -> list[str]:
        return [self.text[start:end] for start, end in self.char_spans]


def segment(tokenizer: PreTrainedTokenizerBase, text: str, width: int) -> SegmentedText:
    """Cut ``text`` into segments of ``width`` tokens; the last may be shorter.

    Raises:
        DocumentError: the text is empty or white space.
    """
    require_text(text)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    token_spans = [(start, min(start + width, len(ids))) for start in range(0, len(ids), width)]
    # a character split over two tokens goes to the later segment: borders never run backwards
    borders = [0] + [offsets[start][0] for start, _ in token_spans[1:]] + [len(text)]
    return SegmentedText(text, ids, token_spans, list(pairwise(borders)))


def require_text(context: str) -> None:
    """Raise ``DocumentError`` if there is nothing to read, or half characters that no tokenizer takes."""
    if not context.strip():
        raise DocumentError("The document is empty.", "Give a document with some text in it.")
    require_whole_characters(context)


def require_whole_characters(text: str) -> str:
    """Return the text, or raise ``DocumentError`` for half characters."""
    if whole_characters(text) != text:
        raise DocumentError("The document holds half characters (lone surrogates).", "Decode it as UTF-8.")
    return text


def require_question(query: str | None) -> str:
    """Return the query, half characters replaced, or raise ``QuestionError`` if there is none."""
    if query is None or not query.strip():
        raise QuestionError("The question is empty.", "Ask one.")
    return whole_characters(query)


def whole_characters(text: str) -> str:
    """Half surrogate pairs (of a wrong encoding, a damaged font table) replaced: they can be neither read nor shown."""
    return re.sub(r"[\ud800-\udfff]", "\ufffd", text)


def resolve_budget(document_tokens: int, ratio: float | None, budget: int | None) -> tuple[int, float]:
    """The token budget and the requested ratio, from whichever of the two was given.

    A ratio r allows floor(r * T) tokens. A budget beyond the document's length asks for ratio 1.

    Raises:
        BudgetError: both or none given, or out of range.
    """
    if (ratio is None) == (budget is None):
        raise BudgetError("Give either a ratio or a budget.", "A ratio is a kept fraction, a budget a token count.")
    if ratio is not None:
        if not 0.0 < ratio <= 1.0:
            raise BudgetError(f"The ratio {ratio} is not in (0, 1].", "A ratio of 0.25 keeps a quarter (4x).")
        # 1/3 of 3 tokens is one token, whatever binary fractions say
        return math.floor(ratio * document_tokens + 1e-9), ratio
    assert budget is not None
    if budget < 1:
        raise BudgetError(f"The budget of {budget} tokens is too small.", "Give at least 1 token.")
    return budget, min(1.0, budget / document_tokens)


def longest_affordable_prefix(ranking: Sequence[int], costs: Sequence[int], budget: int) -> list[int]:
    """The longest prefix of ``ranking`` whose costs fit the budget.

    A prefix, not a knapsack: keep sets are then nested over budgets, so a milder ratio never loses what a stronger
    one kept.
    """
    kept: list[int] = []
    spent = 0
    for index in ranking:
        spent += costs[index]
        if spent > budget:
            break
        kept.append(index)
    return kept


def spans_of(segmented: SegmentedText, kept: Sequence[int], scores: Sequence[float] | None = None) -> list[Span]:
    """Kept segments as spans of the document, in order; neighbours are joined and carry their best score."""
    spans: list[Span] = []
    for index in sorted(kept):
        start, end = segmented.char_spans[index]
        score = None if scores is None else float(scores[index])
        if spans and spans[-1].end == start:
            before = spans.pop()
            start = before.start
            score = score if before.score is None or score is None else max(score, before.score)
        spans.append(Span(start, end, segmented.text[start:end], score))
    return spans
