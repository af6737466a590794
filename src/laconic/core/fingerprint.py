"""What tells two sets of weights apart, quickly however large they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

# of each tensor: enough to tell any two trainings apart
SAMPLES = 4096


def fingerprint(tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> str:
    """A digest of names, shapes and an evenly spaced sample of every tensor, whatever its device.

    Args:
        dtype: floating; the sample is rounded to it, so that values which differ below that do not count.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors):
        flat = tensor.detach().reshape(-1)
        picked = flat[:: max(1, flat.numel() // SAMPLES)].to("cpu", dtype).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(picked.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
