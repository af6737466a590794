"""Tokens in the cache against tokens written, one line for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from laconic.core.files import write_whole


def draw(curves: Mapping[str, tuple[int, Sequence[int]]], path: Path, title: str) -> None:
    """A picture of how the cache fills and empties while a problem is solved.

    Args:
        curves: by name of the method, the tokens of the prompt and ``Thoughts.live``.
        path: where the PNG goes.
    """
    import matplotlib  # an extra

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, (prompt, live) in curves.items():
        axes.plot(range(len(live) + 1), [prompt, *live], label=f"{name}, peak {max([prompt, *live])}", linewidth=1.2)
    axes.set(xlabel="tokens written", ylabel="tokens a word is read with", ylim=(0, None))
    axes.set_title(title, parse_math=False)  # a problem may hold a $
    axes.grid(alpha=0.3)
    axes.legend()
    image = BytesIO()
    figure.savefig(image, format="png", dpi=130)
    pyplot.close(figure)
    write_whole(path, image.getvalue())
