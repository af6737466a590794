"""CoMeT's stages, as recipes name them."""

from __future__ import annotations

from typing import Any

from laconic.backbone import Backbone
from laconic.data.books import load_books
from laconic.data.needles import NEEDLES
from laconic.errors import RecipeError
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.model import CoMeT
from laconic.train.checks import positive
from laconic.train.comet import NeedleExamples, ReadingStage, ReadOnExamples, parameters_of
from laconic.train.stages import StageTask

READ_ON = "continuation"


class CoMeTTrainer:
    """A stage hides needles of some kinds in books (``task: [passkey, number]``), or reads on (``[continuation]``).

    A stage's name is free, so that a curriculum can have as many as it takes.
    """

    options = CoMeTConfig
    keys = ("task", "books", "chunks", "distractors", "rows", "memory_rate", "truncate", "save_activations")
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
        if not isinstance(stage["name"], str) or not stage["name"].replace("-", "").isalnum():
            raise RecipeError(f"{where} has a name that is no plain word.", self.look)
        if not isinstance(stage["books"], str):
            raise RecipeError(f"{where}: books must name a set of books.", self.look)
        if not positive(stage["rows"]):
            raise RecipeError(f"{where}: rows must be a whole number above 0.", self.look)
        distractors, rate, truncate = stage["distractors"], stage["memory_rate"], stage["truncate"]
        if distractors != 0 and not positive(distractors):
            raise RecipeError(f"{where}: distractors must be a whole number, 0 or more.", self.look)
        if not isinstance(rate, int | float) or isinstance(rate, bool) or rate <= 0:
            raise RecipeError(f"{where}: memory_rate must be a number above 0.", self.look)
        if truncate is not None and not positive(truncate):
            raise RecipeError(f"{where}: truncate must be null, or a whole number of chunks.", self.look)
        if not isinstance(stage["save_activations"], bool):
            raise RecipeError(f"{where}: save_activations must be true or false.", self.look)

    def data(self, stage: dict[str, Any]) -> list[str]:
        return load_books(stage["books"], training=True)

    def make(self, backbone: Backbone, config: CoMeTConfig) -> CoMeT:
        return CoMeT(backbone, config)

    def task(self, method: CoMeT, stage: dict[str, Any], data: list[str], seed: int) -> StageTask:
        module = ReadingStage(method, truncate=stage["truncate"], save_activations=stage["save_activations"])
        parameters = parameters_of(method, stage["memory_rate"])
        shared = {"chunks": stage["chunks"], "rows": stage["rows"], "seed": f"{seed}/{stage['name']}"}
        if stage["task"] == [READ_ON]:
            return StageTask(module, ReadOnExamples(method, data, **shared), parameters)
        examples = NeedleExamples(method, data, kinds=stage["task"], distractors=stage["distractors"], **shared)
        return StageTask(module, examples, parameters)
