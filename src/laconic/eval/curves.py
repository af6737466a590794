"""Tokens in the cache against tokens written, one line for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from laconic.eval.pictures import picture


def draw(curves: Mapping[str, tuple[int, Sequence[int]]], path: Path, title: str) -> None:
    """A picture of how the cache fills and empties while a problem is solved.

    Args:
        curves: by name of the method, the tokens of the prompt and ``Thoughts.live``.
        path: where the PNG goes.
    """
    with picture(path, figsize=(7, 4), layout="constrained") as (_, axes):
        for name, (prompt, live) in curves.items():
            axes.plot(
                range(len(live) + 1), [prompt, *live], label=f"{name}, peak {max([prompt, *live])}", linewidth=1.2
            )
        axes.set(xlabel="tokens written", ylabel="tokens a word is read with", ylim=(0, None))
        axes.set_title(title, parse_math=False)  # a problem may hold a $
        axes.grid(alpha=0.3)
        axes.legend()
