"""A result file as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from laconic.eval.pictures import picture
from laconic.eval.runner import MEASURES


def tables(result: dict[str, Any]) -> list[Table]:
    """For a terminal of 80 columns: a table per task with the measures that are looked at first.

    What stands in brackets is the 95 % interval; ``- full`` is the paired difference in F1 to the full prompt, or to
    whatever the result was compared to first. ``markdown`` has every measure and every digit.
    """
    shown = []
    for task in dict.fromkeys(row["task"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["task"] == task]
        against = references({"rows": rows})[:1]
        one = Table(
            title=Text(f"{task}, {rows[0]['items'] + rows[0]['skipped']} questions"),
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        one.add_column("method", no_wrap=True)
        for heading in ("factor", "EM", "F1", "ROUGE-L", "evidence", *(f"- {name}" for name in against)):
            one.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            apart = [difference(row, name, digits=0) for name in against]
            f1 = f"{row['f1']['mean']:.1f} ({row['f1']['low']:.0f}-{row['f1']['high']:.0f})" if "f1" in row else "-"
            means = {measure: f"{row[measure]['mean']:.1f}" if measure in row else "-" for measure in MEASURES}
            factor = f"{row['delivered_factor']:.1f}x" if "delivered_factor" in row else f"({row['factor']:g}x)"
            cells = [row["method"], factor, means["em"], f1, means["rouge_l"], means["recall"]]
            one.add_row(*cells, *apart)
        skipped = {row["method"]: row["skipped"] for row in rows if row["skipped"]}
        if skipped:
            counts = ", ".join(f"{method} {count}" for method, count in skipped.items())
            one.caption = f"Did not fit and were skipped: {counts}. The Markdown file compares what none skipped."
        shown.append(one)
    return shown


def markdown(result: dict[str, Any]) -> str:
    """One row per task, method and factor: every measure, with 95 % intervals for F1, in Markdown.

    ``F1 - full`` is the paired difference to the full prompt, or to what else it was compared to, with 95 % interval.
    Where a row skipped items, ``paired F1`` over the items that no row of the task skipped is the one to compare.
    """
    headings, rows = _cells(result)
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _cells(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    paired = any(row["skipped"] for row in result["rows"])
    against = references(result)
    headings = ["task", "method", "factor", "delivered", *MEASURES, "F1 95 %", "items", "skipped"]
    rows = []
    for row in result["rows"]:
        scores = [f"{row[m]['mean']:.1f}" if m in row else "-" for m in MEASURES]
        interval = f"{row['f1']['low']:.1f}-{row['f1']['high']:.1f}" if "f1" in row else "-"
        delivered = f"{row['delivered_factor']}x" if "delivered_factor" in row else "-"
        counts = [str(row["items"]), str(row["skipped"])]
        rows.append([row["task"], row["method"], f"{row['factor']:g}x", delivered, *scores, interval, *counts])
        rows[-1] += [difference(row, name) for name in against]
        if paired:
            own = row.get("paired", {})  # results of before rows were paired have none
            rows[-1].append(f"{own['f1']:.1f} ({own['items']})" if "f1" in own else "-")
    return headings + [f"F1 - {one}" for one in against] + ["paired F1"] * paired, rows


def references(result: dict[str, Any]) -> list[str]:
    """The methods that the rows of a result were compared to."""
    return list(dict.fromkeys(gap["method"] for row in result["rows"] for gap in row["against"]))


def difference(row: dict[str, Any], name: str, digits: int = 1) -> str:
    """A row's F1 minus that of the method ``name``, with its 95 % interval; a dash where the two do not compare."""
    gap = next((gap["f1"] for gap in row["against"] if gap["method"] == name and "f1" in gap), None)
    return f"{gap['mean']:+.1f} ({gap['low']:+.{digits}f} to {gap['high']:+.{digits}f})" if gap else "-"


def plot(result: dict[str, Any], measure: str, path: Path) -> None:
    """Quality against the delivered factor: a panel per task, a line per method, bars for the 95 % interval."""
    tasks = list(dict.fromkeys(row["task"] for row in result["rows"]))
    size = (5.5 * len(tasks), 4)
    with picture(path, 1, len(tasks), dpi=120, figsize=size, squeeze=False) as (figure, panels):
        for panel, task in zip(panels[0], tasks, strict=True):
            rows = [row for row in result["rows"] if row["task"] == task and measure in row]
            for method in dict.fromkeys(row["method"] for row in rows):
                own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["delivered_factor"])
                means = [row[measure]["mean"] for row in own]
                below = [row[measure]["mean"] - row[measure]["low"] for row in own]
                above = [row[measure]["high"] - row[measure]["mean"] for row in own]
                panel.errorbar(
                    [row["delivered_factor"] for row in own], means, (below, above), marker="o", label=method
                )
            panel.set(title=task, xlabel="delivered factor (document tokens / tokens the decoder saw)", ylabel=measure)
            if rows:
                panel.legend()
        figure.tight_layout()
