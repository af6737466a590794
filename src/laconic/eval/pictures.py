"""Pictures as PNG files, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from laconic.core.files import write_whole


@contextmanager
def picture(path: Path, *grid: int, dpi: int = 130, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure and its panels to draw on, as ``pyplot.subplots`` makes them of the same; written at the end."""
    import matplotlib  # an extra

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(*grid, **options)
    try:
        yield figure, axes
        image = BytesIO()
        figure.savefig(image, format="png", dpi=dpi, bbox_inches="tight")
        write_whole(path, image.getvalue())
    finally:
        pyplot.close(figure)
