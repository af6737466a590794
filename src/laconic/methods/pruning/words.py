"""Compression word by word: every word has a score, and the best of them stay, in order, as text.

What methods of this kind share (LLMLingua-2, arXiv 2403.12968; Selective Context, arXiv 2310.06201; LongLLMLingua,
arXiv 2310.06839), with the faults of their code left out (PoC's specification, section 2.5): a text is scored once for
all ratios, the reader's own tokens are counted, what is delivered is within a word of what was asked for, and words
kept at one ratio are kept at every gentler one.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise

from laconic.backbone import Backbone
from laconic.core.results import Compressed, Span, Stopwatch, whole
from laconic.core.segments import Range, require_text, resolve_budget
from laconic.errors import BudgetError
from laconic.methods.pruning.protect import check_protected, protected_words

# scripts without spaces: every character is a word
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")


def words_of(text: str) -> list[Range]:
    """Character spans of the words: what stands between white space, and single characters of unspaced scripts."""
    return [found.span() for found in _WORD.finditer(text)]


class WordPruner(ABC):
    """Keeps the words with the highest scores.

    Args:
        protect: kinds of words that are never cut, see ``protect.PROTECTED``; more may then stay than was asked for.

    Raises:
        LaconicError: there is no such kind.
    """

    query_aware = False

    def __init__(self, backbone: Backbone, protect: Collection[str] = ()) -> None:
        check_protected(protect)
        self.backbone, self.protect = backbone, tuple(protect)
        self._last: tuple[str, str | None, list[Range], list[float]] | None = None

    @abstractmethod
    def scores(self, text: str, words: Sequence[Range], query: str | None) -> Sequence[float]:
        """A score for every word; higher is kept first."""

    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        """Keep the best words. Errors as ``roles.Compressor``.

        At ratio 1 the text is returned as it is. A ratio leaves one word at the least; a budget is never exceeded.
        """
        require_text(context)
        watch = Stopwatch(self.backbone.device)
        with watch("tokenize"):
            document_tokens = self.backbone.count_tokens(context)
        allowed, requested = resolve_budget(document_tokens, ratio, budget)
        if allowed >= document_tokens:
            return replace(whole(context, document_tokens), requested_ratio=requested, seconds=watch.seconds)
        with watch("score"):
            words, scores = self._scored(context, query if self.query_aware else None)
        with watch("choose"):
            safe = protected_words(context, words, self.protect)
            ranking = sorted(range(len(words)), key=lambda i: (not safe[i], -scores[i], i))
            least = max(1, sum(safe))
            count = self._affordable(context, words, ranking, allowed, least)
            # where every word is protected nothing may be cut, white space neither
            text = context if all(safe) else rendered(context, words, ranking[:count])
            delivered = self.backbone.count_tokens(text)
        if budget is not None and delivered > budget:
            kept = f"{sum(safe)} protected words" if any(safe) else "a single word"
            raise BudgetError(f"A budget of {budget} tokens is too small for {kept}.", "Raise it, or protect less.")
        notes = [f"{sum(safe)} of {len(words)} words are protected"] if any(safe) else []
        return Compressed(
            document_tokens,
            delivered,
            requested,
            text=text,
            evidence=_spans(context, words, ranking[:count], scores),
            seconds=watch.seconds,
            notes=notes,
        )

    def _scored(self, context: str, query: str | None) -> tuple[list[Range], list[float]]:
        """Words and scores; those of the last text are remembered, so that another ratio costs no second pass."""
        if self._last is None or self._last[:2] != (context, query):
            words = words_of(context)
            self._last = (context, query, words, list(map(float, self.scores(context, words, query))))
        return self._last[2:]

    def _affordable(
        self, context: str, words: Sequence[Range], ranking: Sequence[int], allowed: int, least: int
    ) -> int:
        """How many of the ranking fit the tokens: so many do, one more does not; ``least`` whatever they cost.

        Text that is put together from pieces has other tokens than its pieces, so what is guessed is tokenised.
        """

        def fits(count: int) -> bool:
            return self.backbone.count_tokens(rendered(context, words, ranking[:count])) <= allowed

        # the first is taken as it is, the second is known not to fit, unless white space around the text is too much
        low, high = least, len(words) + (context != context.strip())
        estimate = self._estimate(context, words, ranking, allowed)
        slack = 2 + estimate // 50
        for guess in (estimate - slack, estimate + slack):
            if low < guess < high:
                low, high = (guess, high) if fits(guess) else (low, guess)
        while high - low > 1:
            guess = (low + high) // 2
            low, high = (guess, high) if fits(guess) else (low, guess)
        return low

    def _estimate(self, context: str, words: Sequence[Range], ranking: Sequence[int], allowed: int) -> int:
        """How many would fit if each word kept the tokens it has in the text."""
        encoded = self.backbone.tokenizer(
            context, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        costs, place = [0] * len(words), 0
        for start, end in encoded:
            middle = max(start, end - 1)  # a token may begin with the space before its word
            while place + 1 < len(words) and words[place + 1][0] <= middle:
                place += 1
            costs[place] += 1
        spent = 0
        for count, index in enumerate(ranking):
            spent += costs[index]
            if spent > allowed:
                return count
        return len(ranking)


def rendered(context: str, words: Sequence[Range], kept: Collection[int]) -> str:
    """Kept words in order. Neighbours keep what stood between them; a gap leaves a space, or the line's end it held."""
    pieces, before = [], -1
    for index in sorted(kept):
        start, end = words[index]
        if before >= 0:
            between = context[words[before][1] : start]
            pieces.append(between if index == before + 1 else "\n" if "\n" in between else " ")
        pieces.append(context[start:end])
        before = index
    return "".join(pieces)


def _spans(context: str, words: Sequence[Range], kept: Collection[int], scores: Sequence[float]) -> list[Span]:
    """Runs of kept words, with the best score of each."""
    order = sorted(kept)
    if not order:
        return []
    cuts = [0, *(place + 1 for place, (a, b) in enumerate(pairwise(order)) if b != a + 1), len(order)]
    found = []
    for first, last in pairwise(cuts):
        run = order[first:last]
        start, end = words[run[0]][0], words[run[-1]][1]
        found.append(Span(start, end, context[start:end], max(scores[index] for index in run)))
    return found


def mean_by_word(values: Sequence[float], offsets: Sequence[Range], words: Sequence[Range]) -> list[float]:
    """The mean over the tokens of each word; a token that spans two words counts for both."""
    sums, counts = [0.0] * len(words), [0] * len(words)
    place = 0
    for value, (start, end) in zip(values, offsets, strict=True):
        while place < len(words) and words[place][1] <= start:
            place += 1
        index = place
        while index < len(words) and words[index][0] < end:
            sums[index] += value
            counts[index] += 1
            index += 1
    return [total / max(count, 1) for total, count in zip(sums, counts, strict=True)]
