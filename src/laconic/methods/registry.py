"""The methods by name, imported only when asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from laconic.backbone import Backbone
from laconic.core import persist
from laconic.encoder import Encoder
from laconic.errors import AdapterError, LaconicError
from laconic.generation.answer import Reader
from laconic.methods.roles import Compressor

if TYPE_CHECKING:
    from laconic.methods.ram.model import RAM
    from laconic.methods.sft.model import SFT
    from laconic.methods.thinking.model import Thinker

UNTUNED = "none"


@dataclass(frozen=True)
class Entry:
    """A line of the registry: where the class is, what it does, what it takes besides the backbone."""

    target: str
    summary: str
    options: tuple[tuple[str, Any], ...] = ()


METHODS: dict[str, Entry] = {
    "ram": Entry("ram.model:RAM", "reads relevant segments word for word, skims the rest (arXiv 2602.01840)"),
    "comet": Entry("comet.model:CoMeT", "reads chunk by chunk into a memory of constant size (arXiv 2602.01766)"),
    "full": Entry("baselines.full:Full", "the whole document"),
    "head": Entry("baselines.truncate:Truncate", "the beginning of the document", (("keep", "head"),)),
    "tail": Entry("baselines.truncate:Truncate", "the end of the document", (("keep", "tail"),)),
    "middle": Entry("baselines.truncate:Truncate", "both ends, the middle cut out", (("keep", "middle"),)),
    "window": Entry(
        "baselines.sink_window:SinkWindow", "attention sinks and the most recent tokens (arXiv 2309.17453)"
    ),
    "bm25": Entry("baselines.bm25:BM25", "segments with the best BM25 score"),
    "embedding": Entry("baselines.embedding:Embedding", "segments nearest to the question by sentence embeddings"),
    "selfinfo": Entry(
        "pruning.perplexity:SelfInformation", "words that are hard to predict, as Selective Context (arXiv 2310.06201)"
    ),
    "contrastive": Entry(
        "pruning.perplexity:Contrastive", "words the question makes likelier, as LongLLMLingua (arXiv 2310.06839)"
    ),
    "classifier": Entry(
        "pruning.classifier:Classifier", "words a classifier keeps for the question, as LLMLingua-2 (arXiv 2403.12968)"
    ),
    "random": Entry("baselines.random:RandomSegments", "segments drawn by chance"),
    "oracle": Entry("baselines.oracle:Oracle", "segments with the known evidence (evaluation only)"),
}

#: methods that reason in steps
THINKERS: dict[str, Entry] = {
    "vanilla": Entry("vanilla.model:Vanilla", "all it has said"),
    "lightthinker": Entry("lightthinker.model:LightThinker", "memory tokens of finished steps (arXiv 2502.15589)"),
    "hybridthinker": Entry(
        "hybridthinker.model:HybridThinker", "the same, and the last steps word for word (arXiv 2606.03768)"
    ),
    "memosight": Entry(
        "memosight.model:MemoSight", "memory tokens of finished steps; several words a pass (arXiv 2604.14889)"
    ),
    "anchors": Entry("baselines.anchors:Anchors", "the last token of finished steps (arXiv 2402.07616)"),
}

#: methods that take the whole document in, so that no factor can be asked of them
WHOLE = ("full", "comet")
#: trained methods whose decoder answers for all that have none of their own
READERS = ("ram", "sft")


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
    """Every method's name with one line on what its decoder gets: those that read, then those that reason."""
    return {name: entry.summary for name, entry in (METHODS | THINKERS).items()}


def load_thinker(name: str, backbone: Backbone, adapter: str | os.PathLike[str] | None = None) -> Thinker:
    """A trained method that reasons, ready for inference.

    Args:
        adapter: where it is saved; None takes what is shipped for the backbone.

    Raises:
        LaconicError: no such method.
        AdapterError: there is no trained one, or it is of another method or backbone.
    """
    check_thinker(name)
    folder = Path(adapter) if adapter is not None else shipped_adapter(backbone, name)
    if folder is None:
        raise _untrained(name, backbone)
    kind: type[Thinker] = _class(THINKERS[name])
    thinker: Thinker = kind.from_pretrained(folder, backbone)
    return thinker.merge()


def check_thinker(name: str) -> None:
    """Raise ``LaconicError`` for a name that is no method that reasons."""
    if name not in THINKERS:
        raise LaconicError(f"There is no method {name!r} that reasons.", f"Choose from: {', '.join(THINKERS)}.")


def load_method(name: str, backbone: Backbone, adapter: str | os.PathLike[str] | None = None) -> LoadedMethod:
    """Load one method; see ``load_methods``."""
    return load_methods([name], backbone, adapter)[name]


