"""Gates of a CoMeT that are told what to do, chunk by chunk, instead of deciding themselves.

What is known of text with needles: in which chunks something is hidden, which a memory should take in, while it keeps
what it has at all others. Told so, a memory is what it would be behind perfect gates, over any distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from laconic.methods.comet.model import CoMeT

#: a logit at which a gate is open or shut altogether
CERTAIN = 30.0


class ToldGates:
    """The gates of the upper layers, where facts are held (``benchmarks/results/comet_fading.json``).

    Below, gates are left to what running text asks of them.

    Args:
        layers: how many of the upper layers.

    Attributes:
        asked: what each gate was asked about since it was last told, [B, m, 2D].
    """

    def __init__(self, comet: CoMeT, layers: int) -> None:
        gates = [cell.nets.gate for cell in comet.cells[len(comet.cells) - layers :]]
        self.gates = [gate for gate in gates if gate is not None]
        self.device = comet.backbone.device
        self.asked: list[Tensor] = []
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
        self.asked.clear()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within, the gates do as they are told."""
        with ExitStack() as stack:
            for gate in self.gates:
                stack.callback(gate.register_forward_hook(self._answer).remove)
            yield
        self.asked.clear()

    def _answer(self, gate: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        self.asked.append(inputs[0])
        return torch.where(self._known, self._told, output)
