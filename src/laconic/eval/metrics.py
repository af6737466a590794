"""Metrics of question answering. One convention throughout: the best over all accepted answers.

RAM's paper mixes conventions (its EM exceeds its F1), which is why ours is stated and the same for every number.
"""

from __future__ import annotations

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


def mean_with_interval(values: Sequence[float], seed: int = 0, draws: int = 1000) -> tuple[float, float, float]:
    """Mean with its 95 % bootstrap interval (seeded)."""
    draw = random.Random(seed)
    count = len(values)
    means = sorted(sum(draw.choices(values, k=count)) / count for _ in range(draws))
    return sum(values) / count, means[int(0.025 * draws)], means[int(0.975 * draws)]
