"""CoMeT, Collaborative Memory Transformer (arXiv 2602.01766): read chunk after chunk with a memory of constant size.

In every layer a gated global memory keeps what must last, and a queue of compressed vectors what is recent. Both stand
in front of the next chunk as hidden states that are only ever read, so a layer computes their keys and values alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from laconic.backbone import Backbone
from laconic.core.layers import LayerStack
from laconic.core.layout import Kind, Layout, concatenate
from laconic.core.lora import add_lora
from laconic.core.memory_tokens import MemoryTokens
from laconic.core.method import TrainedMethod
from laconic.core.sharing import shared_twin, unshared
from laconic.core.visibility import attention_mask, causal
from laconic.errors import BackboneError
from laconic.methods.comet.cells import Cell, Chunk, Frame
from laconic.methods.comet.chunks import Piece, block_layout, columns_of, memory_layout
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.memory import Counts, LayerMemory, LayerState, Memory, Update

Layers = tuple[LayerState, ...]


class CoMeT(TrainedMethod):
    """CoMeT on a backbone.

    Attributes:
        decoder: the backbone's model, or a twin of it that is trained.
        cells: a decoder layer with its memory networks each. Their parameters have their names in ``decoder`` and
            ``memories``, so the list is a plain one.

    Raises:
        BackboneError: the decoder's layers cannot be run one at a time, or a chunk takes more positions than it has.
    """

    name = "comet"
    options = CoMeTConfig
    config: CoMeTConfig

    def __init__(self, backbone: Backbone, config: CoMeTConfig | None = None) -> None:
        super().__init__()
        self.config = config or CoMeTConfig()
        self.backbone = backbone
        self.decoder: PreTrainedModel = backbone.model
        if self.config.train == "full":
            self.decoder = unshared(shared_twin(backbone.model)).requires_grad_(True)
        elif self.config.train == "lora":
            self.decoder = shared_twin(backbone.model)
            add_lora(self.decoder, self.config.lora_rank, alpha=2 * self.config.lora_rank)
        else:
            self.decoder.requires_grad_(False)
        self.stack = LayerStack(self.decoder)
        self.stack.verify(self.decoder)
        needed = self.config.positions
        if needed > backbone.window:
            raise BackboneError(
                f"A chunk behind its memory takes {needed} positions, and {backbone.name} has {backbone.window}.",
                "Lower chunk_tokens, fifo_slots, global_slots or global_depth.",
            )
        deviation = getattr(backbone.model.config, "initializer_range", 0.02)
        nets = [LayerMemory(backbone.width, self.config, deviation) for _ in range(len(self.stack))]
        self.memories = nn.ModuleList(nets)
        self.cells = [Cell(self.stack, index, own) for index, own in enumerate(nets)]
        self._last: tuple[tuple[Any, ...], Frame, Update] | None = None
        self._compiled: Callable[[Chunk, Tensor, Layers], tuple[Tensor, Layers]] | None = None
        self._compiled_rows: int | None = None
        row = backbone.embed(torch.tensor(backbone.token_ids("\n")[-1:], device=backbone.device))
        self.readouts = MemoryTokens(row, self.config.global_slots)
        self.compression = MemoryTokens(row, 1, noise=0.0)
        self.to(backbone.device)

    def adapted(self) -> list[nn.Module]:
        return [self.decoder]

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], backbone: Backbone) -> CoMeT:
        """As for any method. What is small and summed over many chunks computes in float32, however it was saved."""
        comet = super().from_pretrained(folder, backbone)
        for part in (comet.memories, comet.readouts, comet.compression):
            part.float()
        return comet

    # --- memories ----------------------------------------------------------------------------------------------

    def empty_memory(self, batch: int = 1) -> Memory:
        """The memory of rows that have read nothing."""
        width, device = self.backbone.width, self.backbone.device
        state = LayerState(
            torch.zeros(batch, self.config.held_slots, width, device=device, dtype=self.readouts.weight.dtype),
            torch.zeros(batch, 0, width, device=device, dtype=self.decoder.dtype),
        )
        return Memory((state,) * len(self.stack), Counts.none(batch))

    # --- one block through all layers ----------------------------------------------------------------------------

    def embedded(self, ids: Sequence[Tensor], layout: Layout) -> Tensor:
        """The block's input [B, E, D]: words from the decoder's table, soft tokens from the method's own rows."""
        device = self.backbone.device
        kind = layout.kind.to(device)
        words = torch.zeros_like(kind)
        words[kind == Kind.TEXT] = torch.cat([row.to(device) for row in ids])
        hidden = self.decoder.get_input_embeddings()(words)
        closing = int((kind == Kind.READOUT).sum()) // max(len(self.readouts), 1)
        for place, rows in (
            (kind == Kind.COMPRESSION, self.compression.weight),
            (kind == Kind.READOUT, self.readouts.weight.repeat(closing, 1)),
        ):
            rows = rows.to(hidden.dtype).expand(int(place.sum()), -1)
            hidden = hidden.masked_scatter(place.unsqueeze(-1), rows)
        return hidden

    def frame(self, layout: Layout, keys: Layout, front: Layout | None) -> Frame:
        """What the layers need to know of a block.

        Args:
            keys: everything the block's tokens may read, itself included, [B, K + E].
            front: the memory in front of it, where its keys are still to be computed.
        """
        device = self.backbone.device
        like = torch.empty(0, dtype=self.decoder.dtype, device=device)
        compression, counts = columns_of(Kind.COMPRESSION, layout)
        readouts, _ = columns_of(Kind.READOUT, layout)
        onto = layout.map(lambda field: field.to(device))
        return Frame(
            layout=onto,
            mask=attention_mask(self.decoder, causal, keys.map(lambda field: field.to(device)), len(layout)),
            rotary=self.stack.rotary(like, onto.position),
            front_rotary=None if front is None else self.stack.rotary(like, front.position.to(device)),
            compression=compression.to(device),
            compressions=torch.arange(compression.shape[1]) < counts[:, None],
            readouts=readouts.to(device),
        )

    def prepare(
        self, lengths: Sequence[int], closes: Sequence[bool], counts: Counts, capacity: int | None = None
    ) -> Chunk:
        """All that is known of the rows' next chunk before anything is computed.

        Chunk after full chunk, it is the same: with the queue full, all of it but the counts.

        Args:
            lengths: text tokens of each row's chunk; a row of none has no chunk here and keeps its memory.
            closes: rows whose memory takes the chunk in; the others' is left as it was.
            capacity: most entries of the queue, where that is to be less than the configuration's.
        """
        config, decoder = self.config, self.decoder
        capacity = config.fifo_slots if capacity is None else capacity
        # tensors made in inference mode are of no use in training
        mode = torch.is_inference_mode_enabled()
        placed = (decoder.dtype, decoder.device, decoder.config._attn_implementation, mode)
        key = (tuple(lengths), tuple(closes), *counts.shape, capacity, *placed)
        last = self._last  # read once: streams on other threads replace it
        if last is None or last[0] != key:
            last = self._last = (key, *self._framed(lengths, closes, counts, capacity))
        _, frame, update = last
        return Chunk(frame, update, counts.behind(lengths, closes, config.stride, capacity))

    def _framed(
        self, lengths: Sequence[int], closes: Sequence[bool], counts: Counts, capacity: int
    ) -> tuple[Frame, Update]:
        pieces = [Piece(0, length, close and length > 0) for length, close in zip(lengths, closes, strict=True)]
        layout = block_layout(pieces, counts.origins(self.config.held_slots), self.config)
        front = memory_layout(counts, self.config.held_slots)
        frame = self.frame(layout, concatenate([front, layout]), front if len(front) else None)
        closed = torch.tensor([piece.closes for piece in pieces])
        return frame, Update.of(counts, closed, frame.compressions, capacity, self.backbone.device)

    def read_chunk(
        self,
        ids: Sequence[Tensor],
        memory: Memory,
        closes: Sequence[bool],
        *,
        save_activations: bool = True,
        capacity: int | None = None,
    ) -> tuple[Tensor, Memory]:
        """A whole chunk of each row through all layers.

        Args:
            ids, closes, capacity: as lengths, ``closes`` and ``capacity`` of ``prepare``.
            save_activations: False recomputes a layer in the backward pass instead of keeping its activations.

        Returns:
            Outputs of the last layer before the final norm, at the text tokens of all rows one after the other,
            [sum of lengths, D]; and the memory behind the chunk.
        """
        chunk = self.prepare([len(row) for row in ids], closes, memory.counts, capacity)
        hidden = self.embedded(ids, chunk.frame.layout)
        if torch.is_grad_enabled():
            hidden, layers = self.through(chunk, hidden, memory.layers, again=not save_activations)
        elif self._compiled is not None and self._steady(ids, closes, memory.counts):
            hidden, layers = self._compiled(chunk, hidden, memory.layers)
            # a captured graph writes its results to the same place every time
            hidden, layers = hidden.clone(), tuple(LayerState(*(t.clone() for t in state)) for state in layers)
        else:
            hidden, layers = self.through(chunk, hidden, memory.layers)
        return hidden[chunk.text], Memory(layers, chunk.after)

    def through(self, chunk: Chunk, hidden: Tensor, layers: Layers, again: bool = False) -> tuple[Tensor, Layers]:
        """All layers on one chunk: hidden states [B, E, D] and every layer's memory in, both out.

        Args:
            again: compute each layer again in the backward pass.
        """
        behind = []
        for cell, state in zip(self.cells, layers, strict=True):
            if again:
                hidden, *after = checkpoint(cell, chunk, hidden, *state, use_reentrant=False)
            else:
                hidden, *after = cell(chunk, hidden, *state)
            behind.append(LayerState(*after))
        return hidden, tuple(behind)

    @property
    def compiled(self) -> bool:
        """Whether full chunks are read by compiled code."""
        return self._compiled is not None

    def compile(self, mode: str | None = None) -> CoMeT:  # type: ignore[override]
        """Compile the reading of full chunks behind a full queue: their shapes never change.

        All other chunks (the first ones of a text, and its last) are read as before, and so are batches of another
        size than the first one that comes.

        Args:
            mode: of ``torch.compile``; "reduce-overhead" captures CUDA graphs.
        """
        self._compiled, self._compiled_rows = torch.compile(self.through, mode=mode, dynamic=False), None
        return self

    def _steady(self, ids: Sequence[Tensor], closes: Sequence[bool], counts: Counts) -> bool:
        full = all(len(row) == self.config.chunk_tokens for row in ids) and all(closes)
        if not full or not bool(counts.started.all()) or int(counts.live.min()) < self.config.fifo_slots:
            return False
        if self._compiled_rows is None:
            self._compiled_rows = len(ids)
        return self._compiled_rows == len(ids)

    # --- whole texts ---------------------------------------------------------------------------------------------

    def chunks(
        self,
        rows: Sequence[Tensor],
        plans: Sequence[Sequence[int]],
        memory: Memory | None = None,
        *,
        save_activations: bool = True,
        truncate: int | None = None,
        capacity: int | None = None,
        between: Callable[[int, Memory], Memory] | None = None,
    ) -> Iterator[tuple[Tensor, Memory]]:
        """Read rows of text chunk by chunk; each row's last chunk stays open, so its memory is that before it.

        Args:
            plans: text tokens of each chunk of each row.
            truncate: chunks after which no gradient is carried on; None carries it through all of them.
            capacity: as for ``prepare``.
            between: what else happens to the memory behind a chunk, from the chunk's number.
        """
        memory = memory or self.empty_memory(len(rows))
        for number, (ids, closes) in enumerate(by_chunk(rows, plans)):
            if truncate is not None and number % truncate == 0:
                memory = memory.detach()
            outputs, memory = self.read_chunk(ids, memory, closes, save_activations=save_activations, capacity=capacity)
            memory = memory if between is None else between(number, memory)
            yield outputs, memory

    def logits(self, outputs: Tensor) -> Tensor:
        """From outputs of the last layer to the vocabulary."""
        head = self.decoder.get_output_embeddings()
        return head(self.stack.finish(outputs))


def by_chunk(rows: Sequence[Tensor], plans: Sequence[Sequence[int]]) -> Iterator[tuple[list[Tensor], list[bool]]]:
    """Text tokens of each row's chunk, chunk by chunk, and whether another comes behind it; rows that are at their end
    have none.
    """
    parts = [row.split(list(plan)) for row, plan in zip(rows, plans, strict=True)]
    for number in range(max(len(part) for part in parts)):
        yield (
            [part[number] if number < len(part) else part[0][:0] for part in parts],
            [number < len(part) - 1 for part in parts],
        )
