"""Loading what the command line was asked for: what only fails here fails with advice."""

from __future__ import annotations

from laconic.backbone import Backbone, cache_folder, load_backbone
from laconic.errors import BackboneError


def open_backbone(name: str | None, dtype: str, device: str) -> Backbone:
    """``load_backbone`` for names that a person typed.

    Raises:
        BackboneError: also for a device that is unknown or not there, and for a cache that cannot be written.
    """
    try:
        return load_backbone(name, dtype=dtype, device=device)
    except OSError as error:  # errors of reading a model are BackboneErrors already
        raise BackboneError(
            f"The cache {cache_folder()} cannot be written: {error.strerror or error}.",
            "Name a folder you may write to with $LACONIC_CACHE.",
        ) from error
