"""The stages of methods that reason in steps, as recipes name them."""

from __future__ import annotations

from typing import Any

from laconic.backbone import Backbone
from laconic.core.options import Options
from laconic.data.problems import Problem
from laconic.errors import DataError, RecipeError
from laconic.methods.thinking.model import Thinker
from laconic.train import thinking_data
from laconic.train.stages import OnDecoder, Stage, StageTask, check_precision, on_own_answers, policy
from laconic.train.thinking import ThinkingStage, labels_in_rows
from laconic.train.thinking_data import (
    check_problems,
    check_written,
    load_solutions,
    some_puzzles,
    thinking_examples,
)


class ThinkingTrainer(OnDecoder):
    """Of one method; the stages of all are alike, so that they can be trained on the same traces."""

    def __init__(self, kind: type[Thinker]) -> None:
        self.kind = kind
        self.options: type[Options] = kind.options
        self.look = f"See recipes/{kind.name}/cpu.yaml."

    def keys(self, stage: dict[str, Any]) -> tuple[str, ...]:
        return (*thinking_data.SHARED, *(policy().KEYS if on_own_answers(stage) else thinking_data.WRITTEN))

    def check(self, stage: dict[str, Any], where: str) -> None:
        check_problems(stage, where, self.look)
        if on_own_answers(stage):
            policy().check_policy(stage, where)
        else:
            check_written(stage, where, self.look)

    def data(self, stage: dict[str, Any]) -> dict[str, list[Problem]]:
        return load_solutions(stage)

    def make(self, backbone: Backbone, config: Any) -> Thinker:
        """Raises ``RecipeError`` where the optimiser's small steps would be rounded away."""
        check_precision(config, backbone)
        return self.kind(backbone, config)

    def task(self, method: Thinker, stage: dict[str, Any], data: dict[str, list[Problem]], seed: int) -> Stage:
        """Raises ``RecipeError`` where a trace could be longer than the backbone was built for, or cannot be made."""
        if stage["limit"] > method.backbone.window:
            raise RecipeError(
                f"The stage {stage['name']} has traces of {stage['limit']} tokens, and the window of "
                f"{method.backbone.name} is {method.backbone.window}.",
                "Lower limit.",
            )
        decoder = [
            p for name, p in method.decoder.named_parameters() if method.config.train == "full" or "lora_" in name
        ]
        soft = [tokens.weight for tokens in method.soft_tokens if len(tokens)]
        if on_own_answers(stage):
            return policy().thinking_task(method, stage, data, decoder, seed)
        if isinstance(stage["segmenter"], int):
            data = load_solutions(stage, method.backbone.tokenizer)  # which was not there when files were looked for
        for name, problems in {**data, **some_puzzles(stage)}.items():
            for problem in problems:  # found out now, and not when it is drawn
                try:
                    method.trace(problem.question, problem.steps, stage["limit"])
                except DataError as error:
                    raise RecipeError(f"{name}, problem {problem.id}: {error.problem}", error.remedy) from error
        parameters = {"decoder": (decoder, 1.0)} | ({"soft": (soft, stage["soft_rate"])} if soft else {})
        module = ThinkingStage(method, method.foresight_weight)
        return StageTask(module, thinking_examples(method, stage, data, seed), parameters, weight=labels_in_rows)
