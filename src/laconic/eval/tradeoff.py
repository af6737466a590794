"""What a floor buys: mean score against mean delivered ratio, over floors (PoC, arXiv 2603.19733; "P@R").

A *policy* has, for each floor, a delivered ratio and a score for each text. Its points (mean ratio, mean score), with
the uncompressed end (1, mean score of whole texts), make a line; the area under it between two ratios that all
policies reach, divided by their distance, is its P@R: the mean score at a ratio drawn evenly from there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Outcomes:
    """Of one policy on some texts.

    Attributes:
        ratios, scores: delivered ratio and score, ``[floors, texts]``.
        whole: score of each text uncompressed, ``[texts]``.
    """

    ratios: Array
    scores: Array
    whole: Array

    def __post_init__(self) -> None:
        assert self.ratios.shape == self.scores.shape
        assert self.whole.shape == self.ratios.shape[1:]

    def of(self, texts: Sequence[int]) -> Outcomes:
        """The same for some of the texts, any of them more than once."""
        chosen = np.asarray(texts)
        return Outcomes(self.ratios[:, chosen], self.scores[:, chosen], self.whole[chosen])

    def points(self) -> tuple[Array, Array]:
        """Mean ratios, rising, and the mean score at each; where two floors come to one ratio, the mean of both."""
        ratios = np.append(self.ratios.mean(1), 1.0)
        scores = np.append(self.scores.mean(1), self.whole.mean())
        distinct, place = np.unique(ratios.round(9), return_inverse=True)
        return distinct, np.bincount(place, scores) / np.bincount(place)


def performance_at_ratio(outcomes: Outcomes, low: float, high: float = 1.0) -> float:
    """The mean height of a policy's line between two ratios, which it must reach.

    Raises:
        ValueError: an empty range, or one the policy does not reach down to.
    """
    ratios, scores = outcomes.points()
    if not low < high <= 1 or ratios[0] > low + 1e-9:
        raise ValueError(f"from {low} to {high}, of a policy that begins at {ratios[0]:.3f}")
    inside = ratios[(ratios > low) & (ratios < high)]
    at = np.concatenate([[low], inside, [high]])
    heights = np.interp(at, ratios, scores)
    return float(((heights[1:] + heights[:-1]) / 2 * np.diff(at)).sum() / (high - low))


def common_range(policies: Mapping[str, Outcomes]) -> tuple[float, float]:
    """The ratios that all policies reach."""
    return max(float(one.points()[0][0]) for one in policies.values()), 1.0


@dataclass(frozen=True)
class Compared:
    """P@R of a policy, and by how much it is above another's, with the 95 % interval of that."""

    value: float
    difference: float
    low: float
    high: float


def compare(policies: Mapping[str, Outcomes], against: str, *, draws: int = 1000, seed: int = 0) -> dict[str, Compared]:
    """Every policy against one, over the ratios that all reach; texts are drawn anew together (paired bootstrap).

    Raises:
        ValueError: the policies have no ratios in common.
    """
    low, high = common_range(policies)
    texts = len(policies[against].whole)
    value = {name: performance_at_ratio(one, low, high) for name, one in policies.items()}
    draw = random.Random(seed)
    differences: dict[str, list[float]] = {name: [] for name in policies}
    for _ in range(draws):
        chosen = draw.choices(range(texts), k=texts)
        some = {name: one.of(chosen) for name, one in policies.items()}
        # a draw of texts can move where a policy begins, and can have none that some policy compresses
        start = max(low, common_range(some)[0])
        if start >= high:
            continue
        base = performance_at_ratio(some[against], start, high)
        for name, one in some.items():
            differences[name].append(performance_at_ratio(one, start, high) - base)
    found = {}
    for name, seen in differences.items():
        seen.sort()
        ends = seen[int(0.025 * len(seen))], seen[int(0.975 * len(seen))]
        found[name] = Compared(value[name], value[name] - value[against], *ends)
    return found


def best_for_budget(ratios: Array, scores: Array, whole: Array, prices: Sequence[float]) -> Outcomes:
    """The oracle: for each price of a token, each text has the ratio at which its true score less the price is best.

    Args:
        ratios: delivered ones, ``[texts, grid]``, all in (0, 1].
        scores: true scores, ``[texts, grid]``.
        whole: true scores of whole texts, ``[texts]``; ratio 1 may be chosen too.
        prices: of ratio 1, in units of the score. Negative ones too, where gentle compression can score more than the
            whole text: its line would fall straight from the best point to that otherwise.
    """
    grid = np.concatenate([ratios, np.ones((len(whole), 1))], axis=1)
    known = np.concatenate([scores, whole[:, None]], axis=1)
    rows = np.arange(len(whole))
    places = np.array([(known - price * grid).argmax(1) for price in prices])
    return Outcomes(
        np.array([grid[rows, place] for place in places]), np.array([known[rows, place] for place in places]), whole
    )
