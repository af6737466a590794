"""RAM's hybrid memory: kept segments word for word, others as skim vectors, in order (sections 2.4, 2.6, 2.7).

One vector per segment is the paper's method. At strong ratios, or where a whole book meets a small window, the vectors
would eat the budget that close reading needs: then neighbouring segments share vectors, the second level of skimming.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from laconic.core.segments import longest_affordable_prefix
from laconic.errors import BudgetError


@dataclass(frozen=True)
class Plan:
    """What happens to each segment: ``kept`` are read closely; ``groups`` are the skimmed ones that share a vector."""

    kept: list[int]
    groups: list[list[int]]
    tokens: int

    def order(self) -> list[tuple[bool, int]]:
        """The memory's parts in document order: (True, segment) read closely, (False, group) skimmed."""
        parts = [(segment, True, segment) for segment in self.kept]
        parts += [(group[0], False, index) for index, group in enumerate(self.groups)]
        return [(close, index) for _, close, index in sorted(parts)]


def vectors_within(segments: int, budget: int, share: float) -> int:
    """How many skim vectors a budget of tokens affords: one per segment, but no more than ``share`` of the budget.

    Neither this nor what it leaves to close reading shrinks as the budget grows, which keeps keep sets nested.
    """
    return min(segments, max(1, math.floor(share * budget)))


def plan_exact(scores: Sequence[float], lengths: Sequence[int], budget: int, vectors: int | None = None) -> Plan:
    """Keep the longest prefix of the ranking with  skim vectors + kept tokens <= budget  (exact mode).

    Args:
        vectors: skim vectors for all segments together, at most one each; None gives one each.

    Raises:
        BudgetError: the skim vectors alone exceed the budget.
    """
    vectors = len(lengths) if vectors is None else vectors
    if budget >= sum(lengths):  # nothing to skim, so no vector to pay for
        return _plan(range(len(lengths)), lengths, vectors)
    check_affordable(vectors, sum(lengths), budget)
    # a kept segment brings its tokens and saves its vector; a shared vector is still needed for the others
    saved = 1 if vectors == len(lengths) else 0
    kept = longest_affordable_prefix(_ranking(scores), [length - saved for length in lengths], budget - vectors)
    return _plan(kept, lengths, vectors)


def check_affordable(skims: int, tokens: int, budget: int) -> None:
    """Raise ``BudgetError`` if the skim vectors alone exceed the budget."""
    if skims > budget:
        mildest = math.floor(10 * tokens / skims) / 10
        factor = f"a factor of at most {mildest:g}, " if mildest > 1 else ""
        raise BudgetError(
            f"{skims} skim vectors are more than the budget of {budget} tokens.",
            f"Use {factor}--factor auto, or wider segments.",
        )


def plan_paper(scores: Sequence[float], lengths: Sequence[int], ratio: float, width: int) -> Plan:
    """Keep k = floor(T * ratio / L) segments (paper mode); the vectors come on top of the nominal budget.

    A ratio of 1 keeps all, also where the last segment is short and the formula would lose one.
    """
    count = len(lengths) if ratio == 1 else min(len(lengths), math.floor(ratio * sum(lengths) / width + 1e-9))
    return _plan(_ranking(scores)[:count], lengths, len(lengths))


def _ranking(scores: Sequence[float]) -> list[int]:
    # ties go to the earlier segment, so equal scores never depend on the sort
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))


def _plan(kept: Sequence[int], lengths: Sequence[int], vectors: int) -> Plan:
    close = set(kept)
    groups: dict[int, list[int]] = {}
    for index in range(len(lengths)):
        if index not in close:
            groups.setdefault(index * vectors // len(lengths), []).append(index)
    skimmed = list(groups.values())
    return Plan(sorted(close), skimmed, sum(lengths[i] for i in close) + len(skimmed))


def assemble(plan: Plan, kept_rows: Sequence[torch.Tensor], skim_rows: torch.Tensor) -> torch.Tensor:
    """The memory [M, D'].

    Args:
        kept_rows: decoder embeddings of each kept segment, [l_i, D'] in the order of ``plan.kept``.
        skim_rows: one aligned vector per group, [G, D'].
    """
    by_segment = dict(zip(plan.kept, kept_rows, strict=True))
    dtype = kept_rows[0].dtype if kept_rows else skim_rows.dtype
    parts = [by_segment[index] if close else skim_rows[index : index + 1] for close, index in plan.order()]
    return torch.cat([part.to(dtype) for part in parts])
