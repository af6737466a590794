"""One method trained several times: what its seeds agree on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from laconic.eval.journal import Line

#: Student's t for 95 %, two-sided, by degrees of freedom
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
#: what is averaged over seeds besides accuracy
_MEANS = ("generated_tokens", "peak_tokens", "tokens_per_forward")


def mean_with_t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with its 95 % interval by Student's t; of a single value, the interval is all numbers.

    Raises:
        ValueError: there are no values, or more than ten.
    """
    count = len(values)
    if not 1 <= count <= len(_T) + 1:
        raise ValueError(f"{count} values; give one to {len(_T) + 1}")
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
            accuracy = mean_with_t_interval([row["accuracy"]["mean"] for row in own])
            shown = [round(value, 2) if math.isfinite(value) else None for value in accuracy]
            line: dict[str, Any] = {"task": task, "method": method, "seeds": len(own), "items": own[0]["items"]}
            line["accuracy"] = dict(zip(("mean", "low", "high"), shown, strict=True))
            line |= {name: round(sum(row[name] for row in own) / len(own), 3) for name in _MEANS}
            found.append(line)
    return found
