"""Methods trained several times: what their seeds agree on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from laconic.eval import metrics
from laconic.eval.journal import Line

#: Student's t for 95 %, two-sided, by degrees of freedom
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MOST_SEEDS = len(_T) + 1
#: what is averaged over seeds besides accuracy
_MEANS = ("generated_tokens", "peak_tokens", "tokens_per_forward")


def mean_with_t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with its 95 % interval by Student's t; of a single value, the interval is all numbers.

    Raises:
        ValueError: there are no values, or more than ten.
    """
    count = len(values)
    if not 1 <= count <= MOST_SEEDS:
        raise ValueError(f"{count} values; give one to {MOST_SEEDS}")
    mean = sum(values) / count
    if count == 1:
        return mean, -math.inf, math.inf
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    reach = _T[count - 2] * spread / math.sqrt(count)
    return mean, mean - reach, mean + reach


def over_seeds(rows: Sequence[Line], seeds: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """A row for each task and method: means over its seeds.

    Args:
        rows: of a result, one for each task and seed.
        seeds: by method, the names its seeds have in the rows.

    Returns:
        Accuracy in % as mean, low and high (null where one seed says nothing of others), tokens, and how many seeds.
    """
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for method, names in seeds.items():
            own = [row for row in rows if row["task"] == task and row["method"] in names]
            if not own:
                continue
            line: dict[str, Any] = {"task": task, "method": method, "seeds": len(own), "items": own[0]["items"]}
            line["accuracy"] = _shown([row["accuracy"]["mean"] for row in own])
            line |= {name: round(sum(row[name] for row in own) / len(own), 3) for name in _MEANS}
            found.append(line)
    return found


def over_seeds_and_tasks(
    rows: Sequence[Line], seeds: Mapping[str, Sequence[str]], against: str
) -> list[dict[str, Any]]:
    """A row for each method: what its seeds do over all tasks, each task counting the same.

    Args:
        rows, seeds: as for ``over_seeds``; all methods with the same seeds in the same order.
        against: the method that the others are compared with, seed by seed.

    Returns:
        Accuracy in % and, but for ``against`` itself, its difference to that one's; mean, low and high over seeds. The
        mean peak in the cache as a share of that one's on the same task, and tokens in a pass.
    """
    by_name = {name: [row for row in rows if row["method"] == name] for names in seeds.values() for name in names}
    right = {name: sum(row["accuracy"]["mean"] for row in own) / len(own) for name, own in by_name.items()}
    found = []
    for method, names in seeds.items():
        line: dict[str, Any] = {"method": method, "seeds": len(names), "accuracy": _shown([right[n] for n in names])}
        pairs = list(zip(names, seeds[against], strict=True))
        if method != against:
            line["difference"] = _shown([right[own] - right[other] for own, other in pairs])
        peaks = [
            row["peak_tokens"] / other["peak_tokens"]
            for own, name in pairs
            for row, other in zip(by_name[own], by_name[name], strict=True)
        ]
        passes = [row["tokens_per_forward"] for name in names for row in by_name[name]]
        line |= {"peak": round(sum(peaks) / len(peaks), 4), "tokens_per_forward": round(sum(passes) / len(passes), 3)}
        found.append(line)
    return found


def over_problems(
    right: Mapping[str, Mapping[str, bool]], seeds: Mapping[str, Sequence[str]], against: str
) -> dict[str, dict[str, float]]:
    """By method, how much oftener than ``against`` it is right, all seeds together, problem by problem.

    Args:
        right: by name of the seed and by problem; every seed has the same problems.
        seeds: by method, the names of its seeds.

    Returns:
        Mean, low and high in points, of 95 %: what other problems would make of these very trainings.
    """
    shares = {
        method: {problem: sum(right[name][problem] for name in names) / len(names) for problem in right[names[0]]}
        for method, names in seeds.items()
    }
    others = shares.pop(against)
    return {
        method: metrics.percent(metrics.difference_with_interval(list(own.values()), [others[item] for item in own]))
        for method, own in shares.items()
    }


def _shown(values: Sequence[float]) -> dict[str, float | None]:
    interval = mean_with_t_interval(values)
    shown = [round(value, 2) if math.isfinite(value) else None for value in interval]
    return dict(zip(("mean", "low", "high"), shown, strict=True))
