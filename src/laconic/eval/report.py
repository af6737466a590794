"""A result file as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from laconic.eval.runner import MEASURES


def table(result: dict[str, Any]) -> Table:
    """One row per task, method and factor, with 95 % intervals for F1."""
    shown = Table("task", "method", "factor", "delivered", *MEASURES, "F1 95 %", "items", "skipped")
    for row in result["rows"]:
        scores = [f"{row[m]['mean']:.1f}" if m in row else "-" for m in MEASURES]
        interval = f"{row['f1']['low']:.1f}-{row['f1']['high']:.1f}" if "f1" in row else "-"
        shown.add_row(
            row["task"], row["method"], f"{row['factor']:g}x", f"{row.get('delivered_factor', '-')}x", *scores,
            interval, str(row["items"]), str(row["skipped"]),
        )  # fmt: skip
    return shown


def plot(result: dict[str, Any], measure: str, path: Path) -> None:
    """Quality against the delivered factor: a panel per task, a line per method, bars for the 95 % interval."""
    import matplotlib  # an extra

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = list(dict.fromkeys(row["task"] for row in result["rows"]))
    figure, panels = pyplot.subplots(1, len(tasks), figsize=(5.5 * len(tasks), 4), squeeze=False)
    for panel, task in zip(panels[0], tasks, strict=True):
        rows = [row for row in result["rows"] if row["task"] == task and measure in row]
        for method in dict.fromkeys(row["method"] for row in rows):
            own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["delivered_factor"])
            means = [row[measure]["mean"] for row in own]
            below = [row[measure]["mean"] - row[measure]["low"] for row in own]
            above = [row[measure]["high"] - row[measure]["mean"] for row in own]
            panel.errorbar([row["delivered_factor"] for row in own], means, (below, above), marker="o", label=method)
        panel.set(title=task, xlabel="delivered factor (document tokens / tokens the decoder saw)", ylabel=measure)
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
