"""What CoMeT is trained on: the rows of a step, made from needles in books, documents with questions, and books."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from laconic.backbone import Backbone
from laconic.data.haystacks import Haystacks
from laconic.data.needles import Maker, Needle, draw_needles
from laconic.data.schema import QAItem, by_document
from laconic.errors import DataError
from laconic.train.chunk_plans import PLANS
from laconic.train.examples import Example, Examples, conversation

#: what may end a sentence or a clause
ENDS = ("\n", ".", ",", "\u3002")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How long the rows of a stage are, and how many.

    The rows of one step are about as long as each other, since each costs what the longest does; steps differ.

    Attributes:
        chunk_tokens: of a full chunk in training; a curriculum may begin with short ones.
        chunks: how many full chunks of text there are at least; one number is drawn for a batch.
        plans: where a text is cut, of ``chunk_plans.PLANS``; one is drawn for a batch.
        questions: most questions to one text; a number from one on is drawn for a batch.
        rows: rows of a batch.
    """

    chunk_tokens: int
    chunks: Sequence[int]
    plans: Sequence[str]
    questions: int
    rows: int
    seed: int | str

    def step(self, index: int) -> Step:
        draw = random.Random(f"{self.seed}/{index}")
        chunks = draw.choice(list(self.chunks))
        # half of the texts end in a short rest
        rest = draw.randrange(self.chunk_tokens) if draw.random() < 0.5 else 0
        return Step(
            shape=self,
            draw=draw,
            length=chunks * self.chunk_tokens + rest,
            questions=draw.randint(1, self.questions),
            plan=draw.choice(list(self.plans)),
            seed=f"{self.seed}/{index}/plan",
        )


@dataclass(frozen=True)
class Step:
    """What the rows of one step have in common.

    Attributes:
        draw: what else differs between them.
        length: tokens of a text.
        questions: asked of each.
        plan: kind of the chunk plans.
        seed: of the plans' chance: texts of one length are cut alike.
    """

    shape: Shape
    draw: random.Random
    length: int
    questions: int
    plan: str
    seed: str

    def rows(self, make: Callable[[Step], Example]) -> list[Example]:
        return [make(self) for _ in range(self.shape.rows)]

    def cut(self, ids: Sequence[int], backbone: Backbone) -> list[int]:
        """The chunk plan of a text."""
        full = self.shape.chunk_tokens
        most = max(self.shape.chunks) + 1  # the rest is one more

        def ends(token: int) -> bool:
            return backbone.tokenizer.decode([token]).rstrip(" ").endswith(ENDS)

        return PLANS[self.plan](ids, full, most, random.Random(self.seed), ends)


class NeedleExamples:
    """Needles in books, then questions one after the other, each with its answer.

    Args:
        makers: kinds of needles, drawn evenly: one that is there twice, twice as often.
        distractors: most needles beside those that are asked for.
        asides: behind each chunk but the last, ask for one of the needles that have been read.
    """

    def __init__(
        self,
        backbone: Backbone,
        haystacks: Haystacks[list[int]],
        makers: Sequence[Maker],
        distractors: int,
        shape: Shape,
        asides: bool = False,
    ) -> None:
        self.backbone, self.haystacks, self.makers = backbone, haystacks, makers
        self.distractors, self.shape, self.asides = distractors, shape, asides

    def __call__(self, index: int) -> list[Example]:
        return self.shape.step(index).rows(self._row)

    def _row(self, step: Step) -> Example:
        draw, asked, length = step.draw, step.questions, step.length
        needles = draw_needles(self.makers, asked + draw.randint(0, self.distractors), draw)
        spelled = [sum(len(self.backbone.token_ids(part)) for part in needle.sentences) for needle in needles]
        while len(spelled) > 1 and sum(spelled) > length // 2:  # half of the text is the book's
            spelled.pop()
        needles = needles[: len(spelled)]
        # one that is longer than the text (a story) is told in a longer one
        hidden = self.haystacks.hide(needles, max(length, sum(spelled)), draw)
        plan = step.cut(hidden.text, self.backbone)
        pairs = [(needle.question, needle.answer) for needle in needles[:asked]]
        row = conversation(self.backbone, hidden.text, plan, pairs, self.shape.chunk_tokens)
        spans = [
            [
                (start, start + len(self.backbone.token_ids(part)))
                for start, part in zip(at, needle.sentences, strict=True)
            ]
            for needle, at in zip(needles, hidden.starts, strict=True)
        ]
        some, whole = _numbers_of(plan, [span for of_needle in spans for span in of_needle])
        row = replace(row, hidden=some, parted=some - whole)
        return replace(row, asides=self._asides(needles, spans, plan, step)) if self.asides else row

    def _asides(
        self, needles: Sequence[Needle], spans: Sequence[Sequence[tuple[int, int]]], plan: Sequence[int], step: Step
    ) -> dict[int, Example]:
        """One question behind each chunk of the plan but the last, where a whole needle lies before it.

        One that takes more than a chunk is left out.

        Args:
            spans: by needle, where each of its sentences begins and ends.
        """
        ends = [max(end for _, end in of_needle) for of_needle in spans]
        # a chance of its own: with asides or without, a step has the same texts
        draw = random.Random(f"{step.seed}/asides/{[[start for start, _ in of_needle] for of_needle in spans]}")
        asides = {}
        for number, read in enumerate(list(accumulate(plan))[:-1]):
            known = [needle for needle, end in zip(needles, ends, strict=True) if end <= read]
            if known:
                needle = draw.choice(known)
                pairs = [(needle.question, needle.answer)]
                asides[number] = conversation(self.backbone, [], [], pairs, self.shape.chunk_tokens)
        return {number: aside for number, aside in asides.items() if len(aside.plan) == 1}


