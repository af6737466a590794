"""Supervised fine-tuning on reading: the examples CoMeT is trained on, read in one piece by the plain decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from laconic.core.compat import require_plain_head
from laconic.core.layout import Kind, batch, run
from laconic.core.positions import sequential
from laconic.core.visibility import Rule, attention_mask, causal
from laconic.methods.baselines.sink_window import SINK_TOKENS, sinks_and_recent
from laconic.methods.sft.model import SFT
from laconic.train.examples import Example
from laconic.train.targets import Targets


class SFTStage(nn.Module):
    """Next-token loss over whatever is labelled, each row one sequence.

    Args:
        recent: most recent tokens that a token may read, beside the first four (a sink window); None lets it read all.
    """

    def __init__(self, sft: SFT, recent: int | None = None) -> None:
        super().__init__()
        require_plain_head(sft.decoder)
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
