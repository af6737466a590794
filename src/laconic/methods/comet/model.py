"""CoMeT, Collaborative Memory Transformer (arXiv 2602.01766): read chunk after chunk with a memory of constant size.

In every layer a gated global memory keeps what must last, and a queue of compressed vectors what is recent. Both stand
in front of the next chunk as hidden states that are only ever read, so a layer computes their keys and values alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from laconic.backbone import Backbone
from laconic.core.layers import LayerStack, Masks, Rotary
from laconic.core.layout import Kind, Layout, concatenate
from laconic.core.lora import add_lora
from laconic.core.memory_tokens import MemoryTokens
from laconic.core.method import TrainedMethod
from laconic.core.sharing import shared_twin, unshared
from laconic.core.visibility import attention_mask, causal
from laconic.methods.comet.chunks import Piece, block_layout, columns_of, memory_layout
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.memory import LayerMemory, LayerState, Memory, Update, take


@dataclass(frozen=True)
class Frame:
    """What all layers of one block share.

    Attributes:
        layout: of the block, [B, E].
        rotary, front_rotary: for the block, and for the memory in front of it (None where there is none).
        compression, readouts: columns of the block, [B, b] and [B, m].
        compressions: which of the compression tokens' columns are a row's own, bool [B, b], on the CPU.
    """

    layout: Layout
    mask: Masks
    rotary: Rotary
    front_rotary: Rotary | None
    compression: Tensor
    compressions: Tensor
    readouts: Tensor


class CoMeT(TrainedMethod):
    """CoMeT on a backbone.

    Attributes:
        decoder: the backbone's model, or a twin of it that is trained.

    Raises:
        BackboneError: the decoder's positions are not rotary.
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
        deviation = getattr(backbone.model.config, "initializer_range", 0.02)
        self.memories = nn.ModuleList(
            LayerMemory(backbone.width, self.config, deviation) for _ in range(len(self.stack))
        )
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

    def nets(self, index: int) -> LayerMemory:
        """The memory networks of a layer."""
        nets = self.memories[index]
        assert isinstance(nets, LayerMemory)
        return nets

    # --- memories ----------------------------------------------------------------------------------------------

    def empty_memory(self, batch: int = 1) -> Memory:
        """The memory of rows that have read nothing."""
        width, device = self.backbone.width, self.backbone.device
        state = LayerState(
            torch.zeros(batch, self.config.global_slots, width, device=device, dtype=self.readouts.weight.dtype),
            torch.zeros(batch, 0, width, device=device, dtype=self.decoder.dtype),
        )
        none = torch.zeros(batch, dtype=torch.long)
        return Memory((state,) * len(self.stack), none, none, none)

    def origins(self, memory: Memory) -> list[int]:
        """The position of each row's first token behind its memory."""
        return (self.config.global_slots * (memory.chunks > 0) + memory.live).tolist()

    def front_layout(self, memory: Memory) -> Layout:
        """The memory as it stands in front of the next chunk, [B, g + t]."""
        held = memory.layers[0].queue.shape[1]
        return memory_layout(memory.chunks > 0, memory.live, self.config.global_slots, held)

    def front(self, index: int, state: LayerState, frame_rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer's memory, [B, N, g + t, H]."""
        return self.stack.keys_and_values(index, self.nets(index).view(state), frame_rotary)

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

    def frame(self, layout: Layout, keys: Layout, front: Layout | None, like: Tensor) -> Frame:
        """What the layers need to know of a block.

        Args:
            keys: everything the block's tokens may read, itself included, [B, K + E].
            front: the memory in front of it, where its keys are still to be computed.
        """
        device = like.device
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

    def cell(self, index: int, hidden: Tensor, state: LayerState, frame: Frame) -> Tensor:
        """One layer on a block that stands directly behind the memory."""
        cache = Cache(layer_class_to_replicate=DynamicLayer)
        if frame.front_rotary is not None:
            cache.update(*self.front(index, state, frame.front_rotary), index)
        return self.stack.run(index, hidden, frame.layout.position, frame.rotary, frame.mask, cache)

    def read_chunk(
        self, ids: Sequence[Tensor], memory: Memory, closes: Sequence[bool], *, save_activations: bool = True
    ) -> tuple[Tensor, Memory]:
        """A whole chunk of each row through all layers.

        Args:
            ids: text tokens of each row's chunk; an empty row has no chunk here and keeps its memory.
            closes: rows whose memory takes the chunk in; the others' is left as it was.
            save_activations: False recomputes a layer in the backward pass instead of keeping its activations.

        Returns:
            Outputs of the last layer before the final norm, at the text tokens of all rows one after the other,
            [sum of lengths, D]; and the memory behind the chunk.
        """
        pieces = [Piece(0, len(row), closes_ and len(row) > 0) for row, closes_ in zip(ids, closes, strict=True)]
        layout = block_layout(pieces, self.origins(memory), self.config)
        front = self.front_layout(memory)
        hidden = self.embedded(ids, layout)
        frame = self.frame(layout, concatenate([front, layout]), front if len(front) else None, hidden)
        lengths = torch.tensor([len(row) for row in ids])
        update = Update.of(memory, torch.tensor([p.closes for p in pieces]), frame.compressions, lengths, self.config)
        layers = []
        for index, state in enumerate(memory.layers):
            step = self._step(index, frame, update)
            if save_activations or not torch.is_grad_enabled():
                hidden, *after = step(hidden, *state)
            else:
                hidden, *after = checkpoint(step, hidden, *state, use_reentrant=False)
            layers.append(LayerState(*after))
        return hidden[frame.layout.kind == Kind.TEXT], update.memory(layers)

    def _step(self, index: int, frame: Frame, update: Update) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
        """The cell (layer, chunk) as a function of tensors: a chunk's states in, its states and the memory out."""

        def step(hidden: Tensor, slots: Tensor, queue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            state = LayerState(slots, queue)
            hidden = self.cell(index, hidden, state, frame)
            outputs, readouts = take(hidden, frame.compression), take(hidden, frame.readouts)
            return hidden, *update.layer(self.nets(index), state, outputs, readouts)

        return step

    # --- whole texts ---------------------------------------------------------------------------------------------

    def chunks(
        self,
        rows: Sequence[Tensor],
        plans: Sequence[Sequence[int]],
        memory: Memory | None = None,
        *,
        save_activations: bool = True,
        truncate: int | None = None,
    ) -> Iterator[tuple[Tensor, Memory]]:
        """Read rows of text chunk by chunk; each row's last chunk stays open, so its memory is that before it.

        Args:
            plans: text tokens of each chunk of each row.
            truncate: chunks after which no gradient is carried on; None carries it through all of them.
        """
        memory = memory or self.empty_memory(len(rows))
        parts = [row.split(list(plan)) for row, plan in zip(rows, plans, strict=True)]
        for number in range(max(len(part) for part in parts)):
            ids = [part[number] if number < len(part) else part[0][:0] for part in parts]
            closes = [number < len(part) - 1 for part in parts]
            if truncate is not None and number % truncate == 0:
                memory = memory.detach()
            outputs, memory = self.read_chunk(ids, memory, closes, save_activations=save_activations)
            yield outputs, memory

    def logits(self, outputs: Tensor) -> Tensor:
        """From outputs of the last layer to the vocabulary."""
        head = self.decoder.get_output_embeddings()
        return head(self.stack.finish(outputs))
