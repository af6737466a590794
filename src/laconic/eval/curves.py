"""Tokens in the cache against tokens written, one line for each method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from laconic.eval.pictures import picture
from laconic.methods.thinking.solving import Solution


def draw(curves: Mapping[str, Solution], path: Path, title: str) -> None:
    """A picture of how the cache fills and empties while a problem is solved.

    Args:
        curves: of each method, by name.
        path: where the PNG goes.
    """
    with picture(path, figsize=(7, 4), layout="constrained") as (_, axes):
        for name, solution in curves.items():
            filled = [solution.prompt_tokens, *solution.bill.live]
            axes.plot(range(len(filled)), filled, label=f"{name}, peak {solution.bill.peak_tokens}", linewidth=1.2)
        axes.set(xlabel="tokens written", ylabel="tokens a word is read with", ylim=(0, None))
        axes.set_title(title, parse_math=False)  # a problem may hold a $
        axes.grid(alpha=0.3)
        axes.legend()
