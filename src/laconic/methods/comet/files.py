"""Memory files: what was read, to be asked later, on another machine, in another dtype.

One safetensors file. Its tensors are the states of all layers and the text tokens of the open chunk (which costs one
chunk of reading again and keeps the file small and exact); a JSON header says whose memory it is and of what.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from laconic.core.files import write_whole
from laconic.errors import MemoryFileError
from laconic.methods.comet.memory import Counts, LayerState, Memory
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.stream import ChunkStream

#: 2: knows the backbone's settings; 3: more of them, and its tokenizer; 4: slots may be deep
FORMAT = 4
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
HEADER = "laconic.memory"


@dataclass(frozen=True)
class Source:
    """A document in a memory.

    Attributes:
        digest: SHA-256 of its text.
        tokens: tokens it has.
        read: tokens of it that were read; fewer where reading was interrupted.
    """

    name: str
    digest: str
    tokens: int
    read: int

    @property
    def complete(self) -> bool:
        return self.read == self.tokens


@dataclass
class SavedMemory:
    """A stream of one row, and the documents that went into it."""

    stream: ChunkStream
    sources: list[Source]


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def save_memory(path: str | os.PathLike[str], saved: SavedMemory) -> None:
    """Write a memory file; an older one is replaced only by a complete new one.

    Raises:
        MemoryFileError: a state is not finite or half done, it is of several texts, nothing says what was read, or the
            file cannot be written.
    """
    stream, comet = saved.stream, saved.stream.comet
    if stream.interrupted:
        raise MemoryFileError("Reading broke off halfway; nothing of it can be kept.", "Save a stream before it.")
    if not saved.sources:
        raise MemoryFileError("Nothing says what this memory has read.", "Give it a Source for each document.")
    memory = stream.memory
    if memory.counts.batch != 1:
        raise MemoryFileError(f"A memory file holds one text, and these are {memory.counts.batch}.", "Read one by one.")
    live = int(memory.counts.live[0])
    tensors = {
        "slots": torch.stack([state.slots[0] for state in memory.layers]).cpu(),
        "queue": torch.stack([state.queue[0, state.queue.shape[1] - live :] for state in memory.layers]).cpu(),
        "tail": stream.tail[0].to(torch.int32).cpu(),
    }
    _require_finite(tensors, "The memory")
    header = {
        "format": FORMAT,
        "backbone": {
            "name": comet.backbone.name,
            "content_hash": comet.backbone.content_hash,
            "settings": comet.backbone.settings,
            "tokenizer": comet.backbone.tokenizer_hash,
        },
        "method": comet.name,
        "version": _version(comet),
        "config": comet.config.to_dict(),
        "chunks": int(memory.counts.chunks[0]),
        "tokens": int(memory.counts.tokens[0]),
        "sources": [asdict(source) for source in saved.sources],
    }
    if not _plausible(header, saved.sources, tensors):
        raise MemoryFileError(
            "The sources do not add up to what was read.", "A Source says how many tokens of its document were read."
        )
    header["digest"] = _digest(header, tensors)
    payload = save({n: t.contiguous() for n, t in tensors.items()}, metadata={HEADER: json.dumps(header)})
    try:
        write_whole(Path(path), payload)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise MemoryFileError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.",
            "Make room, or choose a file in a folder you may write to.",
        ) from error


def load_memory(path: str | os.PathLike[str], comet: CoMeT) -> SavedMemory:
    """Read a memory file onto the model it was made by; device and dtype may be others.

    Raises:
        MemoryFileError: missing, damaged, tampered with, or of another backbone or adapter.
    """
    header, sources, tensors = _read(Path(path))
    _check_owner(header, comet, path)
    slots, queue, tail = (tensors[name] for name in ("slots", "queue", "tail"))
    config, layers, width = comet.config, len(comet.stack), comet.backbone.width
    fits = slots.shape == (layers, config.held_slots, width) and queue.ndim == 3 and len(tail) <= config.chunk_tokens
    vocabulary = comet.decoder.get_input_embeddings().weight.shape[0]
    fits = fits and bool(((tail >= 0) & (tail < vocabulary)).all())
    if not fits or queue.shape[::2] != (layers, width) or queue.shape[1] > config.fifo_slots:
        raise MemoryFileError(f"The states in {path} do not fit its description.", "Read the document again.")
    like = comet.empty_memory().layers[0]
    memory = Memory(
        # copies: what was read from the file is a view of it, and it may be replaced
        tuple(
            LayerState(s[None].to(like.slots, copy=True), q[None].to(like.queue, copy=True))
            for s, q in zip(slots, queue, strict=True)
        ),
        Counts(*(torch.tensor([number]) for number in (queue.shape[1], header["chunks"], header["tokens"]))),
    )
    if not memory.finite:
        raise MemoryFileError(f"{path} holds numbers that {comet.decoder.dtype} does not.", "Load with --dtype fp32.")
    stream = ChunkStream(comet, memory)
    if len(tail):
        stream.feed([tail.long()])
    return SavedMemory(stream, sources)


def require_memory_file(path: str | os.PathLike[str]) -> None:
    """Raise ``MemoryFileError`` where there is none; so much can be said before a model is loaded."""
    try:
        there, folder = Path(path).is_file(), Path(path).is_dir()
    except OSError:  # too long a name
        there = folder = False
    if folder:
        raise MemoryFileError(f"{path} is a folder.", "Name a memory file.")
    if not there:
        raise MemoryFileError(f"There is no memory file {path}.", "Make one with `laconic read BOOK -o book.memory`.")


def _read(path: Path) -> tuple[dict[str, Any], list[Source], dict[str, Tensor]]:
    require_memory_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        if header["format"] != FORMAT:
            older = header["format"] in range(1, FORMAT)
            raise MemoryFileError(
                f"{path} was written by {'an older' if older else 'another'} version of laconic.",
                "Read the document again." if older else "Upgrade laconic.",
            )
        if set(tensors) != {"slots", "queue", "tail"} or header.pop("digest") != _digest(header, tensors):
            raise KeyError("digest")
        if set(header) != {"format", "backbone", "method", "version", "config", "chunks", "tokens", "sources"}:
            raise KeyError("description")
        sources = [Source(**source) for source in header["sources"]]
        if not _plausible(header, sources, tensors):
            raise ValueError("its counts contradict each other")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, MemoryFileError):
            raise
        raise MemoryFileError(
            f"{path} is no memory file, or it is damaged ({type(error).__name__}: {error}).",
            "Read the document again.",
        ) from error
    _require_finite(tensors, str(path))
    return header, sources, tensors


def _plausible(header: dict[str, Any], sources: list[Source], tensors: dict[str, Tensor]) -> bool:
    """Whether it can be the memory of one reading: kinds of values, and chunks, tokens and queue among themselves."""
    slots, queue, tail = (tensors[name] for name in ("slots", "queue", "tail"))
    chunks, tokens = header["chunks"], header["tokens"]
    if not (slots.dtype in DTYPES and queue.dtype in DTYPES and tail.dtype == torch.int32 and tail.ndim == 1):
        return False
    made = header["backbone"]
    if not isinstance(made, dict) or set(made) != {"name", "content_hash", "settings", "tokenizer"}:
        return False
    if not isinstance(made["settings"], dict):
        return False
    if not all(_count(number) for number in (chunks, tokens, *(n for s in sources for n in (s.read, s.tokens)))):
        return False
    read = all(s.read <= s.tokens for s in sources) and sum(s.read for s in sources) == tokens + len(tail)
    return read and bool(sources) and chunks <= tokens and (chunks > 0 or not queue.numel())


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _check_owner(header: dict[str, Any], comet: CoMeT, path: str | os.PathLike[str]) -> None:
    made = header["backbone"]
    if made["content_hash"] != comet.backbone.content_hash:
        raise MemoryFileError(
            f"{path} was read by {made['name']} ({made['content_hash']}), not by {comet.backbone.name} "
            f"({comet.backbone.content_hash}).",
            "Name its backbone with --backbone, or read the document again.",
        )
    then, now = made["settings"], comet.backbone.settings
    if then != now:
        differ = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        raise MemoryFileError(
            f"{path} was read by {made['name']} with other settings ("
            + "; ".join(f"{name}: {json.dumps(then.get(name))}, not {json.dumps(now.get(name))}" for name in differ)
            + ").",
            "Load the backbone as it was then, or read the document again.",
        )
    if made["tokenizer"] != comet.backbone.tokenizer_hash:
        raise MemoryFileError(
            f"{path} was read with another tokenizer than that of {comet.backbone.name}.",
            "Load the backbone with the tokenizer it had then, or read the document again.",
        )
    if (header["method"], header["version"]) != (comet.name, _version(comet)):
        raise MemoryFileError(
            f"{path} was read with another adapter ({header['method']} {header['version']}, "
            f"not {comet.name} {_version(comet)}).",
            "Name it with --adapter, or read the document again.",
        )
    if header["config"] != comet.config.to_dict():
        raise MemoryFileError(f"{path} was read with other settings.", "Read the document again.")


def _require_finite(tensors: dict[str, Tensor], what: str) -> None:
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise MemoryFileError(f"{what} holds numbers that are not finite.", "Read again with --dtype fp32.")


def _version(comet: CoMeT) -> str:
    """Which weights read: of a saved method its version, of one in the making a digest of its parameters."""
    if comet.version:
        return comet.version
    own = {name: parameter.detach().cpu() for name, parameter in comet.own_parameters().items()}
    return f"unsaved {_digest({}, own)}"


def _digest(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Of a description and its tensors."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
