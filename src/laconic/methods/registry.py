"""The methods by name, imported only when asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from laconic.backbone import Backbone
from laconic.core import persist
from laconic.errors import AdapterError, LaconicError
from laconic.generation.answer import Reader
from laconic.methods.roles import Compressor

UNTUNED = "none"


@dataclass(frozen=True)
class Entry:
    """A line of the registry: where the class is, what it does, what it takes besides the backbone."""

    target: str
    summary: str
    options: tuple[tuple[str, Any], ...] = ()


METHODS: dict[str, Entry] = {
    "ram": Entry("ram.model:RAM", "reads relevant segments word for word, skims the rest (arXiv 2602.01840)"),
    "full": Entry("baselines.full:Full", "the whole document"),
    "head": Entry("baselines.truncate:Truncate", "the beginning of the document", (("keep", "head"),)),
    "tail": Entry("baselines.truncate:Truncate", "the end of the document", (("keep", "tail"),)),
    "middle": Entry("baselines.truncate:Truncate", "both ends, the middle cut out", (("keep", "middle"),)),
    "window": Entry(
        "baselines.sink_window:SinkWindow", "attention sinks and the most recent tokens (arXiv 2309.17453)"
    ),
    "bm25": Entry("baselines.bm25:BM25", "segments with the best BM25 score"),
    "embedding": Entry("baselines.embedding:Embedding", "segments nearest to the question by sentence embeddings"),
    "random": Entry("baselines.random:RandomSegments", "segments drawn by chance"),
    "oracle": Entry("baselines.oracle:Oracle", "segments with the known evidence (evaluation only)"),
}


@dataclass(frozen=True)
class LoadedMethod:
    """A compressor, and the reader that answers from what it leaves.

    Attributes:
        version: digest of a trained compressor's weights and settings, for result files; empty for one that has none.
    """

    name: str
    compressor: Compressor
    reader: Reader
    version: str = ""


def available() -> dict[str, str]:
    """Every method's name with one line on what it does."""
    return {name: entry.summary for name, entry in METHODS.items()}


def load_method(name: str, backbone: Backbone, adapter: str | os.PathLike[str] | None = None) -> LoadedMethod:
    """Load one method; see ``load_methods``."""
    return load_methods([name], backbone, adapter)[name]


def load_methods(
    names: Sequence[str], backbone: Backbone, adapter: str | os.PathLike[str] | None = None
) -> dict[str, LoadedMethod]:
    """Load methods that share one reader, so that rows of a comparison differ in their context alone.

    Args:
        adapter: a saved RAM, whose decoder becomes the reader of every method; None takes the shipped one where it
            fits the backbone; ``"none"`` reads with the untuned backbone.

    Raises:
        LaconicError: an unknown method.
        AdapterError: the adapter is missing or made for another backbone, or RAM has none.
    """
    check_names(names)
    folder = _adapter_folder(backbone, adapter)
    if folder is None and "ram" in names:
        raise AdapterError(
            f"There is no trained RAM for {backbone.name}.",
            "Train one with `laconic train recipes/ram/cpu.yaml backbone=...` and name it with --adapter.",
        )
    if folder is None:
        reader = Reader(backbone)
        return {name: LoadedMethod(name, _build(METHODS[name], backbone), reader) for name in names}
    from laconic.methods.ram.model import RAM  # here, since the other methods do not need it

    ram = RAM.from_pretrained(folder, backbone).merge()
    reader = Reader(backbone, model=ram.decoder)
    trained = LoadedMethod("ram", ram, reader, persist.version(folder))
    # a method that hands on keys and values must read with the very decoder that answers from them
    tuned = replace(backbone, model=ram.decoder)
    return {n: trained if n == "ram" else LoadedMethod(n, _build(METHODS[n], tuned), reader) for n in names}


def check_names(names: Sequence[str]) -> None:
    """Raise ``LaconicError`` for a name that is no method; worth asking before a backbone is loaded."""
    for name in names:
        if name not in METHODS:
            raise LaconicError(f"There is no method {name!r}.", f"Choose from: {', '.join(METHODS)}.")


def shipped_adapters() -> list[Path]:
    """The saved methods inside this package."""
    root = Path(str(resources.files("laconic"))) / "adapters"
    return sorted(path.parent for path in root.glob(f"*/{persist.DESCRIPTION}"))


def shipped_adapter(backbone: Backbone, method: str = "ram") -> Path | None:
    """The saved method of this name inside this package that was made for this backbone, if there is one."""
    for folder in shipped_adapters():
        description = persist.read_description(folder)
        if (description["method"], description["backbone"]["content_hash"]) == (method, backbone.content_hash):
            return folder
    return None


def _adapter_folder(backbone: Backbone, adapter: str | os.PathLike[str] | None) -> Path | None:
    if adapter is None:
        return shipped_adapter(backbone)
    return None if str(adapter) == UNTUNED else Path(adapter)


def _build(entry: Entry, backbone: Backbone) -> Compressor:
    module, _, name = entry.target.partition(":")
    return getattr(import_module(f"laconic.methods.{module}"), name)(backbone, **dict(entry.options))


def reader_name(backbone: Backbone, adapter: str | os.PathLike[str] | None = None) -> str:
    """What answers, for result files: ``untuned``, or a digest of the adapted decoder.

    Of the decoder alone: with relevance trained anew, the rows of all other methods still stand.
    """
    folder = _adapter_folder(backbone, adapter)
    if folder is None or not persist.read_description(folder)["config"].get("decoder_rank"):
        return "untuned"
    return persist.digest(folder, "decoder.")
