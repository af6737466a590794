"""How much a teacher's term weighs, by the number of the batch of roll-outs, counted from 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from laconic.errors import LaconicError

Shape = Literal["linear", "constant", "cosine"]


@dataclass(frozen=True)
class Weight:
    """From ``start`` down to ``least`` (TGPO, arXiv 2605.13230; section 2.2 of its specification).

    Attributes:
        fall: what each batch takes away, linear; the published run has 1e-5, which is 0 from batch 201 on.
        batches: over which a cosine falls.
    """

    start: float = 0.002
    least: float = 0.0
    fall: float = 1e-5
    shape: Shape = "linear"
    batches: int = 200

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise LaconicError(f"Unknown schedule {self.shape!r}.", f"Choose one of {', '.join(get_args(Shape))}.")
        if not 0 <= self.least <= self.start < math.inf or self.fall < 0 or self.batches < 1:
            raise LaconicError("A weight falls from start to least, both 0 or more.", "See TGPO's defaults.")

    def at(self, batch: int) -> float:
        """The weight in a batch of roll-outs, 1 being the first; exactly ``least`` once it is reached."""
        if self.shape == "constant":
            return self.start
        if self.shape == "cosine":
            share = min((batch - 1) / self.batches, 1.0)
            return self.least + (self.start - self.least) * (1 + math.cos(math.pi * share)) / 2
        left = self.start - (batch - 1) * self.fall
        # a difference that only rounding leaves is none: the teacher must not be asked for it
        return self.least if left <= self.least + 1e-9 * self.start else left