class DocumentExamples:
    """Questions about documents, or about a part of one that has the evidence for them.

    What has no marked evidence (a summary) is asked only of documents that fit whole. Where hardly any part of the
    length that was drawn holds the evidence for anything, a longer one is taken.

    Args:
        items: of a task; questions about one document share its id.
    """

    #: documents that are tried at a length, and doublings of the length
    TRIES, DOUBLINGS = 50, 3

    def __init__(self, backbone: Backbone, items: Iterable[QAItem], shape: Shape) -> None:
        self.backbone, self.shape = backbone, shape
        self.documents = list(by_document(items).values())

    def __call__(self, index: int) -> list[Example]:
        return self.shape.step(index).rows(self._row)

    def _row(self, step: Step) -> Example:
        draw, length = step.draw, step.length
        for attempt in range(self.TRIES * (self.DOUBLINGS + 1)):
            items = draw.choice(self.documents)
            text, known = self._part(items, length * 2 ** (attempt // self.TRIES), draw)
            if known:
                chosen = draw.sample(known, min(len(known), step.questions))
                pairs = [(item.question, item.answers[0]) for item in chosen]
                return conversation(self.backbone, text, step.cut(text, self.backbone), pairs, self.shape.chunk_tokens)
        raise DataError(
            f"No document has a question that {length * 2**self.DOUBLINGS} tokens of it answer.",
            "Train on more chunks.",
        )

    def _part(self, items: list[QAItem], length: int, draw: random.Random) -> tuple[list[int], list[QAItem]]:
        """At most ``length`` tokens of a document, and the questions that they answer."""
        encoded = self.backbone.tokenizer(
            items[0].document, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        if len(ids) <= length:
            return ids, items
        start = draw.randrange(len(ids) - length + 1)
        first, last = offsets[start][0], offsets[start + length - 1][1]
        known = [item for item in items if item.evidence and all(first <= a and b <= last for a, b in item.evidence)]
        return ids[start : start + length], known


class ReadOnExamples:
    """Running text to be continued: every token is labelled."""

    def __init__(self, backbone: Backbone, haystacks: Haystacks[list[int]], shape: Shape) -> None:
        self.backbone, self.haystacks, self.shape = backbone, haystacks, shape

    def __call__(self, index: int) -> list[Example]:
        return self.shape.step(index).rows(self._row)

    def _row(self, step: Step) -> Example:
        full = self.shape.chunk_tokens
        ids = self.haystacks.cut(step.length // full * full + 1, step.draw)
        return Example(ids[:-1], ids[1:], step.cut(ids[:-1], self.backbone))


class MixedExamples:
    """Steps of several kinds.

    Args:
        sources: by how often each is drawn.
    """

    def __init__(self, sources: Sequence[tuple[int, Examples]], seed: int | str) -> None:
        self.weights, self.sources, self.seed = [w for w, _ in sources], [s for _, s in sources], seed

    def __call__(self, index: int) -> list[Example]:
        (source,) = random.Random(f"{self.seed}/mix/{index}").choices(self.sources, self.weights)
        return source(index)


def token_haystacks(backbone: Backbone, texts: Sequence[str]) -> Haystacks[list[int]]:
    return Haystacks([backbone.token_ids(text) for text in texts], backbone.token_ids)


def _numbers_of(plan: Sequence[int], spans: Sequence[tuple[int, int]]) -> tuple[frozenset[int], frozenset[int]]:
    """Numbers of the chunks in which a part of any span lies, and of those in which a whole one does."""
    some, whole = set(), set()
    for number, (size, end) in enumerate(zip(plan, accumulate(plan), strict=True)):
        if any(first < end and end - size < last for first, last in spans):
            some.add(number)
        if any(end - size <= first and last <= end for first, last in spans):
            whole.add(number)
    return frozenset(some), frozenset(whole)
