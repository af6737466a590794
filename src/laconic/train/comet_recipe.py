"""CoMeT's stages, as recipes name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate import PartialState

from laconic.backbone import Backbone
from laconic.data.books import load_books
from laconic.data.needles import NEEDLES
from laconic.errors import RecipeError
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.model import CoMeT
from laconic.train.checks import positive
from laconic.train.comet import NeedleExamples, ReadingStage, ReadOnExamples, SharedReadingStage, parameters_of
from laconic.train.stages import StageTask

READ_ON = "continuation"


class CoMeTTrainer:
    """A stage hides needles of some kinds in books (``task: [passkey, number]``), or reads on (``[continuation]``).

    A stage's name is free, so that a curriculum can have as many as it takes. With ``share_text``, the processes of a
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
        known = [READ_ON, *NEEDLES]
        if not isinstance(task, list) or not task or not all(one in known for one in task):
            raise RecipeError(f"{where}: task must be a list of {', '.join(known)}.", self.look)
        if READ_ON in task and len(task) > 1:
            raise RecipeError(f"{where}: {READ_ON} stands alone.", "Make two stages of it.")
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

    def data(self, stage: dict[str, Any]) -> list[str]:
        return load_books(stage["books"], training=True)

    def make(self, backbone: Backbone, config: CoMeTConfig) -> CoMeT:
        return CoMeT(backbone, config)

    def task(self, method: CoMeT, stage: dict[str, Any], data: list[str], seed: int) -> StageTask:
        parameters = parameters_of(method, stage["memory_rate"])
        full = stage["chunk_tokens"]
        if full > method.config.chunk_tokens:
            raise RecipeError(
                f"The stage {stage['name']} has chunks of {full} tokens, and a full one has "
                f"{method.config.chunk_tokens}.",
                "Raise comet.chunk_tokens.",
            )
        lengths = {
            "chunk_tokens": full,
            "chunks": stage["chunks"],
            "rows": stage["rows"],
            "seed": f"{seed}/{stage['name']}",
        }
        examples: Callable[[int], Any]
        if stage["task"] == [READ_ON]:
            examples = ReadOnExamples(method, data, **lengths)
        else:
            asked = {"questions": stage["questions"], "distractors": stage["distractors"]}
            examples = NeedleExamples(method, data, kinds=stage["task"], **asked, **lengths)
        slots, save = stage["fifo_slots"], stage["save_activations"]
        if slots and max(slots) > method.config.fifo_slots:
            raise RecipeError(
                f"The stage {stage['name']} has {max(slots)} fifo_slots, the method {method.config.fifo_slots}.",
                "Raise comet.fifo_slots.",
            )
        processes = PartialState(cpu=method.backbone.device.type == "cpu").num_processes
        if stage["share_text"] and processes > 1:  # one process has nobody to share with
            shared = SharedReadingStage(method, fifo_slots=slots, save_activations=save)
            return StageTask(shared, examples, parameters, shared.synchronise)
        alone = ReadingStage(method, fifo_slots=slots, truncate=stage["truncate"], save_activations=save)
        return StageTask(alone, examples, parameters)
