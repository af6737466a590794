"""Gates of a CoMeT that are told what to do, chunk by chunk, instead of deciding themselves.

What is known of text with needles: in which chunks something is hidden, which a memory should take in, while it keeps
what it has at all others. Told so, a memory is what it would be behind perfect gates, over any distance. What the gates
would have done themselves is heard too, and can be taught.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from laconic.methods.comet.model import CoMeT

#: a logit at which a gate is open or shut altogether
CERTAIN = 30.0
#: logits that a gate is to pass. One that keeps has over two thousand chunks of a million tokens to last: at 9, of each
#: slot 78 % is left behind them. At pages it was not taught by it falls short of what it learnt, by six and more
KEEP, TAKE = 15.0, -3.0


def lesson(logits: Tensor, hides: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The mean loss of all gates at all chunks, of which far more should keep than take in.

    So a gate would rather miss part of a fact than open a little at text that looks like one: what it takes in replaces
    what is held for good, and over a thousand chunks little adds up. With the two kinds weighed alike, pages with other
    numbers in them opened gates a little.

    Args:
        logits: of gates, [G, N, m, 1], at N chunks of some text.
        hides: bool [N], whether something was hidden in the chunk.

    Returns:
        The loss, 0 where there are no chunks; the mean part of a slot that is kept where all should be, and taken in
        where all should be.
    """
    keeping, taking = logits[:, ~hides], logits[:, hides]
    numbers = {}
    if keeping.numel():
        numbers["kept"] = torch.sigmoid(keeping).mean().item()
    if taking.numel():
        numbers["taken"] = torch.sigmoid(-taking).mean().item()
    losses = torch.cat([softplus(KEEP - keeping).flatten(), softplus(taking - TAKE).flatten()])
    return losses.sum() / max(losses.numel(), 1), numbers


class ToldGates:
    """The gates of the upper layers, where facts are held (``benchmarks/results/comet_fading.json``).

    Below, gates are left to what running text asks of them.

    Args:
        layers: how many of the upper layers.

    Attributes:
        asked: what each gate was asked about since it was last told, [B, m, 2D].
        answers: what each would have said to that, [B, m, 1].
    """

    def __init__(self, comet: CoMeT, layers: int) -> None:
        gates = [cell.nets.gate for cell in comet.cells[len(comet.cells) - layers :]]
        self.gates = [gate for gate in gates if gate is not None]
        self.device = comet.backbone.device
        self.asked: list[Tensor] = []
        self.answers: list[Tensor] = []
        self._told = self._known = torch.zeros(0)

    def tell(self, hides: Sequence[bool], known: Sequence[bool]) -> None:
        """What to do at the next chunk of each row.

        Args:
            hides: take the chunk in, and forget what was there; else keep it.
            known: rows of which that is known; the gates answer for others themselves.
        """
        told = torch.tensor(hides, device=self.device)
        self._told = torch.where(told, -CERTAIN, CERTAIN)[:, None, None]
        self._known = torch.tensor(known, device=self.device)[:, None, None]
        self._forget()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within, the gates do as they are told."""
        with ExitStack() as stack:
            stack.callback(self._forget)
            for gate in self.gates:
                stack.callback(gate.register_forward_hook(self._answer).remove)
            yield

    def _forget(self) -> None:
        self.asked.clear()
        self.answers.clear()

    def _answer(self, gate: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        self.asked.append(inputs[0])
        self.answers.append(output)
        return torch.where(self._known, self._told, output)
