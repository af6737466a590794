"""A trained method: modules of its own on a backbone that is not its own."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from laconic.backbone import Backbone
from laconic.core import persist
from laconic.core.fingerprint import fingerprint
from laconic.core.lora import merge_lora
from laconic.core.options import Options
from laconic.errors import AdapterError, LaconicError


class TrainedMethod(nn.Module):
    """Base of methods that are saved apart from their backbone.

    Attributes:
        name: the method's name in saved folders.
        options: the class of its configuration.
        goes_on_from: other methods whose saved weights its training can begin with.
        version: digest of the saved weights and settings it was loaded from; empty for one that was not, or has been
            trained since.
    """

    name: ClassVar[str]
    options: ClassVar[type[Options]]
    goes_on_from: ClassVar[tuple[str, ...]] = ()
    config: Options
    backbone: Backbone

    def __init__(self) -> None:
        super().__init__()
        self._merged = False
        self._loaded: tuple[str, str] | None = None

    @property
    def version(self) -> str:
        return self._loaded[0] if self._loaded is not None and self._loaded[1] == self._fingerprint() else ""

    @property
    def identity(self) -> str:
        """The version; of weights that were never saved, or changed since, a fingerprint."""
        return self.version or self._fingerprint()

    def _loaded_as(self, version: str) -> None:
        self._loaded = (version, self._fingerprint())

    def _fingerprint(self) -> str:
        return fingerprint(self.own_parameters().items(), torch.float32)

    def check_start(self, config: Mapping[str, Any], weights: Collection[str]) -> None:
        """Raise ``AdapterError`` for a saved method that training cannot go on from.

        Args:
            config: how it was configured.
            weights: names of its weights.
        """

    def adapted(self) -> list[nn.Module]:
        """The bodies that may carry LoRA."""
        raise NotImplementedError

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that are not the backbone's, by name."""
        return persist.own_parameters(self, self.backbone)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Save config, own parameters (cast to ``dtype``, as shipped adapters are) and a pointer to the backbone.

        Raises:
            AdapterError: the folder cannot be written, or LoRA has been merged away.
        """
        self.save_tensors(folder, self.own_parameters(), dtype=dtype, provenance=provenance)

    def save_tensors(
        self,
        folder: str | os.PathLike[str],
        tensors: Mapping[str, torch.Tensor],
        *,
        dtype: torch.dtype | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """As ``save_pretrained``, with other values for the own parameters."""
        if self._merged:
            raise AdapterError(f"A merged {self.options.title} has no adapter left to save.", "Save it before merge().")
        persist.save_method(
            folder,
            method=self.name,
            config=self.config.to_dict(),
            tensors={name: tensor if dtype is None else tensor.to(dtype) for name, tensor in tensors.items()},
            backbone=self.backbone,
            provenance=provenance,
            beside=self.beside(),
        )

    def beside(self) -> dict[str, str]:
        """What is saved beside the weights: the text of files, by name."""
        return {}

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], backbone: Backbone) -> Self:
        """Load a saved method onto the backbone it was made for; ``merge()`` it for quicker inference.

        Raises:
            AdapterError: missing, damaged, of another method, or made for another backbone.
        """
        description = persist.read_description(folder)
        persist.check_method(description, cls.name, folder)
        persist.check_backbone(description, backbone, folder)
        try:
            config = cls.options.from_dict(description["config"])
        except LaconicError as error:
            raise AdapterError(f"The description in {folder} is damaged: {error}", "Fetch it again.") from error
        method = cls(backbone, config)  # type: ignore[call-arg]
        persist.load_into(method, persist.read_tensors(Path(folder)), backbone, folder)
        method._loaded_as(persist.version(folder))
        return method

    def merge(self) -> Self:
        """Fold LoRA into weights of its own (more memory, fewer and larger matrix products). Returns self."""
        version = self.version
        for body in self.adapted():
            merge_lora(body)
        self._merged = True
        if version:
            self._loaded_as(version)
        return self.eval()
