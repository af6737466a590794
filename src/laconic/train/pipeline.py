"""Layer-level pipeline parallelism over chunks (section 4): ranks share a text, not the layers.

Every rank has all layers and a run of neighbouring chunks. It takes a layer's memory from the rank before it, carries
it through its own chunks, hands it on, and goes to the next layer, while the rank behind it works on this one. The
backward pass runs the same way in reverse. Gradients are those of one process.

Layers meet at detached tensors, and each layer's piece of graph is walked on its own: when what is sent and received
comes when is written down here, and does not depend on the order in which autograd visits nodes. A rank that keeps only
the layers' inputs computes them again at that point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from laconic.core.modes import autocast_here
from laconic.methods.comet.cells import Chunk
from laconic.methods.comet.memory import Counts, LayerState
from laconic.methods.comet.model import CoMeT, by_chunk

# layers whose memory is awaited at a time: one arrives while another is used
AHEAD = 2

LocalLoss = Callable[[int, Tensor], Tensor | None]


class ChunkPipeline:
    """A CoMeT whose chunks are spread over the ranks of a group.

    Args:
        group: of the ranks that share each text, in their order; all of them if left out.
        save_activations: False keeps the inputs of each layer alone, and computes the layer again going back.
    """

    def __init__(self, comet: CoMeT, group: dist.ProcessGroup | None = None, *, save_activations: bool = True) -> None:
        self.comet, self.group, self.save_activations = comet, group, save_activations
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)

    def loss(
        self,
        rows: Sequence[Tensor],
        plans: Sequence[Sequence[int]],
        local_loss: LocalLoss,
        capacity: int | None = None,
    ) -> Tensor:
        """This rank's part of the loss, a scalar; ``backward`` on it, by all ranks, is one backward pass.

        Every rank is given the whole batch and takes its own chunks of it.

        Args:
            local_loss: from a chunk's number and its outputs at text tokens, its part of the loss (already divided by
                what the loss is a mean over), or None where nothing is to be learnt.
            capacity: most entries of the queue, where that is to be less than the configuration's.
        """
        run = _Run(self, rows, plans, self.comet.config.fifo_slots if capacity is None else capacity)
        total = run.forward(local_loss)
        return _Deferred.apply(total.detach().requires_grad_(), lambda scale: run.backward(total, scale))

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the ranks' gradients, since each saw its own chunks alone; to be called after ``backward``."""
        sum_gradients(parameters, self.group)


def sum_gradients(parameters: Iterable[nn.Parameter], group: dist.ProcessGroup | None, scale: float = 1.0) -> None:
    """Replace gradients (of sharded parameters: this rank's part) by ``scale`` times their sum over a group.

    One message for each dtype; a parameter that got no gradient here takes part with zeros.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = _gradient(parameter)
    for dtype in dict.fromkeys(parameter.dtype for parameter in trained):
        parts = [_local(p.grad) for p in trained if p.dtype == dtype and p.grad is not None]
        flat = torch.cat([part.reshape(-1) for part in parts])
        dist.all_reduce(flat, group=group)
        for part, total in zip(parts, flat.mul_(scale).split([part.numel() for part in parts]), strict=True):
            part.copy_(total.view_as(part))


@dataclass
class _Passage:
    """One layer on a rank's chunks: what went in, and, unless it will be computed again, what came out."""

    hidden: list[Tensor]
    state: LayerState
    outputs: list[Tensor] | None
    after: LayerState | None


