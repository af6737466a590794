"""What a floor promises: margins that texts held out from training say are needed.

A predictor fitted by mean squared error gives a conditional mean, and choosing the smallest ratio that passes favours
ratios it is too hopeful about. So the floor is raised by a margin, found by running the whole selection on held-out
texts at every margin of a fixed grid (PoC, arXiv 2603.19733; section 2.6 of its specification, where nothing of this
is in the paper). What is drawn by chance is a document; several texts of one (questions about it, excerpts) have its
mean, and prove no more than one of them would. Three promises:

- ``mean``: no margin; what is predicted reaches the floor.
- ``risk``: with confidence ``1 - delta`` the mean retention of texts like the held-out ones is at least the floor
  (Learn then Test, arXiv 2110.01052, margins tested from the largest down).
- ``quantile``: a text like the held-out ones stays below the floor with probability ``delta`` at the most (conformal
  risk control, arXiv 2208.02814, of the violations).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from laconic.errors import DataError

Promise = Literal["mean", "risk", "quantile"]

#: retention that each held-out text had at each margin, margins rising: ``[texts][margins]``
Outcomes = Sequence[Sequence[float]]


def risk_margin(
    outcomes: Outcomes,
    grid: Sequence[float],
    floor: float,
    delta: float = 0.1,
    documents: Sequence[str] | None = None,
) -> float:
    """The smallest margin with which mean retention reaches the floor, at confidence ``1 - delta``.

    Retention above 1 counts as 1: a text that gains does not make up for one that loses.

    Args:
        documents: which one each text is of; None: each of its own.

    Raises:
        DataError: there are no texts, or so few that not even leaving texts alone would prove it.
    """
    _check(outcomes, grid, delta, documents)
    allowed = 1 - floor
    found = None
    losses = _by_document([[min(max(1 - kept, 0.0), 1.0) for kept in one] for one in outcomes], documents)
    for place in reversed(range(len(grid))):
        if mean_above([own[place] for own in losses], allowed) > delta:
            break  # those below are not tested any more: one sequence, one level
        found = grid[place]
    if found is None:
        raise DataError(
            f"{len(losses)} held-out documents are too few to promise {floor} at confidence {1 - delta:g}.",
            "Label more, lower the floor, or allow a larger delta.",
        )
    return found


def quantile_margin(
    outcomes: Outcomes,
    grid: Sequence[float],
    floor: float,
    delta: float = 0.1,
    documents: Sequence[str] | None = None,
) -> float:
    """The smallest margin with which a further text stays below the floor with probability ``delta`` at the most.

    A text counts as kept from the smallest margin on above which it never is below the floor, so that what is counted
    falls as the margin grows.

    Args:
        documents: which one each text is of; None: each of its own.

    Raises:
        DataError: there are no texts, or of fewer than ``1 / delta - 1`` documents.
    """
    _check(outcomes, grid, delta, documents)
    starts = [_kept_from(one, floor) for one in outcomes]
    below = _by_document([[float(place < start) for place in range(len(grid))] for start in starts], documents)
    allowed = (len(below) + 1) * delta - 1  # documents' worth of texts: the further one may be below, too
    if allowed < -1e-9:
        raise DataError(
            f"{len(below)} held-out documents are too few to promise a share of {delta:g}.",
            f"Label at least {math.ceil(1 / delta) - 1}, or allow a larger delta.",
        )
    for place, margin in enumerate(grid):
        if sum(own[place] for own in below) <= allowed + 1e-9:
            return margin
    raise DataError("Even the largest margin leaves texts below the floor.", "End the grid above 1 - floor.")


def mean_above(losses: Sequence[float], allowed: float) -> float:
    """How likely a mean of losses this low is at most, if the true one is above ``allowed`` (Hoeffding, Bentkus)."""
    count = len(losses)
    mean = sum(losses) / count
    if mean >= allowed:
        return 1.0
    hoeffding = math.exp(-count * _divergence(mean, allowed))
    bentkus = math.e * _binomial(math.ceil(count * mean - 1e-9), count, allowed)
    return min(1.0, hoeffding, bentkus)


def _divergence(low: float, high: float) -> float:
    """Between coins that fall with these probabilities, low < high."""
    if high >= 1:
        return math.inf
    found = (1 - low) * math.log((1 - low) / (1 - high))
    return found + (low * math.log(low / high) if low else 0.0)


def _binomial(most: int, count: int, chance: float) -> float:
    """The probability of ``most`` hits or fewer."""
    if chance >= 1:
        return float(most >= count)
    return sum(
        math.exp(
            math.lgamma(count + 1)
            - math.lgamma(hits + 1)
            - math.lgamma(count - hits + 1)
            + hits * math.log(chance)
            + (count - hits) * math.log1p(-chance)
        )
        for hits in range(most + 1)
    )


def _by_document(values: Sequence[Sequence[float]], documents: Sequence[str] | None) -> list[list[float]]:
    """The mean of each document's texts, ``[documents][margins]``."""
    if documents is None:
        return [list(own) for own in values]
    together: dict[str, list[Sequence[float]]] = {}
    for document, own in zip(documents, values, strict=True):
        together.setdefault(document, []).append(own)
    return [[sum(column) / len(column) for column in zip(*own, strict=True)] for own in together.values()]


def _kept_from(outcomes: Sequence[float], floor: float) -> int:
    """The place from which on retention reaches the floor; one past the end if it never does."""
    place = len(outcomes)
    while place and outcomes[place - 1] >= floor - 1e-12:
        place -= 1
    return place


def _check(outcomes: Outcomes, grid: Sequence[float], delta: float, documents: Sequence[str] | None) -> None:
    if not outcomes:
        raise DataError("No held-out texts.", "Hold some labelled texts out for calibration.")
    if not 0 < delta < 1:
        raise DataError(f"delta is {delta}.", "Choose a share between 0 and 1.")
    if list(grid) != sorted(grid) or any(len(one) != len(grid) for one in outcomes):
        raise DataError("Outcomes do not fit the margins.", "Give one for each margin, margins rising.")
    if documents is not None and len(documents) != len(outcomes):
        raise DataError(f"{len(documents)} documents for {len(outcomes)} texts.", "Name one for each text.")
