"""Supervised fine-tuning on reading: the examples CoMeT is trained on, read in one piece by the plain decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from laconic.backbone import Backbone
from laconic.core.layout import Kind, batch, run
from laconic.core.positions import sequential
from laconic.core.visibility import Rule, attention_mask, causal
from laconic.errors import RecipeError
from laconic.methods.baselines.sink_window import SINK_TOKENS, sinks_and_recent
from laconic.methods.sft.model import SFT, SFTConfig
from laconic.train import reading_data
from laconic.train.checks import positive
from laconic.train.reading_data import ReadingData, check_reading, load_reading, reading_examples
from laconic.train.reading_examples import Example
from laconic.train.stages import StageTask
from laconic.train.targets import Targets


class SFTStage(nn.Module):
    """Next-token loss over whatever is labelled, each row one sequence.

    Args:
        recent: most recent tokens that a token may read, beside the first four (a sink window); None lets it read all.
    """

    def __init__(self, sft: SFT, recent: int | None = None) -> None:
        super().__init__()
        self.sft = sft
        self.rule: Rule = causal if recent is None else sinks_and_recent(SINK_TOKENS, recent)

    def forward(self, examples: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """The mean loss over all labels of the batch."""
        decoder, device = self.sft.decoder, self.sft.backbone.device
        targets = Targets([replace(example, plan=[len(example.ids)]) for example in examples])
        layout = batch([run(Kind.TEXT, sequential(0, len(row))) for row in targets.rows], side="right")
        layout = layout.map(lambda field: field.to(device))
        hidden = decoder.base_model(
            input_ids=nn.utils.rnn.pad_sequence(targets.rows, batch_first=True).to(device),
            attention_mask=attention_mask(decoder, self.rule, layout),
            position_ids=layout.position,
            use_cache=False,
        ).last_hidden_state
        loss = targets.loss(decoder.get_output_embeddings(), 0, hidden[layout.real])
        return torch.zeros((), device=device) if loss is None else loss, targets.numbers


class SFTTrainer:
    """A stage mixes tasks as CoMeT's do; ``window`` has it trained with a sink window of so many recent tokens."""

    options = SFTConfig
    keys = (*reading_data.KEYS, "window")
    look = "See recipes/sft/cpu.yaml."

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
        return StageTask(SFTStage(method, stage["window"]), examples, {"decoder": (lora, 1.0)})
