"""``laconic read``: documents into a memory file."""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from laconic.cli.ask_request import MEMORY
from laconic.cli.loading import open_backbone
from laconic.cli.output import print_json
from laconic.core.results import peak_memory_mb
from laconic.data.documents import Document, read_document
from laconic.errors import DocumentError, LaconicError, MemoryFileError
from laconic.methods.comet.files import SavedMemory, Source, load_memory, save_memory, text_digest
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.reader import PORTION_CHUNKS, CoMeTReader
from laconic.methods.comet.stream import ChunkStream
from laconic.methods.registry import load_method

# between two savings of an unfinished memory
SAVE_SECONDS = 30.0
# between documents that share a memory
SEPARATOR = "\n\n"


def run(
    names: list[str],
    out: Path,
    append: bool,
    backbone: str | None,
    adapter: str | None,
    dtype: str,
    device: str,
    as_json: bool,
) -> None:
    """Read and print the bill.

    Raises:
        LaconicError: whatever is wrong with arguments, documents or the file, before a model is loaded.
    """
    _check_out(out, append)
    document = read_document(names)
    people = Console(stderr=True, quiet=as_json)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        model = open_backbone(backbone, dtype, device)
        reader = load_method("comet", model, adapter).reader
        assert isinstance(reader, CoMeTReader)
        saved = _begin(reader.comet, out, append, document)
        begun = saved.sources[-1].read
        started = time.perf_counter()
        with people.status("") if as_json else _progress(people) as progress:
            saved = _read(
                saved,
                model.long_ids(_text(saved, document)),
                out,
                progress if isinstance(progress, Progress) else None,
                people,
            )
    seconds = time.perf_counter() - started
    source, stream = saved.sources[-1], saved.stream
    bill = {
        "memory": str(out),
        "document": document.name,
        "document_tokens": source.tokens,
        "tokens_read_now": source.read - begun,
        "tokens_in_memory": sum(s.read for s in saved.sources),
        "held_tokens": stream.held[0],
        "state_bytes": stream.memory.nbytes,
        "seconds": round(seconds, 3),
        "tokens_per_second": round((source.read - begun) / seconds, 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }
    if as_json:
        print_json(bill)
        return
    _show(people, bill, begun)


def _check_out(out: Path, append: bool) -> None:
    """Raise ``LaconicError`` for a file that could not be written after hours of reading."""
    if out.suffix != MEMORY:
        named = str(out) if out.name.strip(".") and out.name != MEMORY else "book"
        raise LaconicError(f"{str(out)!r} is not named as a memory file.", f"Write {named}{MEMORY}.")
    try:
        if out.is_dir():
            raise MemoryFileError(f"{out} is a folder.", "Choose the name of a file.")
        if append and not out.is_file():
            raise MemoryFileError(f"There is no {out} to append to.", "Leave --append out.")
        if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
            raise MemoryFileError(f"{out} cannot be written.", "Choose a file in a folder you may write to.")
    except OSError as error:  # too long a name
        raise MemoryFileError(f"{out} cannot be written: {error.strerror}.", "Choose another name.") from error


def _begin(comet: CoMeT, out: Path, append: bool, document: Document) -> SavedMemory:
    """An empty memory, or the one in the file: to add to it, or to go on with an interrupted reading.

    Raises:
        MemoryFileError: the file holds something that is neither added to nor gone on with. It may have taken hours.
    """
    source = Source(document.name, text_digest(document.text), 0, 0)
    if not out.is_file():
        return SavedMemory(ChunkStream(comet), [source])
    try:
        saved = load_memory(out, comet)
    except MemoryFileError as error:
        raise MemoryFileError(error.problem, "Delete the file to read anew, or choose another name.") from error
    last = saved.sources[-1]
    if last.digest == source.digest and not last.complete:
        return saved
    if source.digest in (each.digest for each in saved.sources):
        raise MemoryFileError(f"{out} has read {source.name} already.", f'Ask it: laconic ask {out} "..."')
    if not append:
        another = "another text of that name" if last.name == source.name else source.name
        raise MemoryFileError(
            f"{out} has read {last.name}, not {another}.",
            "Read on into it with --append, delete it, or choose another name.",
        )
    if not last.complete:
        raise MemoryFileError(f"{last.name} in {out} was not read to its end.", "Read it again first: it goes on.")
    return SavedMemory(saved.stream, [*saved.sources, source])


def _text(saved: SavedMemory, document: Document) -> str:
    """A blank line parts a document from the one before it."""
    return document.text if len(saved.sources) == 1 else SEPARATOR + document.text


def _read(saved: SavedMemory, ids: torch.Tensor, out: Path, progress: Progress | None, people: Console) -> SavedMemory:
    """Feed the rest of a document some chunks at a time, saving now and then, and at an interrupt.

    A portion is fed to a fork, which takes the place of what was read before in one assignment: an interrupt finds all
    of it or none, wherever it strikes.

    Raises:
        DocumentError: there is nothing to read.
        MemoryFileError: the text is cut into other tokens than those that were read.
    """
    *before, source = saved.sources
    if not len(ids):
        raise DocumentError(f"The model's tokenizer finds no token in {source.name}.", "Give it another document.")
    if source.read and source.tokens != len(ids):
        raise MemoryFileError(
            f"{source.name} had {source.tokens:,} tokens when {out} was begun, and has {len(ids):,} now.",
            "Delete the file to read anew, or choose another name.",
        )
    step = PORTION_CHUNKS * saved.stream.comet.config.chunk_tokens
    bar = progress.add_task(source.name, total=len(ids), completed=source.read) if progress else None
    last_saved = time.monotonic()
    begun = source.read
    try:
        for start in range(begun, len(ids), step):
            portion = ids[start : start + step]
            fork = saved.stream.fork()
            done = start + len(portion)
            (fork.feed if done == len(ids) else fork.read)([portion])
            saved = SavedMemory(fork, [*before, Source(source.name, source.digest, len(ids), done)])
            if progress is not None and bar is not None:
                progress.update(bar, completed=done)
            if time.monotonic() - last_saved > SAVE_SECONDS:
                save_memory(out, saved)
                last_saved = time.monotonic()
    finally:
        if saved.sources[-1].read > begun:
            save_memory(out, saved)
        if saved.sources[-1].read < len(ids):
            kept = (
                f"{source.name}: {saved.sources[-1].read:,} of {len(ids):,} tokens are read; the same command goes on."
            )
            people.print(Text(kept, style="dim"))
    return saved


def _progress(people: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=people, transient=True)


def _show(people: Console, bill: dict[str, object], begun: int) -> None:
    table = Table(title=f"{bill['memory']}", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_row("document", f"{bill['document']}, {bill['document_tokens']:,} tokens")
    if begun:
        table.add_row("gone on from", f"{begun:,} tokens")
    table.add_row("in memory", f"{bill['tokens_in_memory']:,} tokens, held as {bill['held_tokens']:,}")
    state = bill["state_bytes"]
    assert isinstance(state, int)
    table.add_row("state", f"{state / 2**20:.1f} MiB")
    table.add_row("seconds", f"{bill['seconds']:.1f} ({bill['tokens_per_second']:,.0f} tokens/s)")
    table.add_row("peak memory", f"{bill['peak_memory_mb']:,.0f} MiB")
    people.print(table)
    people.print(Text(f'ask it: laconic ask {bill["memory"]} "..."', style="dim"))
