"""Training a method that reasons in steps: next-token loss under its mask, and its guesses' beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from laconic.core.compat import require_plain_head
from laconic.core.layout import IGNORE, Kind, Layout, batch, concatenate
from laconic.core.thoughts import Trace, documents_apart, lay_out
from laconic.core.visibility import attention_mask
from laconic.losses.next_token import summed_next_token_loss
from laconic.methods.thinking.model import Thinker


@dataclass(frozen=True)
class Drawn:
    """A trace, and what was drawn for this look at it.

    Attributes:
        reach: how many following steps may read each of its steps.
        offset: how far ahead its foresight tokens guess; None: it has none.
    """

    trace: Trace
    reach: list[int]
    offset: int | None


#: traces that share a row of the batch, and do not see each other
Row = Sequence[Drawn]


@dataclass(frozen=True)
class Rows:
    """A batch as the decoder is fed it: fields ``[B, T]``, padded on the right.

    Attributes:
        ids: token ids, numbers of memory tokens, or 0.
        document: number of the trace in its row that a token belongs to.
        reach: int64 ``[B, steps + 1]``, by number of the step, which count on from trace to trace.
    """

    layout: Layout
    ids: Tensor
    document: Tensor
    reach: Tensor

    @property
    def packed(self) -> bool:
        return bool((self.document > 0).any())


def lay_out_rows(thinker: Thinker, rows: Sequence[Row]) -> Rows:
    """Rows of traces as one batch."""
    layouts, ids, documents, reaches = [], [], [], []
    for row in rows:
        steps = 0
        parts, own_ids, own_documents = [], [], []
        reach = [0]
        for number, drawn in enumerate(row):
            layout, flat = lay_out(drawn.trace, thinker.shape, drawn.offset)
            later = (layout.step > 0) * steps
            parts.append(Layout(layout.kind, layout.step + later, layout.position, layout.label))
            own_ids.append(flat)
            own_documents.append(torch.full_like(flat, number))
            reach += drawn.reach
            steps += len(drawn.reach)
        layouts.append(concatenate(parts))
        ids.append(torch.cat(own_ids))
        documents.append(torch.cat(own_documents))
        reaches.append(torch.tensor(reach))
    stacked = [nn.utils.rnn.pad_sequence(part, batch_first=True) for part in (ids, documents, reaches)]
    return Rows(batch(layouts, "right"), *stacked)


class ThinkingStage(nn.Module):
    """The loss of ``(1 - w)`` times the words' mean and ``w`` times the guesses', each over its own labels."""

    def __init__(self, thinker: Thinker, foresight_weight: float = 0.0) -> None:
        super().__init__()
        require_plain_head(thinker.decoder)  # the loss is of the head's product
        self.thinker, self.foresight_weight = thinker, foresight_weight

    def forward(self, rows: Sequence[Row]) -> tuple[Tensor, dict[str, float]]:
        """The two parts of the loss, ``[2]``, and how many labels were met."""
        made = lay_out_rows(self.thinker, rows)
        device = self.thinker.backbone.device
        layout = made.layout.map(lambda field: field.to(device))
        outputs = self._outputs(made, layout)
        word, word_met = self._part(outputs, layout, layout.kind != Kind.FORESIGHT)
        guess, guess_met = self._part(outputs, layout, layout.kind == Kind.FORESIGHT)
        met = {"token_accuracy": word_met, "guess_accuracy": guess_met}
        numbers = {name: share for name, share in met.items() if share is not None}
        weight = self.foresight_weight
        return torch.stack([(1 - weight) * word, weight * guess]), numbers

    def _outputs(self, made: Rows, layout: Layout) -> Tensor:
        """Of the last layer, ``[B, T, D]``."""
        thinker, device = self.thinker, layout.kind.device
        rule = thinker.rule(made.reach.to(device))
        if made.packed:
            rule = documents_apart(rule, made.document.to(device))
        return thinker.decoder.base_model(
            inputs_embeds=thinker.embedded(layout.kind, made.ids.to(device)),
            attention_mask=attention_mask(thinker.decoder, rule, layout),
            position_ids=layout.position,
            use_cache=False,
        ).last_hidden_state

    def _part(self, outputs: Tensor, layout: Layout, where: Tensor) -> tuple[Tensor, float | None]:
        """Mean loss over the labels there, and the share of them that was met; None without any."""
        places = where & (layout.label != IGNORE)
        if not bool(places.any()):
            return outputs.new_zeros((), dtype=torch.float32), None
        head = self.thinker.decoder.get_output_embeddings()
        loss, hits = summed_next_token_loss(head, outputs[places], layout.label[places])
        return loss / len(hits), hits.float().mean().item()


def labels_in_rows(rows: Sequence[Row]) -> tuple[float, float]:
    """Words and guesses that are labelled, which the two parts of the loss are means over."""
    words = guesses = 0
    for row in rows:
        for drawn in row:
            lengths = [len(step) for step in drawn.trace.steps]
            words += sum(lengths) + (drawn.trace.end is not None)
            if drawn.offset is not None:
                guesses += sum(max(0, length - drawn.offset) for length in lengths)
    return float(words), float(guesses)
