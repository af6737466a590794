"""Text into a CoMeT in any portions: reading without end, and writing without end.

A chunk that is not full yet stays open, with a cache of its keys and values; when it is full and more text comes, it is
folded into the memory and its cache is dropped. Prompt and answer are the same to it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from laconic.core.cache import EvictingCache
from laconic.core.layout import Kind, Layout
from laconic.errors import LaconicError
from laconic.methods.comet.cells import Frame
from laconic.methods.comet.chunks import Piece, block_layout, memory_layout
from laconic.methods.comet.memory import Memory, Update, newest, take
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.wavefront import Part, read_wavefront


class ChunkStream:
    """B rows of text that come portion by portion.

    Args:
        comet: the model; the stream holds the state, so that one model serves many streams.
        memory: what the rows have read before; nothing if left out.
        batch: rows, where there is no memory.
        workers: chunks that are read side by side, each on a share of torch's threads, which a layer of one chunk does
            not keep busy; None: two of a single row, on a CPU whose threads can be halved. While it reads, torch's
            number of threads is that share, for threads too that begin to use torch then, which keep it.

    Attributes:
        memory: of all closed chunks.
        tail: text tokens of each row's open chunk.
        outputs: outputs of the last layer at the last text token of each row, [B, D]; zeros where there was none, no
            numbers where ``read`` closed a chunk without keeping them.
        interrupted: whether a portion was cut off halfway (by an interrupt, or for want of memory). What the stream
            holds is then of no use; whoever may be interrupted feeds a fork.
    """

    def __init__(
        self, comet: CoMeT, memory: Memory | None = None, *, batch: int = 1, workers: int | None = None
    ) -> None:
        self.comet, self.workers = comet, workers
        self.memory = comet.empty_memory(batch) if memory is None else memory
        self.tail = [torch.empty(0, dtype=torch.long)] * self.memory.counts.batch
        like = {"device": comet.backbone.device, "dtype": comet.decoder.dtype}
        self.outputs = torch.zeros(self.memory.counts.batch, comet.backbone.width, **like)
        self.interrupted = False
        self._forget_chunk()

    def _forget_chunk(self) -> None:
        self._cache = EvictingCache(self.comet.decoder)
        # of the open chunk, a tensor per block: outputs at compression tokens by layer, and which are a row's own
        self._outputs: list[list[Tensor]] = [[] for _ in range(len(self.comet.stack))]
        self._real: list[Tensor] = []

    def fork(self) -> ChunkStream:
        """A second stream that goes on from here; neither notices what the other is fed."""
        other = copy.copy(self)
        other._cache = self._cache.fork()
        other.tail, other._real = list(self.tail), list(self._real)
        other._outputs = [list(blocks) for blocks in self._outputs]
        return other

    @property
    def open(self) -> list[int]:
        """How many text tokens each row's open chunk has."""
        return [len(row) for row in self.tail]

    @property
    def cache_tokens(self) -> int:
        """Keys held of the open chunks and of the memory in front of them."""
        return self._cache.physical_length

    @property
    def held(self) -> list[int]:
        """What stands for all text so far: slots and queue entries of each row, and the text of its open chunk."""
        origins = self.memory.counts.origins(self.comet.config.held_slots)
        return [origin + len(row) for origin, row in zip(origins, self.tail, strict=True)]

    @property
    def nbytes(self) -> int:
        """Bytes of the memory, and of what is open: its keys and values, and its compressed outputs."""
        compressed = sum(block.nbytes for blocks in self._outputs for block in blocks)
        return self.memory.nbytes + self._cache.nbytes + compressed

    @torch.no_grad()
    def feed(self, rows: Sequence[Tensor]) -> Tensor:
        """Append text to each row (some may get none); returns the logits after it, [B, V].

        A full chunk is closed only when more text comes, so the last token fed is always one that can be continued.
        """
        self._append(rows, ends=True)
        return self.comet.logits(self.outputs)

    @torch.no_grad()
    def read(self, rows: Sequence[Tensor]) -> None:
        """Append text that more will follow: a chunk that is full is closed at once, in one pass."""
        self._append(rows, ends=False)

    def _append(self, rows: Sequence[Tensor], ends: bool) -> None:
        if len(rows) != len(self.open):
            raise LaconicError(f"{len(rows)} rows were fed to a stream of {len(self.open)}.", "Feed each of them.")
        for row in rows:
            self._check(row)
        with self._undivided():
            self._append_all([row.to(self.comet.backbone.device, torch.long) for row in rows], ends)

    def _check(self, row: Tensor) -> None:
        vocabulary = self.comet.decoder.get_input_embeddings().num_embeddings
        whole = row.ndim == 1 and not row.is_floating_point()
        if not whole or (len(row) and not 0 <= int(row.min()) <= int(row.max()) < vocabulary):
            raise LaconicError("What was fed are no token ids of this decoder.", "Feed 1-D tensors of its tokenizer's.")

    @contextmanager
    def _undivided(self) -> Iterator[None]:
        """What is begun here is done to its end, or the stream is of no more use."""
        if self.interrupted:
            raise LaconicError(
                "What this stream was fed last broke off halfway; nothing follows from what it holds.",
                "Feed a fork() of a stream that has to outlive an interrupt.",
            )
        self.interrupted = True
        yield
        self.interrupted = False

    def _append_all(self, left: list[Tensor], ends: bool) -> None:
        full = self.comet.config.chunk_tokens
        room = [full - count if count else 0 for count in self.open]
        left = self._round(left, room, ends)
        closed = [full_chunks(len(row), full, ends) for row in left]
        workers = self._side_by_side(max(closed)) if self.workers is None else self.workers
        if workers > 1:
            self.memory = read_wavefront(self.comet, whole_chunks(left, full, ends), self.memory, workers)
        else:
            for ids, closes in whole_chunks(left, full, ends):
                _, self.memory = self.comet.read_chunk(ids, self.memory, closes)
        if any(closed):
            stale = torch.tensor(closed, device=self.outputs.device)[:, None] > 0
            self.outputs = torch.where(stale, torch.nan, self.outputs)
        left = [row[count * full :] for row, count in zip(left, closed, strict=True)]
        self._round(left, [full] * len(left), ends)

    def _side_by_side(self, chunks: int) -> int:
        """How many of so many whole chunks to read side by side, where nobody said."""
        halves = self.comet.backbone.device.type == "cpu" and torch.get_num_threads() % 2 == 0
        return 2 if halves and chunks > 1 and len(self.tail) == 1 and not self.comet.compiled else 1

    @torch.no_grad()
    def close(self, which: Sequence[bool] | None = None) -> Memory:
        """Fold the open chunks of some rows (all of them) into the memory, full or not, and return it."""
        which = which or [True] * len(self.tail)
        pieces = [Piece(count, 0, chosen and count > 0) for count, chosen in zip(self.open, which, strict=True)]
        with self._undivided():
            if any(piece.closes for piece in pieces):
                self._block([row[:0] for row in self.tail], pieces)
        return self.memory

    def _round(self, rows: list[Tensor], room: Sequence[int], ends: bool) -> list[Tensor]:
        """Feed at most ``room`` tokens of each row to its chunk, and close it where it is full and more is to come."""
        full = self.comet.config.chunk_tokens
        taken = [row[:space] for row, space in zip(rows, room, strict=True)]
        left = [row[len(part) :] for row, part in zip(rows, taken, strict=True)]
        pieces = [
            Piece(count, len(part), count + len(part) == full and (len(rest) > 0 or not ends))
            for count, part, rest in zip(self.open, taken, left, strict=True)
        ]
        if any(piece.count or piece.closes for piece in pieces):
            self._block(taken, pieces)
        return left

    def _block(self, ids: Sequence[Tensor], pieces: Sequence[Piece]) -> None:
        """Some tokens of each row through all layers, behind what the cache holds of their chunks."""
        comet, device = self.comet, self.comet.backbone.device
        self._stand_in_front([piece.count > 0 and piece.start == 0 for piece in pieces])
        layout = block_layout(pieces, self.memory.counts.origins(comet.config.held_slots), comet.config)
        hidden = comet.embedded(ids, layout)
        keys = self._cache.announce(layout.map(lambda field: field.to(device)))
        frame = comet.frame(layout, keys, None)
        closes = torch.tensor([piece.closes for piece in pieces])
        self._real.append(frame.compressions)
        update = None
        if closes.any():
            real = torch.cat(self._real, dim=1)
            update = Update.of(self.memory.counts, closes, real, comet.config.fifo_slots, device)
        layers = []
        for index, state in enumerate(self.memory.layers):
            hidden = comet.stack.run(index, hidden, frame.layout.position, frame.rotary, frame.mask, self._cache)
            self._outputs[index].append(take(hidden, frame.compression))
            if update is not None:
                outputs = torch.cat(self._outputs[index], dim=1)
                layers.append(update.layer(comet.cells[index].nets, state, outputs, take(hidden, frame.readouts)))
        self._keep_last_words(hidden, frame)
        self.tail = [
            row[:0] if piece.closes else torch.cat([row, new.cpu()])
            for row, new, piece in zip(self.tail, ids, pieces, strict=True)
        ]
        if update is not None:
            lengths = [piece.start + piece.count for piece in pieces]
            counts = self.memory.counts.behind(lengths, closes.tolist(), comet.config.stride, comet.config.fifo_slots)
            self.memory = Memory(tuple(layers), counts)
            self._drop(closes)

    def _stand_in_front(self, opens: Sequence[bool]) -> None:
        """Put the memory of rows that begin a chunk into the cache; to other rows it is padding."""
        comet, device = self.comet, self.comet.backbone.device
        front = memory_layout(self.memory.counts, comet.config.held_slots)
        if not len(front) or not any(opens):
            return
        mine = torch.tensor(opens)[:, None]
        front = Layout(torch.where(mine, front.kind, Kind.PAD), front.step, front.position, front.label)
        front = front.map(lambda field: field.to(device))
        self._cache.announce(front)
        rotary = comet.stack.rotary(self.outputs.to(comet.decoder.dtype), front.position)
        for index, state in enumerate(self.memory.layers):
            self._cache.update(*comet.cells[index].front(state, rotary), index)

    def _keep_last_words(self, hidden: Tensor, frame: Frame) -> None:
        text = frame.layout.kind == Kind.TEXT
        last = (text * torch.arange(text.shape[1], device=text.device)).amax(1)
        found = hidden[torch.arange(len(hidden), device=hidden.device), last]
        self.outputs = torch.where(text.any(1)[:, None], found, self.outputs.to(found.dtype))

    def _drop(self, closed: Tensor) -> None:
        """Forget the keys and compressed outputs of the chunks that were closed."""
        if not any(self.open):
            self._forget_chunk()
            return
        assert self._cache.layout is not None
        kept = ~closed[:, None].to(self._cache.layout.kind.device)
        self._cache.keep(kept.expand(-1, len(self._cache.layout)))
        self._keep_compressed(torch.cat(self._real, dim=1) & ~closed[:, None])

    def _keep_compressed(self, real: Tensor) -> None:
        """Of the compressed outputs, keep columns that are some row's own: else a stream of several rows, which are
        hardly ever all between two chunks, would hold those of its whole past.
        """
        columns = newest(real, real.shape[1])
        self._real = [real.gather(1, columns)]
        columns = columns.to(self.outputs.device)
        self._outputs = [[take(torch.cat(blocks, dim=1), columns)] for blocks in self._outputs]


def full_chunks(tokens: int, full: int, ends: bool) -> int:
    """How many chunks of so many tokens are closed: where the text may end, the last stays open though it is full."""
    return max(tokens - ends, 0) // full


def whole_chunks(rows: Sequence[Tensor], full: int, ends: bool) -> Iterator[Part]:
    """The chunks of each row that are closed, side by side."""
    counts = [full_chunks(len(row), full, ends) for row in rows]
    for number in range(max(counts)):
        ids = [
            row[number * full : (number + 1) * full if number < count else number * full]
            for row, count in zip(rows, counts, strict=True)
        ]
        yield ids, [number < count for count in counts]
