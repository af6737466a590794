"""CoMeT's weights spread over processes by FSDP2, alone or together with the pipeline over chunks.

The unit is a cell, a decoder layer with its memory networks, gathered whole for a chunk (section 4 of the card). With
both, processes form a mesh (pipeline, data): texts are shared along the first, weights along the second, so that no
process waits for weights of a layer that its neighbour has not come to.
"""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from laconic.methods.comet.model import CoMeT
from laconic.train.pipeline import sum_gradients


def shard_cells(comet: CoMeT, mesh: DeviceMesh) -> None:
    """Spread the parameters of every cell over a mesh of one dimension, in place, for training.

    Processes meet at every cell, so all of them must read the same number of chunks in a step, the last of which has
    labels everywhere; otherwise they wait for each other for ever. What a cell trains must be of one dtype.

    Embeddings, head, final norm and soft tokens stay whole in every process: embedding and head are one tensor, which
    two units cannot both hold.
    """
    for cell in comet.cells:
        fully_shard(cell, mesh=mesh)


def average_gradients(comet: CoMeT, mesh: DeviceMesh) -> None:
    """Average over the mesh what FSDP2 does not know of; to be called after ``backward``, by all of its processes."""
    whole = [parameter for parameter in comet.parameters() if not isinstance(parameter, DTensor)]
    sum_gradients(whole, mesh.get_group(), 1 / mesh.size())
