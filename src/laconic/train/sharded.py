"""CoMeT's weights spread over processes by FSDP2, alone or together with the pipeline over chunks.

The unit is a cell, a decoder layer with its memory networks, gathered whole for a chunk. With
both, processes form a mesh (pipeline, data): texts are shared along the first, weights along the second, so that no
process waits for weights of a layer that its neighbour has not come to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from laconic.methods.comet.model import CoMeT
from laconic.train.pipeline import sum_gradients


class Shards:
    """A CoMeT whose cells' parameters are spread over a mesh, in place, for training.

    Processes meet at every cell, so all of them must read the same number of chunks in a step, the last of which has
    labels everywhere; otherwise they wait for each other for ever. What a cell trains must be of one dtype.

    Embeddings, head, final norm and soft tokens stay whole in every process: embedding and head are one tensor, which
    two units cannot both hold.

    Args:
        mesh: of one dimension.
    """

    def __init__(self, comet: CoMeT, mesh: DeviceMesh) -> None:
        self.comet, self.mesh = comet, mesh
        # what is spread is another parameter, and no longer known to be the backbone's
        self._own = list(comet.own_parameters())
        for cell in comet.cells:
            fully_shard(cell, mesh=mesh)

    def average_gradients(self) -> None:
        """Average over the mesh what FSDP2 does not know of; to be called after ``backward``, by all of its
        processes."""
        whole = [parameter for parameter in self.comet.parameters() if not isinstance(parameter, DTensor)]
        sum_gradients(whole, self.mesh.get_group(), 1 / self.mesh.size())

    @torch.no_grad()
    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """As ``CoMeT.save_pretrained``, to be loaded by it. All processes take part, and the very first one writes.

        Where it cannot, that one raises ``AdapterError``.
        """
        parameters = dict(self.comet.named_parameters())
        gathered = {}
        for name in self._own:
            parameter = parameters[name]
            # parameters are put together one after the other, and of most processes none is kept
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if dist.get_rank() == 0:
                gathered[name] = whole.cpu()
        if gathered:
            self.comet.save_tensors(folder, gathered, dtype=dtype, provenance=provenance)
