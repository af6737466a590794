"""Where in a text is a fact found? Depth against length, from the journal of an evaluation."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

from laconic.data.generated import DEPTHS, NAME
from laconic.eval.pictures import picture
from laconic.eval.runner import Setting
from laconic.methods.registry import WHOLE

#: item ids of generated needles: task, number, tenth of the text
_ITEM = re.compile(rf"(?P<task>{NAME.pattern})-\d+-d(?P<tenth>\d)")

Cells = dict[tuple[int, int], list[float]]


def by_depth(lines: list[dict[str, Any]], measure: str = "em") -> dict[str, Cells]:
    """Scores by kind of needle, and in it by (length in thousands of tokens, tenth of the text).

    Args:
        lines: of one method's journal; other tasks than needles are passed over.
    """
    found: dict[str, Cells] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        match = _ITEM.fullmatch(line["id"])
        if match is None or "skipped" in line:
            continue
        kind = match["kind"] + (f", {match['keys']} keys" if match["keys"] else "") + (", all" if match["all"] else "")
        found[kind][int(match["length"]), int(match["tenth"])].append(float(line[measure]))
    return {kind: dict(cells) for kind, cells in found.items()}


def draw(methods: dict[str, list[dict[str, Any]]], path: Path, measure: str = "em") -> bool:
    """A panel per method and kind of needle: length to the right, depth downwards, green where the fact is found.

    Args:
        methods: lines of the journal by the method's name.

    Returns:
        Whether there was anything to draw.
    """
    panels = [
        (name, kind, cells) for name, lines in methods.items() for kind, cells in by_depth(lines, measure).items()
    ]
    if not panels:
        return False
    size = (4.2 * len(panels), 4.2)
    shape: dict[str, Any] = {"figsize": size, "squeeze": False, "sharey": True, "layout": "constrained"}
    with picture(path, 1, len(panels), dpi=120, **shape) as (figure, axes):
        image = None
        for axis, (name, kind, cells) in zip(axes[0], panels, strict=True):
            lengths = sorted({length for length, _ in cells})
            grid = [[_mean(cells.get((length, tenth), [])) for length in lengths] for tenth in range(DEPTHS)]
            image = axis.imshow(grid, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
            axis.set(title=f"{name}: {kind}", xlabel="thousand tokens")
            axis.set_xticks(range(len(lengths)), [str(length) for length in lengths])
            axis.set_yticks(range(DEPTHS), [f"{100 * (tenth + 0.5) / DEPTHS:.0f} %" for tenth in range(DEPTHS)])
        assert image is not None
        axes[0, 0].set(ylabel="depth")
        figure.colorbar(image, ax=axes[0].tolist(), label="exact answers" if measure == "em" else measure)
    return True


def lines_by_method(result: dict[str, Any], journal: Path) -> dict[str, list[dict[str, Any]]]:
    """The journal's lines by the rows of a result they belong to: a method, with its factor where it has one."""
    names = {}
    for row in result["rows"]:
        key = Setting(**{field.name: row[field.name] for field in fields(Setting)}).key
        names[key] = row["method"] if row["method"] in WHOLE else f"{row['method']} {row['factor']:g}x"
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
    for text in journal.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line.get("setting") in names:
            found[names[line["setting"]]].append(line)
    return found


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
