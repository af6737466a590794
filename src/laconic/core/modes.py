"""Modes that torch keeps for each thread and each moment, to be taken along to another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch


def autocast_here(device: torch.device) -> Callable[[], torch.autocast]:
    """Makes contexts, on any thread and at any time, in which computing on ``device`` casts as it does here and now."""
    kind = device.type
    return partial(torch.autocast, kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))


def no_autocast(device: torch.device) -> torch.autocast:
    """A context in which computing on ``device`` keeps to the dtypes that tensors have, whatever is cast around it."""
    return torch.autocast(device.type, enabled=False)
