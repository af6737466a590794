"""A result of ``evaluate_reasoning`` as tables, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from laconic.eval.over_tasks import reference

Row = dict[str, Any]


def tables(result: dict[str, Any]) -> list[Table]:
    """For a terminal of 80 columns, a table per task and one over all; in brackets the 95 % interval. ``markdown`` has
    more.

    ``ended`` is the share of solutions that came to their end, ``words`` the tokens written, ``peak`` the most tokens
    in the cache, also as a share of vanilla's, ``a pass`` the tokens that a forward pass gave, ``s`` seconds a problem.
    """
    shown = []
    for task in dict.fromkeys(row["task"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["task"] == task]
        one = Table(
            title=Text(f"{task}, {rows[0]['items']} problems"),
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        one.add_column("method", no_wrap=True)
        for heading in ("right %", "ended", "words", "peak", "of vanilla", "a pass", "s"):
            one.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            right = row["accuracy"]
            one.add_row(
                row["method"],
                f"{right['mean']:.0f} ({right['low']:.0f}-{right['high']:.0f})",
                f"{row['ended']:.0f} %",
                f"{row['generated_tokens']:.0f}",
                f"{row['peak_tokens']:.0f}",
                _of_vanilla(row, result),
                f"{row['tokens_per_forward']:.2f}",
                f"{row['seconds']:.1f}",
            )
        shown.append(one)
    if overall := _over_tasks(result):
        whole = Table(*overall[0], box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for cells in overall[1:]:
            whole.add_row(*cells)
        shown.append(whole)
    return shown


def markdown(result: dict[str, Any]) -> str:
    """One row per task and method, in Markdown; steps are those of the worked solution, where there is one."""
    lines = [
        "| task | method | right, % (95 %) | all steps right, % | steps right, % | tokens written | "
        "peak cache tokens | of vanilla's | tokens a pass | guesses that stand, where the one before stood |",
        "|" + "---|" * 10,
    ]
    for row in result["rows"]:
        right = row["accuracy"]
        stood = ", ".join(f"{one:.0%}" for one in row["acceptance"]) or "-"
        lines.append(
            f"| {row['task']} | {row['method']} | {right['mean']:.0f} ({right['low']:.0f}-{right['high']:.0f}; "
            f"{row['items']}) | {_worked(row['all_steps_right'])} | {_worked(row['steps_right'])} | "
            f"{row['generated_tokens']:.0f} | {row['peak_tokens']:.0f} | {_of_vanilla(row, result)} | "
            f"{row['tokens_per_forward']:.2f} | {stood} |"
        )
    overall = over_all(result)
    return "\n".join([*lines, "", overall] if overall else lines)


def without(result: dict[str, Any], methods: Collection[str]) -> dict[str, Any]:
    """The same result, less some methods' rows."""
    kept = {key: [row for row in result[key] if row["method"] not in methods] for key in ("rows", "over_tasks")}
    return result | kept


def solved(result: dict[str, Any]) -> dict[str, Any]:
    """The same result over those tasks alone that its reference solves."""
    own = result["solved"]
    rows = [row for row in result["rows"] if row["task"] in own["tasks"]]
    return result | {"rows": rows, "over_tasks": own["over_tasks"]}


def over_all(result: dict[str, Any]) -> str:
    """A row per method in Markdown, over all tasks together; empty for a single task."""
    cells = _over_tasks(result)
    rows = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([rows[0], "|" + "---|" * len(cells[0]), *rows[1:]]) if rows else ""


def _over_tasks(result: dict[str, Any]) -> list[list[str]]:
    """Headings and a row per method; nothing of a single task. Peaks and passes are means over tasks."""
    rows, by_task = result["over_tasks"], result["rows"]
    if len({row["task"] for row in by_task}) < 2:
        return []
    against = next((row["against"] for row in rows if "against" in row), None)
    cells = [["over all tasks", "right, % (95 %)", *([f"less {against} (95 %, paired)", "peak"] if against else [])]]
    cells[0].append("a pass")
    for row in rows:
        mean, gap = row["accuracy"], row.get("difference")
        own = [one for one in by_task if one["method"] == row["method"]]
        cells.append([row["method"], f"{mean['mean']:.0f} ({mean['low']:.0f}-{mean['high']:.0f}; {row['items']})"])
        if against:
            cells[-1].append(f"{gap['mean']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f})" if gap else "-")
            peaks = [share for one in own if (share := _peak_share(one, result)) is not None]
            cells[-1].append(f"{sum(peaks) / len(peaks):.0%}" if peaks else "-")
        cells[-1].append(f"{sum(one['tokens_per_forward'] for one in own) / len(own):.2f}")
    return cells


def _of_vanilla(row: Row, result: dict[str, Any]) -> str:
    share = _peak_share(row, result)
    return "-" if share is None else f"{share:.0%}"


def _peak_share(row: Row, result: dict[str, Any]) -> float | None:
    """The peak beside that of the last vanilla on the same task; None without one."""
    against = reference([one["method"] for one in result["rows"] if one["task"] == row["task"]])
    peaks = {one["task"]: one["peak_tokens"] for one in result["rows"] if one["method"] == against}
    return float(row["peak_tokens"] / peaks[row["task"]]) if row["task"] in peaks else None


def _worked(share: float | None) -> str:
    return "-" if share is None else f"{share:.0f}"
