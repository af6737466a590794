"""A row of text to train on: a plan of chunks, and labels where something is to be learnt.

Labels are shifted over the whole text before it is cut, so a chunk's last token learns the first of the next one; soft
tokens learn nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from laconic.backbone import Backbone
from laconic.core.layout import IGNORE
from laconic.generation.answer import QUESTION_TEMPLATE


@dataclass(frozen=True)
class Interlude:
    """Other text between two chunks of a row (``laconic.train.interludes``).

    Attributes:
        read: token ids of the chunks of it that are read.
        chunks: how many it stands for; those that are read are written in turn.
        behind: number of the row's chunk that it follows.
    """

    read: list[list[int]]
    chunks: int
    behind: int


@dataclass(frozen=True)
class Example:
    """One row: token ids, the label of each token (already shifted), tokens per chunk.

    Attributes:
        asides: by the number of a chunk, rows of one chunk each that are read behind it. The text goes on without them,
            so that nothing is said twice. Of a long text, many distances are learnt from at little more than the price
            of one.
        interlude: what is read between two of its chunks; what is asked aside there is asked behind it.
        hidden: numbers of the chunks in which something is hidden, where that is known.
        parted: those of them in which no sentence of it lies whole, but a part of one that a border cuts: it may be a
            number, or a full stop, so whether it is worth keeping is not known.
    """

    ids: list[int]
    labels: list[int]
    plan: list[int]
    asides: Mapping[int, Example] = field(default_factory=dict)
    interlude: Interlude | None = None
    hidden: frozenset[int] = frozenset()
    parted: frozenset[int] = frozenset()

    def gated(self, number: int) -> bool:
        """Whether a gate is asked about a chunk, and it is known what to say: the first passes none, the last stays
        open."""
        return 0 < number < len(self.plan) - 1 and number not in self.parted


#: the rows of a step, from its number
Examples = Callable[[int], list[Example]]


def conversation(
    backbone: Backbone, text: list[int], plan: list[int], pairs: Iterable[tuple[str, str]], full: int
) -> Example:
    """A text cut by a plan, then questions, each with its answer, which alone is labelled.

    A question that does not fit into the open chunk begins the next one, as when one is asked, and an answer runs on
    into the next; so the memory must last through both. The token that ends an answer is learnt too, or a reader would
    never stop.
    """
    end = backbone.tokenizer.eos_token_id
    ids, labels, plan = list(text), [IGNORE] * len(text), plan or [0]
    for question, answer in pairs:
        prompt = backbone.token_ids(QUESTION_TEMPLATE.format(question=question))
        said = [*backbone.token_ids(" " + answer), end]
        if plan[-1] + len(prompt) > full:
            plan = [*plan, 0]
        plan = extended(plan, len(prompt) + len(said), full)
        ids += [*prompt, *said]
        labels += [*[IGNORE] * len(prompt), *said]
    plan[-1] -= 1  # what ends the last answer is predicted, not read
    return Example(ids[:-1], labels[1:], [size for size in plan if size])


def extended(plan: list[int], tokens: int, full: int) -> list[int]:
    """A chunk plan with so many more tokens behind it: the last chunk is filled first."""
    fits = min(full - plan[-1], tokens)
    rest = tokens - fits
    return [*plan[:-1], plan[-1] + fits, *[full] * (rest // full), *[rest % full] * (rest % full > 0)]
