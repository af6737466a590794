"""The stages of supervised fine-tuning, as recipes name them."""

from __future__ import annotations

from typing import Any

from laconic.backbone import Backbone
from laconic.errors import RecipeError
from laconic.methods.sft.model import SFT, SFTConfig
from laconic.train import reading_data
from laconic.train.checks import positive
from laconic.train.reading_data import ReadingData, check_reading, load_reading, reading_examples
from laconic.train.sft import SFTStage
from laconic.train.stages import OnDecoder, StageTask
from laconic.train.targets import labels_in


class SFTTrainer(OnDecoder):
    """A stage mixes tasks as CoMeT's do; ``window`` has it trained with a sink window of so many recent tokens."""

    options = SFTConfig
    look = "See recipes/sft/cpu.yaml."

    def keys(self, stage: dict[str, Any]) -> tuple[str, ...]:
        return (*reading_data.KEYS, "window")

    def check(self, stage: dict[str, Any], where: str) -> None:
        check_reading(stage, where, self.look)
        if stage["window"] is not None and not positive(stage["window"]):
            raise RecipeError(f"{where}: window must be null, or a whole number of tokens.", self.look)

    def data(self, stage: dict[str, Any]) -> ReadingData:
        return load_reading(stage)

    def make(self, backbone: Backbone, config: SFTConfig) -> SFT:
        return SFT(backbone, config)

    def task(self, method: SFT, stage: dict[str, Any], data: ReadingData, seed: int) -> StageTask:
        lora = [p for name, p in method.decoder.named_parameters() if "lora_" in name]
        examples = reading_examples(method.backbone, stage, data, seed)
        return StageTask(SFTStage(method, stage["window"]), examples, {"decoder": (lora, 1.0)}, weight=labels_in)
