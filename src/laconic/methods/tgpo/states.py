"""What a policy's decoder has before each token of its answers, and what its head makes of that.

Objectives that look at single tokens take them from the states that the policy's own loss was made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from laconic.losses.chosen import Head, chosen_log_probs
from laconic.losses.distillation import divergence_of_states
from laconic.methods.tgpo.teacher import LocalTeacher


class LastStates:
    """The last hidden states of a model that ``accelerator`` has wrapped.

    Shapes: B answers of T tokens (real ones are 1 in a mask ``[B, T]``), K tokens looked up at each, width D.

    Args:
        temperature: of the student's probabilities.
        words: tokens that it can say, the first of its head; None: all of them.
    """

    def __init__(self, accelerator: Accelerator, temperature: float, words: int | None = None) -> None:
        self.accelerator, self.temperature, self.words = accelerator, temperature, words

    @contextmanager
    def seen(self, model: Any) -> Iterator[list[Tensor]]:
        """What the decoder's body returns while this lasts, with its graph."""
        bare = self.accelerator.unwrap_model(model)
        bare = bare.get_base_model() if hasattr(bare, "get_base_model") else bare
        seen: list[Tensor] = []
        handle = bare.base_model.register_forward_hook(lambda _, __, made: seen.append(made.last_hidden_state))
        try:
            yield seen
        finally:
            handle.remove()

    def log_probs(self, model: Any, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Of ``ids`` ``[B, T, K]``, from the states before each token; 0 where nothing is real."""
        return self.looked_up(model, states, ids, mask)[0]

    def looked_up(self, model: Any, states: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """As ``log_probs``, and the entropy at each position, ``[B, T]``."""
        real = mask.bool()
        head = self._head(model)
        if self.words is not None and self.words < head.weight.shape[0]:
            head = _first(head, self.words)
        found, entropy = chosen_log_probs(head, states[real], ids[real], temperature=self.temperature)
        places = torch.zeros(ids.shape, device=found.device).masked_scatter(real[..., None], found)
        return places, torch.zeros(mask.shape, device=found.device).masked_scatter(real, entropy)

    def divergence(
        self, model: Any, states: Tensor, teacher: LocalTeacher, teachers: Tensor, mask: Tensor, beta: float
    ) -> Tensor:
        """Of the teacher, by its own states, and the student at each position, ``[B, T]``.

        Args:
            beta: as for ``losses.distillation.divergence_of_states``.
        """
        real, head = mask.bool(), self._head(model)
        found = divergence_of_states(
            (lambda own: teacher.vocabulary.compared(head(own).float()), states[real]),
            (teacher.logits, teachers[real]),
            beta,
            temperature=self.temperature,
        )
        return torch.zeros(mask.shape, device=found.device).masked_scatter(real, found)

    def _head(self, model: Any) -> Any:
        return self.accelerator.unwrap_model(model).get_output_embeddings()


def _first(head: Head, words: int) -> Head:
    return lambda states: head(states)[..., :words]
