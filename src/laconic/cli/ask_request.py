"""What a user asked of ``laconic ask``, and whether it can be meant."""

from __future__ import annotations

import math
from dataclasses import dataclass

from laconic.errors import BudgetError
from laconic.methods.poc.compressors import DEFAULT as STEERED
from laconic.methods.poc.compressors import check_steerable
from laconic.methods.poc.promises import check_promise
from laconic.methods.poc.steering import check_floor
from laconic.methods.registry import WHOLE

DEFAULT = "ram"
#: suffix of the files that `laconic read` makes
MEMORY = ".memory"


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    documents: list[str]
    question: str
    #: what was asked for; None leaves it to the document
    wanted: str | None
    factor: str
    budget: int | None
    backbone: str | None
    adapter: str | None
    max_new_tokens: int
    dtype: str
    device: str
    floor: float | None = None
    promise: str = "mean"
    delta: float = 0.1
    predictor: str | None = None
    auto: bool = False

    @property
    def method(self) -> str:
        """A memory file is CoMeT's; documents are read with RAM unless something else is wanted."""
        if self.wanted:
            return self.wanted
        return "comet" if self.of_memory else DEFAULT if self.floor is None else STEERED

    def check_floor(self) -> None:
        """Raise ``LaconicError`` for a floor that cannot be meant, before any work."""
        check_promise(self.promise, self.delta)
        if self.floor is None:
            if (self.promise, self.delta, self.predictor) != ("mean", 0.1, None):
                raise BudgetError(
                    "What is promised is a floor.", "Give --floor too, or leave --promise, --delta and --predictor out."
                )
            if self.auto:
                raise BudgetError("--auto asks whether a floor pays.", "Give --floor too, or leave --auto out.")
            return
        check_floor(self.floor)
        check_steerable(self.method)
        if self.factor != "auto" or self.budget is not None:
            raise BudgetError("A floor says how much is to be kept.", "Leave --factor and --budget out.")

    @property
    def of_memory(self) -> bool:
        return any(name.endswith(MEMORY) for name in self.documents)

    def ratio(self) -> float | None:
        """1/factor, or None for auto; ``full`` has the ratio 1.

        Raises:
            BudgetError: a factor that is no number, or not above 1, or a saving asked of ``full``.
        """
        if self.method in WHOLE:
            if self.factor not in ("auto", "1") or self.budget is not None:
                raise BudgetError(
                    f"The method {self.method} takes the whole document in: its factor is 1.",
                    "Leave --factor and --budget out.",
                )
            return 1.0
        if self.factor == "auto":
            if self.budget is not None and self.budget < 1:
                raise BudgetError(f"The budget of {self.budget} tokens is too small.", "Give at least 1 token.")
            return None
        try:
            factor = float(self.factor)
        except ValueError:
            factor = math.nan
        if not 1 < factor < math.inf:
            raise BudgetError(f"The factor {self.factor!r} is not a number above 1.", "Give 4 for a quarter, or auto.")
        if self.budget is not None:
            raise BudgetError("Both --factor and --budget are given.", "Give one of them.")
        return 1 / factor