class _Run:
    """One batch, forward and back."""

    def __init__(
        self, pipeline: ChunkPipeline, rows: Sequence[Tensor], plans: Sequence[Sequence[int]], capacity: int
    ) -> None:
        self.pipeline, self.comet = pipeline, pipeline.comet
        stride = self.comet.config.stride
        every = list(by_chunk(rows, plans))
        share = -(-len(every) // pipeline.world)
        first, stop = pipeline.rank * share, (pipeline.rank + 1) * share
        self.chunks: dict[int, Chunk] = {}
        self.embedded: dict[int, Tensor] = {}
        counts = [self.comet.empty_memory(len(rows)).counts]
        for number, (ids, closes) in enumerate(every):
            lengths = [len(row) for row in ids]
            if first <= number < stop:
                self.chunks[number] = self.comet.prepare(lengths, closes, counts[-1], capacity)
                self.embedded[number] = self.comet.embedded(ids, self.chunks[number].frame.layout)
            counts.append(counts[-1].behind(lengths, closes, stride, capacity))
        # with fewer chunks than ranks the last ones hand on what they are given
        self.before, self.after = (self._empty(counts[min(n, len(every))]) for n in (first, stop))
        self.cast = autocast_here(self.comet.backbone.device)  # going back, the caller's may be over
        self.passages: list[_Passage] = []
        self.last: dict[int, Tensor] = {}

    def _empty(self, counts: Counts) -> LayerState:
        """A state of the shapes that memory has at these counts."""
        empty = self.comet.empty_memory(counts.batch).layers[0]
        return LayerState(empty.slots, empty.queue.new_zeros(counts.batch, counts.held, empty.queue.shape[2]))

    def forward(self, local_loss: LocalLoss) -> Tensor:
        rank, layers = self.pipeline.rank, range(len(self.comet.stack))
        messages = _Messages(self.pipeline, rank - 1, rank + 1, self.before, layers)
        current = [tensor.detach() for tensor in self.embedded.values()]
        for index in layers:
            arrived = messages.receive() or self.before
            hidden = [tensor.detach().requires_grad_() for tensor in current]
            state = LayerState(*(tensor.detach().requires_grad_() for tensor in arrived))
            with torch.set_grad_enabled(self.pipeline.save_activations):
                outputs, after = self._layer(index, hidden, state)
            messages.send(after)
            current = [tensor.detach() for tensor in outputs]
            kept = self.pipeline.save_activations
            self.passages.append(_Passage(hidden, state, outputs if kept else None, after if kept else None))
        messages.finish()
        total = torch.zeros((), device=self.comet.backbone.device)
        for (number, chunk), last in zip(self.chunks.items(), current, strict=True):
            self.last[number] = last.requires_grad_()
            part = local_loss(number, last[chunk.text])
            total = total if part is None else total + part
        return total

    def backward(self, total: Tensor, scale: Tensor) -> None:
        if total.requires_grad:
            total.backward(scale)
        rank, layers = self.pipeline.rank, range(len(self.passages))
        messages = _Messages(self.pipeline, rank + 1, rank - 1, self.after, layers)
        gradients = [tensor.grad for tensor in self.last.values()]
        for index in reversed(layers):
            passage = self.passages.pop()
            outputs, after = passage.outputs, passage.after
            if outputs is None or after is None:
                with torch.enable_grad(), self.cast():
                    outputs, after = self._layer(index, passage.hidden, passage.state)
            arrived = messages.receive() or (None, None)
            _walk([*outputs, *after], [*gradients, *arrived])
            messages.send(LayerState(*(_gradient(tensor) for tensor in passage.state)))
            gradients = [tensor.grad for tensor in passage.hidden]
        messages.finish()
        _walk(list(self.embedded.values()), gradients)

    def _layer(self, index: int, hidden: list[Tensor], state: LayerState) -> tuple[list[Tensor], LayerState]:
        outputs = []
        for chunk, tensor in zip(self.chunks.values(), hidden, strict=True):
            out, *after = self.comet.cells[index](chunk, tensor, *state)
            state = LayerState(*after)
            outputs.append(out)
        return outputs, state


class _Messages:
    """A layer's memory, or its gradient, packed into one message to a neighbour; layer after layer.

    Receiving is begun ahead of time, sending is not waited for, so both go on while layers are computed.
    """

    def __init__(self, pipeline: ChunkPipeline, source: int, target: int, like: LayerState, layers: range) -> None:
        """
        Args:
            source, target: ranks in the group; beyond its ends there is nobody.
            like: a state of the shapes and dtypes that arrive.
        """
        self.group, self.like, self.left = pipeline.group, like, len(layers)
        inside = range(pipeline.world)
        self.source = source if source in inside and _size(like) else None
        self.target = target if target in inside else None
        self.awaited: list[tuple[Any, Tensor]] = []
        self.sent: list[tuple[Any, Tensor]] = []
        self._await_more()

    def receive(self) -> LayerState | None:
        """What the neighbour sent for the next layer; None where there is no neighbour."""
        if self.source is None:
            return None
        work, buffer = self.awaited.pop(0)
        work.wait()
        self._await_more()
        return _unpack(buffer, self.like)

    def send(self, state: LayerState) -> None:
        if self.target is None or not _size(state):
            return
        packed = _pack(state)
        self.sent.append((dist.isend(packed, group=self.group, group_dst=self.target), packed))

    def finish(self) -> None:
        """Wait until everything has left."""
        for work, _ in self.sent:
            work.wait()

    def _await_more(self) -> None:
        while self.source is not None and self.left and len(self.awaited) < AHEAD:
            buffer = torch.empty(_size(self.like), dtype=torch.uint8, device=self.like.queue.device)
            self.awaited.append((dist.irecv(buffer, group=self.group, group_src=self.source), buffer))
            self.left -= 1


class _Deferred(torch.autograd.Function):
    """A number whose backward pass is a function of ours."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, backward: Callable[[Tensor], None]) -> Tensor:
        ctx.run = backward
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        ctx.run(gradient)
        return None, None


def _walk(tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Carry gradients back from tensors, leaving out what needs none or got none."""
    pairs = [(t, g) for t, g in zip(tensors, gradients, strict=True) if g is not None and t.requires_grad]
    if pairs:
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _size(state: LayerState) -> int:
    return sum(tensor.nbytes for tensor in state)


def _pack(state: LayerState) -> Tensor:
    """The bytes of both tensors, whatever their dtypes."""
    return torch.cat([tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in state])


def _unpack(buffer: Tensor, like: LayerState) -> LayerState:
    parts = buffer.split([tensor.nbytes for tensor in like])
    # copied, for a part may begin at a byte that its dtype cannot begin at
    return LayerState(
        *(part.clone().view(tensor.dtype).view_as(tensor) for part, tensor in zip(parts, like, strict=True))
    )
