"""Metrics of question answering. One convention throughout: the best over all accepted answers.

RAM's paper mixes conventions (its EM exceeds its F1), which is why ours is stated and the same for every number.
"""

from __future__ import annotations

import math
import random
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from laconic.core.segments import Range

ROUGE_SETTINGS = {"package": "rouge_score", "version": "0.1.2", "stemmer": True, "variant": "rougeL F"}
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
    lowered = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1.0 if the normalised answer equals an accepted one."""
    return float(any(normalise(answer) == normalise(one) for one in accepted))


def f1(answer: str, accepted: Sequence[str]) -> float:
    """Token F1 with the closest accepted answer, in [0, 1]."""
    return max((_f1(answer, one) for one in accepted), default=0.0)


def _f1(answer: str, accepted: str) -> float:
    said, wanted = normalise(answer).split(), normalise(accepted).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


def contains(answer: str, accepted: Sequence[str], parts: Sequence[str] = ()) -> float:
    """1.0 if an accepted answer occurs in the answer, word for word after normalisation.

    Args:
        parts: of an answer that is a list: the share of them that occurs counts instead (as RULER counts).
    """
    if parts:
        return sum(contains(answer, [part]) for part in parts) / len(parts)
    said = f" {normalise(answer)} "
    return float(any(normalise(one) and f" {normalise(one)} " in said for one in accepted))


def rouge_l(answer: str, accepted: Sequence[str]) -> float:
    """ROUGE-L F (``rouge_score``, with stemming) with the closest reference."""
    return max((_rouge().score(one, answer)["rougeL"].fmeasure for one in accepted), default=0.0)


@cache
def _rouge() -> Any:
    from rouge_score import rouge_scorer  # an extra

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def evidence_recall(evidence: Sequence[Range], kept: Iterable[Range]) -> float | None:
    """1.0 if at least one evidence span lies whole inside the kept spans; None where there is no evidence to find."""
    if not evidence:
        return None
    joined: list[list[int]] = []
    for start, end in sorted(kept):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return float(any(a <= start and end <= b for start, end in evidence for a, b in joined))


def score_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean score of items with its 95 % interval: Wilson's where each is right or wrong, by bootstrap otherwise.

    Items drawn anew from ten right ones are all right, so that a bootstrap would be sure of 100 %; Wilson's interval
    reaches to 72 %.
    """
    if all(value in (0, 1) for value in values):
        return wilson(sum(values), len(values))
    return mean_with_interval(values)


def wilson(right: float, count: int) -> tuple[float, float, float]:
    """The share of right ones among ``count`` with its 95 % score interval (Wilson 1927)."""
    z = 1.959964
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    # where all are right or wrong the share is a bound by itself, which rounding must not miss
    return share, max(0.0, min(centre - reach, share)), min(1.0, max(centre + reach, share))


def difference_with_interval(own: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """How much higher one of two scores of the same items is in the mean, with its 95 % interval.

    Newcombe's where each is right or wrong (1998, method 10, for pairs), by bootstrap otherwise. A bootstrap of items
    of which no two differ would be sure that none ever will.
    """
    if not all(value in (0, 1) for value in (*own, *others)):
        return mean_with_interval([one - other for one, other in zip(own, others, strict=True)])
    count = len(own)
    both = sum(1 for one, other in zip(own, others, strict=True) if one and other)
    neither = sum(1 for one, other in zip(own, others, strict=True) if not one and not other)
    (first, first_low, first_high), (second, second_low, second_high) = (
        wilson(sum(own), count),
        wilson(sum(others), count),
    )
    alone, other_alone = sum(own) - both, sum(others) - both
    spread = sum(own) * (count - sum(own)) * sum(others) * (count - sum(others))
    agreed = both * neither - alone * other_alone
    shared = (max(agreed - count / 2, 0.0) if agreed > 0 else agreed) / math.sqrt(spread) if spread else 0.0

    def reach(up: float, down: float) -> float:
        return math.sqrt(max(up * up - 2 * shared * up * down + down * down, 0.0))

    below, above = reach(first - first_low, second_high - second), reach(first_high - first, second - second_low)
    return first - second, first - second - below, first - second + above


def mean_with_interval(values: Sequence[float], seed: int = 0, draws: int = 1000) -> tuple[float, float, float]:
    """Mean with its 95 % bootstrap interval (seeded); for differences, and scores between right and wrong."""
    draw = random.Random(seed)
    count = len(values)
    means = sorted(sum(draw.choices(values, k=count)) / count for _ in range(draws))
    return sum(values) / count, means[int(0.025 * draws)], means[int(0.975 * draws)]


def percent(interval: tuple[float, float, float]) -> dict[str, float]:
    """Mean, low and high as tables have them."""
    return {name: round(100 * value, 2) for name, value in zip(("mean", "low", "high"), interval, strict=True)}
