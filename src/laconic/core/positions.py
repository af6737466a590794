"""Position ids of the parts of a sequence.

Two schemes for memory tokens. *Sequential*: every token takes the next integer. *Uniform* (MemoSight, after EPL):
memory tokens lie spread over the span they summarise and consume no positions, so what follows continues as if they
were not there and content < memory < continuation holds for distances as well.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scheme = Literal["sequential", "uniform"]


def sequential(start: int, length: int) -> Tensor:
    """``start, start + 1, ...``, int64 ``[length]``."""
    return torch.arange(start, start + length)


def uniform(start: int, span: int, count: int) -> Tensor:
    """``count`` memory tokens spread over the positions ``start .. start + span - 1``.

    Token k lies in the middle of the k-th of ``count`` equal parts: ``start + floor((k + 1/2) span / count)``.

    Returns:
        int64 ``[count]``, never decreasing, distinct when ``count <= span``.
    """
    # whole numbers only: floor of a float product is one off for some lengths
    return start + (2 * torch.arange(count) + 1) * span // (2 * count)


def memory_positions(scheme: Scheme, start: int, span: int, count: int) -> tuple[Tensor, int]:
    """Positions of the ``count`` memory tokens behind a span, and the position of the token after them.

    Args:
        start: position of the first token of the span.
        span: tokens in the span.
    """
    end = start + span
    if scheme == "uniform":
        return uniform(start, span, count), end
    return sequential(end, count), end + count
