"""The labels of a batch of rows that are read chunk by chunk, and how many of them were met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from laconic.core.layout import IGNORE
from laconic.losses.next_token import summed_next_token_loss
from laconic.train.examples import Example


def labels_in(batch: Iterable[Example]) -> int:
    """Of rows and their asides."""
    return sum(_own_labels(row) + labels_in(row.asides.values()) for row in batch)


def _own_labels(row: Example) -> int:
    return sum(label != IGNORE for label in row.labels)


class Targets:
    """The labels of a batch, chunk by chunk, and how many of them were met."""

    def __init__(self, batch: Sequence[Example]) -> None:
        self.batch = batch
        self.rows = [torch.tensor(example.ids) for example in batch]
        self.plans = [example.plan for example in batch]
        self.labels = [torch.tensor(example.labels).split(example.plan) for example in batch]
        self.count = labels_in(batch)
        self.own = sum(map(_own_labels, batch))
        self.right = self.right_aside = 0
        self.whole = [True] * len(batch)

    def loss(self, logits: Callable[[Tensor], Tensor], number: int, outputs: Tensor) -> Tensor | None:
        """What the rows' chunk of this number adds to the mean loss over all labels; None where it has no label.

        Args:
            logits: from outputs of the last layer to the vocabulary; only labelled places meet it.
            outputs: of the last layer at its text tokens, row after row.
        """
        row_of = [row for row, parts in enumerate(self.labels) if number < len(parts) for _ in parts[number]]
        wanted = torch.cat([parts[number] for parts in self.labels if number < len(parts)])
        loss, hits = self._loss(logits, wanted, outputs)
        self.right += sum(hits.values())
        for place, hit in hits.items():
            self.whole[row_of[place]] &= hit
        return loss

    def asked(self, number: int) -> list[Tensor]:
        """What the rows are asked aside behind this chunk; nothing at all where no row is."""
        asides = [row.asides.get(number) for row in self.batch]
        return [torch.tensor(aside.ids if aside else [], dtype=torch.long) for aside in asides] if any(asides) else []

    def loss_aside(self, logits: Callable[[Tensor], Tensor], number: int, outputs: Tensor) -> Tensor | None:
        """As ``loss``, of what is asked aside behind this chunk."""
        wanted = [label for row in self.batch if number in row.asides for label in row.asides[number].labels]
        loss, hits = self._loss(logits, torch.tensor(wanted), outputs)
        self.right_aside += sum(hits.values())
        return loss

    def _loss(
        self, logits: Callable[[Tensor], Tensor], wanted: Tensor, outputs: Tensor
    ) -> tuple[Tensor | None, dict[int, bool]]:
        """The part of the loss, and by labelled place whether its label is the likeliest."""
        places = (wanted != IGNORE).nonzero()[:, 0]
        if not len(places):
            return None, {}
        targets = wanted[places].to(outputs.device)
        loss, hits = summed_next_token_loss(logits, outputs[places.to(outputs.device)], targets)
        return loss / self.count, dict(zip(places.tolist(), hits.tolist(), strict=True))

    @property
    def numbers(self) -> dict[str, float]:
        """Of what has been read so far, for the log."""
        told = self.told(self.right, self.whole)
        return told | {"aside_accuracy": self.right_aside / (self.count - self.own)} if self.count > self.own else told

    def told(self, right: float, whole: Sequence[bool]) -> dict[str, float]:
        """Of the rows' labels that were met and rows that were right throughout, for the log.

        Running text, where every token is labelled, has a name of its own: no row of it is ever right throughout,
        and beside answers it would hide what those know.
        """
        met = right / max(self.own, 1)
        if self.own == sum(map(len, self.rows)):
            return {"text_accuracy": met}
        return {"token_accuracy": met, "exact": sum(whole) / len(whole)}