def load_methods(
    names: Sequence[str], backbone: Backbone, adapter: str | os.PathLike[str] | None = None
) -> dict[str, LoadedMethod]:
    """Load methods that share one reader, so that rows of a comparison differ in their context alone.

    Args:
        adapter: a saved RAM or SFT, whose decoder becomes the reader of every method but CoMeT (which has its own), or
            a saved CoMeT; None takes what is shipped for the backbone; ``"none"`` reads with the untuned backbone.

    Raises:
        LaconicError: an unknown method.
        AdapterError: the adapter is missing, or made for another backbone or method, or a trained method has none.
    """
    check_names(names)
    _check_adapter(names, adapter)
    loaded: dict[str, LoadedMethod] = {}
    reader, tuned = Reader(backbone), backbone
    folder = _adapter_folder(backbone, adapter, *READERS)
    if folder is not None and set(names) != {"comet"}:  # which reads with a decoder of its own
        reading = reading_method(folder, backbone)
        reader = Reader(backbone, model=reading.decoder)
        if reading.name == "ram":
            loaded["ram"] = LoadedMethod("ram", cast(Compressor, reading), reader, reading.version)
        # a method that hands on keys and values must read with the very decoder that answers from them
        tuned = replace(backbone, model=reading.decoder)
    for name in names:
        if name == "comet":
            loaded[name] = _comet(backbone, adapter)
        elif name not in loaded:
            if name == "ram":
                raise _untrained("RAM", backbone)
            compressor = _build(METHODS[name], tuned)
            loaded[name] = LoadedMethod(name, compressor, reader, getattr(compressor, "version", ""))
    return {name: loaded[name] for name in names}


def reading_method(folder: Path, backbone: Backbone) -> RAM | SFT:
    """The saved method whose decoder is to answer."""
    # here, since the other methods do not need them
    from laconic.methods.ram.model import RAM
    from laconic.methods.sft.model import SFT

    kind: type[RAM | SFT] = RAM if _method_of(folder) == "ram" else SFT
    return kind.from_pretrained(folder, backbone).merge()


def _comet(backbone: Backbone, adapter: str | os.PathLike[str] | None) -> LoadedMethod:
    from laconic.methods.comet.model import CoMeT
    from laconic.methods.comet.reader import CoMeTReader, Whole

    folder = _adapter_folder(backbone, adapter, "comet")
    if folder is None:
        raise _untrained("CoMeT", backbone)
    comet = CoMeT.from_pretrained(folder, backbone).merge()
    return LoadedMethod("comet", Whole(backbone), CoMeTReader(comet), comet.version)


def _untrained(title: str, backbone: Backbone) -> AdapterError:
    name = title.lower()
    other = " backbone=..." if shipped_adapter(backbone, "vanilla") is None else ""
    if other and name in THINKERS and name != "vanilla":  # its recipe goes on from a vanilla
        other += " start=FOLDER_OF_A_VANILLA"
    return AdapterError(
        f"There is no trained {title} for {backbone.name}.",
        f"Train one with `laconic train recipes/{name}/cpu.yaml{other}` and name it with --adapter.",
    )


def check_names(names: Sequence[str]) -> None:
    """Raise ``LaconicError`` for a name that is no method; worth asking before a backbone is loaded."""
    for name in names:
        if name not in METHODS:
            raise LaconicError(
                f"There is no method {name!r} that reads documents.",
                f"Choose from: {', '.join(METHODS)}. Problems are solved by {', '.join(THINKERS)}.",
            )


def shipped_adapters() -> list[Path]:
    """The saved methods inside this package."""
    root = Path(str(resources.files("laconic"))) / "adapters"
    return sorted(path.parent for path in root.glob(f"*/{persist.DESCRIPTION}"))


def shipped_adapter(backbone: Backbone | Encoder, method: str = "ram") -> Path | None:
    """The saved method of this name inside this package that was made for these weights, if there is one."""
    for folder in shipped_adapters():
        description = persist.read_description(folder)
        if (description["method"], description["backbone"]["content_hash"]) == (method, backbone.content_hash):
            return folder
    return None


def _adapter_folder(backbone: Backbone, adapter: str | os.PathLike[str] | None, *methods: str) -> Path | None:
    """The saved method of one of these kinds: the one named, if it is of them, else what is shipped of the first."""
    if adapter is None:
        return shipped_adapter(backbone, methods[0])
    if str(adapter) == UNTUNED:
        return None
    return Path(adapter) if _method_of(adapter) in methods else shipped_adapter(backbone, methods[0])


def _method_of(adapter: str | os.PathLike[str]) -> str:
    return str(persist.read_description(adapter)["method"])


def _check_adapter(names: Sequence[str], adapter: str | os.PathLike[str] | None) -> None:
    """Raise ``AdapterError`` for an adapter that one of the methods cannot use, or none would."""
    if adapter is None or str(adapter) == UNTUNED:
        return
    given = _method_of(adapter)
    used = {kind for name in names for kind in ((name,) if name in ("ram", "comet") else READERS)}
    if given not in used or (given == "sft" and "ram" in names):
        fitting = sorted({"ram"} if "ram" in names else used)
        raise AdapterError(f"{adapter} holds {given}, not {' or '.join(fitting)}.", "Name the right --adapter.")


def _build(entry: Entry, backbone: Backbone) -> Compressor:
    compressor: Compressor = _class(entry)(backbone, **dict(entry.options))
    return compressor


def _class(entry: Entry) -> Any:
    module, _, name = entry.target.partition(":")
    return getattr(import_module(f"laconic.methods.{module}"), name)


def reader_name(backbone: Backbone, adapter: str | os.PathLike[str] | None = None) -> str:
    """What answers, for result files: ``untuned``, or a digest of the adapted decoder.

    Of the decoder alone: with relevance trained anew, the rows of all other methods still stand.
    """
    folder = _adapter_folder(backbone, adapter, *READERS)
    if folder is None:
        return "untuned"
    description = persist.read_description(folder)
    if description["method"] == "ram" and not description["config"].get("decoder_rank"):
        return "untuned"
    return persist.digest(folder, "decoder.")
