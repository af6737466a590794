"""Methods that reason, over all tasks together: how often right, and how much oftener than vanilla."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from laconic.eval import metrics
from laconic.eval.journal import Line

#: percent of a task's problems
SOLVED = 80.0


def over_tasks(right: Mapping[str, Sequence[bool]]) -> list[Line]:
    """A row for each method, in percent, with 95 % intervals.

    Args:
        right: by method, whether it answered each problem right; all of them the same problems in the same order.

    Returns:
        ``accuracy`` (mean, low, high), and ``difference`` to the method named ``against``, problem by problem: the last
        vanilla, or nothing where there is none, or of that one itself.
    """
    against = reference(right)
    rows = []
    for method, own in right.items():
        row: Line = {"method": method, "items": len(own), "accuracy": metrics.percent(metrics.score_with_interval(own))}
        if against is not None and method != against:
            others = right[against]
            row |= {
                "against": against,
                "difference": metrics.percent(metrics.difference_with_interval(own, others)),
            }
        rows.append(row)
    return rows


def solved_tasks(rows: Sequence[Line]) -> list[str]:
    """Tasks that the reference solves (``SOLVED``): elsewhere, what compression costs is lost among other errors."""
    by = {(row["method"], row["task"]): row["accuracy"]["mean"] for row in rows}
    against = reference([row["method"] for row in rows])
    return [task for task in dict.fromkeys(row["task"] for row in rows) if by.get((against, task), 0.0) >= SOLVED]


def reference(methods: Mapping[str, object] | Sequence[str]) -> str | None:
    """The one that others are compared with: the last vanilla, where there is one."""
    return next((name for name in reversed(list(methods)) if name.startswith("vanilla")), None)
