"""What a stage that trains on reading is made from, as recipes name it: needles, stories, documents, running text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from laconic.backbone import Backbone
from laconic.core.files import names_lines
from laconic.data.books import load_books
from laconic.data.loaders import DERIVED, TASKS, TRAINABLE
from laconic.data.needles import NEEDLES, Maker
from laconic.data.schema import QAItem
from laconic.data.stories import any_of, is_story, load_stories
from laconic.data.training import load_for_training
from laconic.errors import RecipeError
from laconic.train.checks import positive
from laconic.train.chunk_plans import PLANS
from laconic.train.examples import Examples
from laconic.train.interludes import Interrupted
from laconic.train.reading_examples import (
    DocumentExamples,
    MixedExamples,
    NeedleExamples,
    ReadOnExamples,
    Shape,
    token_haystacks,
)

READ_ON = "continuation"
#: what such a stage says besides its name and loop
KEYS = ("task", "books", "chunk_tokens", "chunks", "plans", "questions", "distractors", "rows")


@dataclass(frozen=True)
class ReadingData:
    """What the tasks of a stage are made from: books, kinds of needles, and items of each task of question answering.

    A task that is named twice is here twice, and drawn as often.
    """

    books: list[str]
    makers: list[Maker]
    documents: list[list[QAItem]]


def check_reading(stage: dict[str, Any], where: str, look: str) -> None:
    """Raise ``RecipeError`` for a slip in the keys that say what is read.

    Args:
        look: where to see an example.
    """
    task, chunks, distractors = stage["task"], stage["chunks"], stage["distractors"]
    if not isinstance(task, list) or not task or not all(map(_is_task, task)):
        known = ", ".join([READ_ON, *NEEDLES, "babi-qa1 to babi-qa20", *TRAINABLE])
        raise RecipeError(f"{where}: task must be a list of {known}, or .jsonl files.", look)
    if not isinstance(chunks, list) or not chunks or not all(map(positive, chunks)):
        raise RecipeError(f"{where}: chunks must be a list of whole numbers above 0.", look)
    plans = stage["plans"]
    if not isinstance(plans, list) or not plans or not all(isinstance(plan, str) and plan in PLANS for plan in plans):
        raise RecipeError(f"{where}: plans must be a list of {', '.join(PLANS)}.", look)
    if not isinstance(stage["books"], str):
        raise RecipeError(f"{where}: books must name a set of books.", look)
    for key in ("rows", "chunk_tokens", "questions"):
        if not positive(stage[key]):
            raise RecipeError(f"{where}: {key} must be a whole number above 0.", look)
    if distractors != 0 and not positive(distractors):
        raise RecipeError(f"{where}: distractors must be a whole number, 0 or more.", look)


def load_reading(stage: dict[str, Any]) -> ReadingData:
    """Raises ``DataError`` for what is missing, or must not be trained on."""
    tasks = stage["task"]
    makers = [NEEDLES[name] for name in tasks if name in NEEDLES]
    makers += [any_of(load_stories(name, training=True)) for name in tasks if is_story(name)]
    documents = [load_for_training(name) for name in tasks if name in TASKS or name in DERIVED or names_lines(name)]
    books = load_books(stage["books"], training=True) if makers or READ_ON in tasks else []
    return ReadingData(books, makers, documents)


def reading_examples(
    backbone: Backbone,
    stage: dict[str, Any],
    data: ReadingData,
    seed: int,
    asides: bool = False,
    interludes: Sequence[int] = (0,),
) -> Examples:
    """Steps of all tasks, as often one as the other; of one that is named twice, twice as often.

    A batch follows from the recipe's seed, the stage's name and the step alone: two methods trained by stages of one
    name and one shape see the same texts. Nothing is encoded before the first step: a stage that is done takes none.

    Args:
        asides: ask for needles along the way too.
        interludes: chunks of other text between those of a text with needles; one number is drawn for a step.
    """
    own = f"{seed}/{stage['name']}"
    shape = Shape(**{key: stage[key] for key in ("chunk_tokens", "chunks", "plans", "questions", "rows")}, seed=own)

    @cache
    def mixed() -> MixedExamples:
        sources: list[tuple[int, Examples]] = [
            (1, DocumentExamples(backbone, items, shape)) for items in data.documents
        ]
        read_on = stage["task"].count(READ_ON)
        if data.makers or read_on:
            books = token_haystacks(backbone, data.books)
            if data.makers:
                needles = NeedleExamples(backbone, books, data.makers, stage["distractors"], shape, asides)
                parted = Interrupted(needles, books, interludes, stage["chunk_tokens"], own)
                sources.append((len(data.makers), parted))
            if read_on:
                sources.append((read_on, ReadOnExamples(backbone, books, shape)))
        return MixedExamples(sources, own)

    return lambda step: mixed()(step)


def hides(task: str) -> bool:
    """Whether a task hides something in a book, which can be asked for from then on."""
    return task in NEEDLES or is_story(task)


def _is_task(name: object) -> bool:
    if not isinstance(name, str):
        return False
    return name in (READ_ON, *NEEDLES, *TASKS, *DERIVED) or is_story(name) or names_lines(name)
