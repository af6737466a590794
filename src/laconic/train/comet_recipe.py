"""CoMeT's stages, as recipes name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelerate import PartialState

from laconic.backbone import Backbone
from laconic.data.books import load_books
from laconic.data.loaders import DERIVED, TASKS, load_for_training
from laconic.data.needles import NEEDLES, Maker
from laconic.data.schema import QAItem
from laconic.data.stories import any_of, is_story, load_stories
from laconic.errors import RecipeError
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.model import CoMeT
from laconic.train.checks import positive
from laconic.train.comet import ReadingStage, SharedReadingStage, parameters_of
from laconic.train.comet_examples import (
    DocumentExamples,
    Examples,
    MixedExamples,
    NeedleExamples,
    ReadOnExamples,
    Shape,
)
from laconic.train.stages import StageTask

READ_ON = "continuation"


@dataclass(frozen=True)
class StageData:
    """What the tasks of a stage are made from: books, kinds of needles, and items of question answering by task."""

    books: list[str]
    makers: dict[str, Maker]
    documents: dict[str, list[QAItem]]


class CoMeTTrainer:
    """A stage mixes tasks, each step one: needles in books, questions about documents, and reading on.

    Its name is free, so that a curriculum can have as many as it takes. With ``share_text``, the processes of a
    distributed run take parts of one text each, instead of texts of their own.
    """

    options = CoMeTConfig
    keys = (
        "task",
        "books",
        "chunks",
        "questions",
        "distractors",
        "rows",
        "memory_rate",
        "truncate",
        "save_activations",
        "share_text",
    )
    look = "See recipes/comet/cpu.yaml."

    def check(self, stage: dict[str, Any], where: str) -> None:
        task, chunks = stage["task"], stage["chunks"]
        if not isinstance(task, list) or not task or not all(map(_is_task, task)):
            known = ", ".join([READ_ON, *NEEDLES, "babi-qa1 to babi-qa20", *TASKS, *DERIVED])
            raise RecipeError(f"{where}: task must be a list of {known}.", self.look)
        if not isinstance(chunks, list) or not chunks or not all(map(positive, chunks)):
            raise RecipeError(f"{where}: chunks must be a list of whole numbers above 0.", self.look)
        slots = stage["fifo_slots"]
        if slots is not None and not (isinstance(slots, list) and slots and all(n == 0 or positive(n) for n in slots)):
            raise RecipeError(f"{where}: fifo_slots must be null, or a list of whole numbers.", self.look)
        if not isinstance(stage["name"], str) or not stage["name"].replace("-", "").isalnum():
            raise RecipeError(f"{where} has a name that is no plain word.", self.look)
        if not isinstance(stage["books"], str):
            raise RecipeError(f"{where}: books must name a set of books.", self.look)
        for key in ("rows", "chunk_tokens", "questions"):
            if not positive(stage[key]):
                raise RecipeError(f"{where}: {key} must be a whole number above 0.", self.look)
        distractors, rate, truncate = stage["distractors"], stage["memory_rate"], stage["truncate"]
        if distractors != 0 and not positive(distractors):
            raise RecipeError(f"{where}: distractors must be a whole number, 0 or more.", self.look)
        if not isinstance(rate, int | float) or isinstance(rate, bool) or rate <= 0:
            raise RecipeError(f"{where}: memory_rate must be a number above 0.", self.look)
        if truncate is not None and not positive(truncate):
            raise RecipeError(f"{where}: truncate must be null, or a whole number of chunks.", self.look)
        for key in ("save_activations", "share_text"):
            if not isinstance(stage[key], bool):
                raise RecipeError(f"{where}: {key} must be true or false.", self.look)
        if stage["share_text"] and truncate is not None:
            raise RecipeError(
                f"{where}: a text that is shared carries its gradient all the way.", "Set truncate: null."
            )

    def data(self, stage: dict[str, Any]) -> StageData:
        makers = {name: NEEDLES[name] for name in stage["task"] if name in NEEDLES}
        makers |= {name: any_of(load_stories(name, training=True)) for name in stage["task"] if is_story(name)}
        documents = {name: load_for_training(name) for name in stage["task"] if name in TASKS or name in DERIVED}
        books = load_books(stage["books"], training=True) if makers or READ_ON in stage["task"] else []
        return StageData(books, makers, documents)

    def make(self, backbone: Backbone, config: CoMeTConfig) -> CoMeT:
        return CoMeT(backbone, config)

    def task(self, method: CoMeT, stage: dict[str, Any], data: StageData, seed: int) -> StageTask:
        parameters = parameters_of(method, stage["memory_rate"])
        full, slots, save = stage["chunk_tokens"], stage["fifo_slots"], stage["save_activations"]
        if full > method.config.chunk_tokens:
            raise RecipeError(
                f"The stage {stage['name']} has chunks of {full} tokens, and a full one has "
                f"{method.config.chunk_tokens}.",
                "Raise comet.chunk_tokens.",
            )
        if slots and max(slots) > method.config.fifo_slots:
            raise RecipeError(
                f"The stage {stage['name']} has {max(slots)} fifo_slots, the method {method.config.fifo_slots}.",
                "Raise comet.fifo_slots.",
            )
        examples = self._examples(method.backbone, stage, data, f"{seed}/{stage['name']}")
        processes = PartialState(cpu=method.backbone.device.type == "cpu").num_processes
        if stage["share_text"] and processes > 1:  # one process has nobody to share with
            shared = SharedReadingStage(method, fifo_slots=slots, save_activations=save)
            return StageTask(shared, examples, parameters, shared.synchronise)
        alone = ReadingStage(method, fifo_slots=slots, truncate=stage["truncate"], save_activations=save)
        return StageTask(alone, examples, parameters)

    def _examples(self, backbone: Backbone, stage: dict[str, Any], data: StageData, seed: str) -> Examples:
        """Steps of all tasks, as often one as the other."""
        shape = Shape(**{key: stage[key] for key in ("chunk_tokens", "chunks", "questions", "rows")}, seed=seed)
        sources: list[tuple[int, Examples]] = [
            (1, DocumentExamples(backbone, items, shape)) for items in data.documents.values()
        ]
        if data.makers:
            needles = NeedleExamples(backbone, data.books, data.makers, stage["distractors"], shape)
            sources.append((len(data.makers), needles))
        if READ_ON in stage["task"]:
            sources.append((1, ReadOnExamples(backbone, data.books, shape)))
        return MixedExamples(sources, seed)


def _is_task(name: object) -> bool:
    return isinstance(name, str) and (name in (READ_ON, *NEEDLES, *TASKS, *DERIVED) or is_story(name))
