"""Training the word classifier: which words a question needs, and which a text is worth asking about.

The labels are made from question answering. With a question in front, the words of the sentences that bear its answer
are needed, and none where the excerpt does not bear it. Without one, needed are the words that are answers to any of
the text's questions, and those that the questions of the same paragraph name.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from laconic.core.segments import Range
from laconic.data.schema import QAItem, by_document
from laconic.methods.pruning.classifier import WordClassifier
from laconic.methods.pruning.scoring import SENTENCE_END
from laconic.methods.pruning.words import words_of

_PARAGRAPH = re.compile(r"\n\s*\n|\n")
#: words of a question that say nothing of what it is about
_ASKING = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been by did do does for from had has have how in is it its of on or that the their "
        "there these they this those to was were what when where which while who whom whose why will with",
    )
)


#: questions an excerpt must be asked to say anything of what is worth asking about
ENOUGH = 3


@dataclass(frozen=True)
class Excerpt:
    """A text, the question it is read with if any, and the character spans that are needed."""

    text: str
    query: str | None
    needed: list[Range]


@dataclass(frozen=True)
class Shares:
    """How often an excerpt is read with a question it answers, and with one of its document it may not answer.

    Else it is read without any, if enough is asked about it.
    """

    answered: float
    unanswered: float


class Excerpts:
    """Excerpts of documents; those of a step follow from its number and the seed alone."""

    def __init__(
        self, items: Sequence[QAItem], rows: int, characters: tuple[int, int], shares: Shares, seed: int | str
    ) -> None:
        """
        Args:
            rows: excerpts of a step.
            characters: of an excerpt, from and to.

        Questions without evidence are left out.
        """
        self.documents = list(by_document(item for item in items if item.evidence).values())
        self.rows, self.characters, self.shares, self.seed = rows, characters, shares, seed

    def __call__(self, step: int) -> list[Excerpt]:
        draw = random.Random(f"{self.seed}/{step}")
        return [self._excerpt(draw.choice(self.documents), draw) for _ in range(self.rows)]

    def _excerpt(self, items: list[QAItem], draw: random.Random) -> Excerpt:
        item, size, kind = draw.choice(items), draw.randint(*self.characters), draw.random()
        text = item.document
        anywhere = draw.randrange(max(1, len(text) - size + 1))
        if kind >= self.shares.answered + self.shares.unanswered:
            first, last = _whole_words(text, anywhere, anywhere + size)
            inside = [(one, _inside(one.evidence, first, last)) for one in items]
            if sum(bool(spans) for _, spans in inside) >= ENOUGH:
                return Excerpt(text[first:last], None, asked_about(text[first:last], inside))
        if kind < self.shares.answered or kind >= self.shares.answered + self.shares.unanswered:
            start, end = draw.choice(item.evidence)  # which may lie anywhere in the excerpt
            anywhere = draw.randint(max(0, end - size), start) if end - size < start else start
        first, last = _whole_words(text, anywhere, anywhere + size)
        own = text[first:last]
        return Excerpt(own, item.question, _sentences(own, _inside(item.evidence, first, last)))


def asked_about(text: str, questions: Sequence[tuple[QAItem, list[Range]]]) -> list[Range]:
    """What of a text its questions are about: their evidence, and the words they name in its paragraphs.

    Args:
        questions: each with its evidence in this text, if there is any.
    """
    borders = [found.end() for found in _PARAGRAPH.finditer(text)]
    named: dict[int, set[str]] = {}
    needed: list[Range] = []
    for item, spans in questions:
        needed += spans
        for start, _ in spans:
            named.setdefault(bisect_right(borders, start), set()).update(_stems(item.question))
    for start, end in words_of(text):
        if _stems(text[start:end]) & named.get(bisect_right(borders, start), set()):
            needed.append((start, end))
    return needed


def _stems(text: str) -> set[str]:
    """Words that say something, without what English puts behind them."""
    words = re.findall(r"\w+", text.lower())
    return {re.sub(r"(?<=\w{3})(?:ies|es|ed|ing|s|y|e)$", "", word) for word in words if word not in _ASKING}


def _inside(spans: Sequence[Range], first: int, last: int) -> list[Range]:
    """The parts of spans that lie in an excerpt, counted from its start."""
    return [(max(a, first) - first, min(b, last) - first) for a, b in spans if a < last and b > first]


def _whole_words(text: str, first: int, last: int) -> Range:
    while 0 < first < len(text) and not text[first - 1].isspace():
        first -= 1
    while last < len(text) and not text[last].isspace():
        last += 1
    return first, min(last, len(text))


def _sentences(text: str, spans: Sequence[Range]) -> list[Range]:
    """The sentences that spans touch."""
    borders = [0, *(found.end() for found in SENTENCE_END.finditer(text)), len(text)]
    found = []
    for start, end in spans:
        last = bisect_right(borders, max(start, end - 1))
        found.append((borders[bisect_right(borders, start) - 1], borders[min(last, len(borders) - 1)]))
    return found


class ClassifierStage(nn.Module):
    """Binary cross-entropy of every token of the excerpts."""

    def __init__(self, classifier: WordClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, excerpts: Sequence[Excerpt]) -> tuple[Tensor, dict[str, float]]:
        read = self.classifier.read([one.text for one in excerpts], first_rows=True)
        asked = [place for place, one in enumerate(excerpts) if one.query is not None]
        queries = dict(zip(asked, self.classifier.read_query([str(excerpts[p].query) for p in asked]), strict=True))
        logits = [self.classifier.logits(text, queries.get(place)) for place, (text, _) in enumerate(read)]
        label = [needed(one, offsets) for one, (_, offsets) in zip(excerpts, read, strict=True)]
        said, wanted = torch.cat(logits), torch.cat(label).to(logits[0])
        loss = functional.binary_cross_entropy_with_logits(said, wanted)
        # with a question, does the best quarter of an excerpt that has what is needed hold it?
        found = [
            _within(own, mark.to(own), 0.25)
            for p, (own, mark) in enumerate(zip(logits, label, strict=True))
            if p in queries and bool(mark.any())
        ]
        return loss, {"recall_at_4x": sum(found) / len(found)} if found else {}


def needed(excerpt: Excerpt, offsets: Sequence[Range]) -> Tensor:
    """1 for tokens that touch what is needed, 0 for others, ``[T]``."""
    marked = bytearray(len(excerpt.text))
    for start, end in excerpt.needed:
        marked[start:end] = b"\1" * (end - start)
    return torch.tensor([float(any(marked[start:end])) for start, end in offsets])


def _within(scores: Tensor, wanted: Tensor, share: float) -> float:
    """How much of what is wanted is among the best share of the tokens, at most as much as fits."""
    count = max(1, int(share * len(scores)))
    got = wanted[scores.detach().topk(count).indices].sum()
    return float(got / min(float(wanted.sum()), count))


def labels_in(excerpts: Sequence[Excerpt]) -> float:
    """What the loss is a mean over, nearly: characters, since tokens are counted only when it is made."""
    return float(sum(len(one.text) for one in excerpts))
