"""A stage of training, and what a method's trainer must know to make one from a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from laconic.backbone import Backbone, load_backbone
from laconic.core.method import TrainedMethod
from laconic.core.options import Options
from laconic.errors import RecipeError
from laconic.train.loop import LoopConfig, run


class StageTask:
    """A stage with its data, as the loop wants it."""

    def __init__(
        self,
        module: nn.Module,
        examples: Callable[[int], Any],
        parameters: dict[str, tuple[list[nn.Parameter], float]],
        synchronise: Callable[[], None] | None = None,
        weight: Callable[[Any], float | Sequence[float]] = lambda batch: 1.0,
    ) -> None:
        """
        Args:
            examples: what a step trains on, from the step's number alone.
            parameters: by name, the parameters to train and the multiple of the learning rate they get.
            synchronise, weight: see ``laconic.train.loop.Task``.
        """
        self.synchronise, self.weight = synchronise, weight
        self.module, self.examples, self.parameters = module, examples, parameters

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """As an optimiser wants them; from here on nothing else of the module is trained, till another stage begins."""
        self.module.requires_grad_(False)
        for trained, _ in self.parameters.values():
            for parameter in trained:
                parameter.requires_grad_(True)
        return [{"params": list(ps), "lr": learning_rate * times} for ps, times in self.parameters.values()]

    def batch(self, step: int, rank: int, world: int) -> Any:
        return self.examples(step * world + rank)

    def run(self, loop: LoopConfig, folder: Path, say: Callable[[str], None]) -> None:
        """Train to the end, from the newest checkpoint in ``folder`` if there is one."""
        run(self, loop, folder, say)


class Stage(Protocol):
    """Whatever a recipe can run."""

    def run(self, loop: LoopConfig, folder: Path, say: Callable[[str], None]) -> None: ...


def on_own_answers(stage: dict[str, Any]) -> bool:
    """Whether a stage trains a method on what it says itself, and not on what is written."""
    return "objective" in stage


def policy() -> Any:
    """``laconic.train.policy_recipe``, which stages on own answers need TRL for.

    Raises:
        RecipeError: TRL is not installed.
    """
    try:
        return import_module("laconic.train.policy_recipe")
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"Training on own answers needs {error.name}.", "Install it with `pip install laconic[tgpo]`."
        ) from error


def check_precision(config: Any, backbone: Backbone) -> None:
    """Raise ``RecipeError`` where the optimiser's small steps would be rounded away."""
    if config.train == "full" and backbone.dtype != torch.float32:
        raise RecipeError(
            f"A whole decoder does not learn in {backbone.dtype}.",
            "Set dtype: fp32 (with autocast: true in each loop, if you like), or train: lora.",
        )


class Usual:
    """What most trainers have nothing to say to."""

    def marks(self, data: Sequence[Any]) -> dict[str, Any]:
        """Nothing: the recipe names all that its data follow from."""
        return {}

    def finish(self, method: Any, data: Sequence[Any]) -> None:
        """Nothing is left to do."""


class OnDecoder(Usual):
    """Of methods that stand on a decoder."""

    def open(self, recipe: dict[str, Any]) -> Backbone:
        return load_backbone(recipe["backbone"], dtype=recipe["dtype"], device=recipe["device"])


class Trainer(Protocol):
    """How recipes train one method.

    Attributes:
        look: where to see an example, for error messages.
    """

    @property
    def look(self) -> str: ...

    @property
    def options(self) -> type[Options]:
        """The class of the method's configuration."""
        ...

    def keys(self, stage: dict[str, Any]) -> tuple[str, ...]:
        """What a stage of this kind says besides its name and loop: all of it, and nothing else."""
        ...

    def check(self, stage: dict[str, Any], where: str) -> None:
        """Raise ``RecipeError`` for whatever in a stage would fail later."""
        ...

    def data(self, stage: dict[str, Any]) -> Any:
        """What a stage trains on, loaded before any model is, so that what is missing is found first."""
        ...

    def open(self, recipe: dict[str, Any]) -> Any:
        """Load what the method stands on."""
        ...

    def make(self, backbone: Any, config: Any) -> TrainedMethod: ...

    def task(self, method: Any, stage: dict[str, Any], data: Any, seed: int) -> Stage: ...

    def finish(self, method: Any, data: Sequence[Any]) -> None:
        """What is left to do with a trained method before it is saved, with the data of all its stages."""
        ...

    def marks(self, data: Sequence[Any]) -> dict[str, Any]:
        """What tells a run's data from others that a recipe names alike."""
        ...
