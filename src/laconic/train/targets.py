"""The labels of a batch of rows that are read chunk by chunk, and how many of them were met."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from laconic.core.layout import IGNORE
from laconic.train.reading_examples import Example


def labels_in(batch: Sequence[Example]) -> int:
    return sum(label != IGNORE for example in batch for label in example.labels)


class Targets:
    """The labels of a batch, chunk by chunk, and how many of them were met."""

    def __init__(self, batch: Sequence[Example]) -> None:
        self.rows = [torch.tensor(example.ids) for example in batch]
        self.plans = [example.plan for example in batch]
        self.labels = [torch.tensor(example.labels).split(example.plan) for example in batch]
        self.count = labels_in(batch)
        self.right = 0
        self.whole = [True] * len(batch)

    def loss(self, logits: Callable[[Tensor], Tensor], number: int, outputs: Tensor) -> Tensor | None:
        """What the rows' chunk of this number adds to the mean loss over all labels; None where it has no label.

        Args:
            logits: from outputs of the last layer to the vocabulary; only labelled places meet it.
            outputs: of the last layer at its text tokens, row after row.
        """
        row_of = [row for row, parts in enumerate(self.labels) if number < len(parts) for _ in parts[number]]
        wanted = torch.cat([parts[number] for parts in self.labels if number < len(parts)])
        places = (wanted != IGNORE).nonzero()[:, 0]
        if not len(places):
            return None
        targets = wanted[places].to(outputs.device)
        scores = logits(outputs[places.to(outputs.device)]).float()
        hits = (scores.argmax(-1) == targets).tolist()
        self.right += sum(hits)
        for place, hit in zip(places.tolist(), hits, strict=True):
            self.whole[row_of[place]] &= hit
        return nn.functional.cross_entropy(scores, targets, reduction="sum") / self.count

    @property
    def numbers(self) -> dict[str, float]:
        """Of what has been read so far, for the log."""
        return self.told(self.right, self.whole)

    def told(self, right: float, whole: Sequence[bool]) -> dict[str, float]:
        """Of labels that were met and rows that were right throughout, for the log.

        Running text, where every token is labelled, has a name of its own: no row of it is ever right throughout,
        and beside answers it would hide what those know.
        """
        met = right / max(self.count, 1)
        if self.count == sum(map(len, self.rows)):
            return {"text_accuracy": met}
        return {"token_accuracy": met, "exact": sum(whole) / len(whole)}
