"""Which positions of an answer a teacher guides (TGPO, arXiv 2605.13230; section 2.5 of its specification)."""

from __future__ import annotations

from torch import Tensor

from laconic.methods.tgpo.config import Gate
from laconic.methods.tgpo.teacher import Scores

#: what rounding makes of advantages that are 0: equal rewards less their mean, over a deviation of about 1e-4
ROUNDING = 5e-3


def no_better(advantages: Tensor) -> Tensor:
    """Answers that were no better than their group, bool like ``advantages``."""
    return advantages <= ROUNDING


def gated(gate: Gate, threshold: float, scores: Scores, said: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """1 where an answer is guided, ``[B, T]``; nowhere outside of ``mask``.

    The gate ``entropy`` asks the student, and all processes: see ``TGPOTrainer``.

    Args:
        threshold: how sure a teacher must be (``confident``), or the share of an answer (``first``).
        said: the answers' tokens ``[B, T]``.
        advantages: of the answers, ``[B]``: ``incorrect`` guides those that were no better than their group.
    """
    if gate == "mismatch":
        mask = mask * (scores.ids != said)
    elif gate == "confident":
        mask = mask * (scores.log_probs.exp() > threshold)
    elif gate == "incorrect":
        mask = mask * no_better(advantages)[:, None]
    elif gate == "first":
        place = (mask.cumsum(1) - 1).clamp(min=0)  # among what the student said itself
        mask = mask * (place < (threshold * mask.sum(1, keepdim=True)).ceil())
    return mask.float()
