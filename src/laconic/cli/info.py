"""``laconic methods`` and ``laconic info``."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version

from rich.console import Console
from rich.table import Table

from laconic.backbone import cache_folder, embedded_gguf, resolve_device, resolve_dtype
from laconic.errors import BackboneError
from laconic.methods.registry import available, shipped_adapters


def show_methods() -> None:
    """Print the registry; a summary ends with its paper, if it has one."""
    table = Table("method", "what the decoder gets", "paper")
    for name, summary in available().items():
        paper = re.search(r"\s*\((arXiv [\d.]+)\)$", summary)
        table.add_row(name, summary[: paper.start()] if paper else summary, paper[1] if paper else "")
    Console().print(table)


def show_info() -> None:
    """Print what a bug report needs."""
    device = resolve_device()
    try:
        weights = embedded_gguf().name
    except BackboneError as error:
        weights = str(error)
    table = Table(show_header=False, box=None)
    for name in ("laconic", "torch", "transformers", "peft", "accelerate"):
        table.add_row(name, version(name))
    table.add_row("python", sys.version.split()[0])
    table.add_row("device", f"{device}, {resolve_dtype(None, device)}")
    table.add_row("embedded weights", weights)
    table.add_row("adapters", ", ".join(folder.name for folder in shipped_adapters()) or "none")
    table.add_row("cache", str(cache_folder()))
    Console().print(table)
