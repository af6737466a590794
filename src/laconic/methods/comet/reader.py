"""Reading a document into CoMeT's memory, and answering from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from laconic.backbone import Backbone
from laconic.core.results import Answer, Compressed, Stopwatch, added
from laconic.core.segments import require_text, require_whole_characters
from laconic.errors import BackboneError, DocumentError, LaconicError
from laconic.generation.answer import Reader, answer_line
from laconic.generation.greedy import continue_one_by_one
from laconic.methods.comet.memory import Memory
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.stream import ChunkStream

#: chunks that are read at once of a text that comes piece by piece, and between two looks at the clock
PORTION_CHUNKS = 4


class Whole:
    """The whole document, as text: CoMeT's reader takes it in chunk by chunk. It is asked for no ratio."""

    query_aware = False

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        """The document and its length; nothing is read yet.

        Raises:
            DocumentError: it is empty.
        """
        require_text(context)
        tokens = len(self.backbone.long_ids(context))
        return Compressed(document_tokens=tokens, context_tokens=tokens, requested_ratio=1.0, text=context)


class CoMeTReader(Reader):
    """Answers from a memory; a question that fits into a chunk is not cut by its end.

    Args:
        comet: reads and answers.

    Raises:
        LaconicError: it has no memory, and would forget all but the last chunk.
    """

    unbounded = True

    def __init__(self, comet: CoMeT) -> None:
        if not (comet.config.global_slots or comet.config.fifo_slots):
            raise LaconicError("This CoMeT has no slots and no queue: it would forget all it reads.", "Give it some.")
        super().__init__(comet.backbone, comet.decoder)
        self.comet = comet

    def read(self, compressed: Compressed) -> Compressed:
        """Take a document into memory once, so that many questions can be asked of it."""
        if compressed.already_read:
            return compressed
        stream = ChunkStream(self.comet)
        watch = Stopwatch(self.backbone.device)
        with watch("read"):
            stream.feed([self._ids(compressed)])
        return self.resume(stream, replace(compressed, seconds=added(compressed.seconds, watch.seconds)))

    def read_pieces(self, pieces: Iterable[str], stream: ChunkStream | None = None) -> ChunkStream:
        """Read text that comes piece by piece, however long, without ever holding all of it.

        Args:
            pieces: of a text, cut anywhere: lines of a file, a download's blocks.
            stream: what was read before, to go on from; it is left as it was.

        Returns:
            The stream behind the text: ``resume`` makes a context of it, ``save_memory`` a file.

        Raises:
            DocumentError: a piece holds half characters.
        """
        stream = ChunkStream(self.comet) if stream is None else stream.fork()
        waiting: list[int] = []
        portion = PORTION_CHUNKS * self.comet.config.chunk_tokens
        for ids in self.backbone.ids_of_pieces(map(require_whole_characters, pieces)):
            waiting += ids
            # one token waits, so that the last one read can be continued
            ready = (len(waiting) - 1) // portion * portion
            if ready > 0:
                stream.read([torch.tensor(waiting[:ready])])
                waiting = waiting[ready:]
        if waiting:
            stream.feed([torch.tensor(waiting)])
        return stream

    def resume(self, stream: ChunkStream, compressed: Compressed) -> Compressed:
        """A document whose reading is in this stream."""
        return replace(compressed, text=None, state=stream, context_tokens=stream.held[0])

    @torch.no_grad()
    def _answer(
        self,
        compressed: Sequence[Compressed],
        questions: Sequence[str],
        max_new_tokens: int,
        on_text: Callable[[str], None] | None,
    ) -> list[Answer]:
        if not questions:
            return []
        prompts = [torch.tensor(self.prompt_ids(question)) for question in questions]
        watch = Stopwatch(self.backbone.device)
        with watch("read"):
            stream = self._stream(compressed)
        held = stream.held
        if not all(held):
            raise DocumentError("Nothing was read; there is nothing to answer from.", "Read a document first.")
        with watch("prefill"):
            full = self.comet.config.chunk_tokens
            stream.close([count + len(ids) > full for count, ids in zip(stream.open, prompts, strict=True)])
            logits = stream.feed(prompts)
        require_numbers(logits, stream.memory)
        shown = self.stream_text(on_text)
        peak = [stream.cache_tokens, stream.nbytes]

        def advance(tokens: Tensor, live: Sequence[bool]) -> Tensor:
            rows = [token[None] if going else token[None][:0] for token, going in zip(tokens.cpu(), live, strict=True)]
            memory = stream.memory
            after = stream.feed(rows)
            require_numbers(after, None if stream.memory is memory else stream.memory)
            peak[:] = max(peak[0], stream.cache_tokens), max(peak[1], stream.nbytes)
            return after

        with watch("decode"):
            produced = continue_one_by_one(
                logits,
                advance,
                max_new_tokens=max_new_tokens,
                stop_ids=self.stop_ids,
                ends=self.breaks_line,
                on_token=lambda row, token: shown.push(token) if row == 0 else None,
            )
        shown.close()
        share = {stage: seconds / len(questions) for stage, seconds in watch.seconds.items()}
        return [
            Answer(
                text=answer_line(self.backbone, ids),
                context=replace(context, context_tokens=tokens),
                prompt_tokens=len(prompt),
                generated_tokens=len(ids),
                peak_cache_tokens=peak[0],
                peak_cache_bytes=peak[1] // len(questions),
                seconds=dict(share),
            )
            for context, tokens, prompt, ids in zip(compressed, held, prompts, produced, strict=True)
        ]

    def _stream(self, compressed: Sequence[Compressed]) -> ChunkStream:
        if compressed[0].already_read:
            state = compressed[0].state
            if not isinstance(state, ChunkStream) or state.comet is not self.comet:
                raise DocumentError("This context was read by another reader.", "Read the document with this one.")
            return state.fork()
        stream = ChunkStream(self.comet, batch=len(compressed))
        stream.feed([self._ids(context) for context in compressed])
        return stream

    def _ids(self, compressed: Compressed) -> Tensor:
        if compressed.text is None:
            raise DocumentError("CoMeT reads text, not embeddings.", "Give it the document itself.")
        return self.backbone.long_ids(compressed.text)


def require_numbers(logits: Tensor, memory: Memory | None) -> None:
    """Raise ``BackboneError`` where logits, or the memory that was just written, are not finite.

    Attention of some backends passes over a key that is not finite, as if it were not there.
    """
    if not (bool(torch.isfinite(logits).all()) and (memory is None or memory.finite)):
        raise BackboneError(
            "Reading came to numbers that are not finite; no answer follows from them.", "Use --dtype fp32."
        )
