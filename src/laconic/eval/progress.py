"""How trainings went against the answers they took, one line for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from laconic.eval.pictures import picture

#: number of a log's line, and what it is called in a picture
NUMBERS = {"asked/right": "problems solved", "asked/steps": "steps right"}


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training log in which problems were asked."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if "asked/right" in line]


def draw_progress(logs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, title: str) -> None:
    """A picture of what was asked now and then, against answers rolled out and against seconds.

    Args:
        logs: by name of the training, ``read_log`` of it.
        path: where the PNG goes.
    """
    against = {"samples": "answers trained on", "seconds": "seconds"}
    shared: dict[str, Any] = {"sharey": "row", "sharex": "col"}
    with picture(path, 2, 2, figsize=(10, 6.5), layout="constrained", **shared) as (figure, grid):
        for row, (number, called) in zip(grid, NUMBERS.items(), strict=True):
            for axes, (what, label) in zip(row, against.items(), strict=True):
                for name, lines in logs.items():
                    axes.plot([line[what] for line in lines], [line[number] for line in lines], "o-", ms=3, label=name)
                axes.set(ylim=(0, 1))
                axes.grid(alpha=0.3)
                if number == "asked/steps":
                    axes.set(xlabel=label)
            row[0].set(ylabel=called)
        grid[0][0].legend()
        figure.suptitle(title)
