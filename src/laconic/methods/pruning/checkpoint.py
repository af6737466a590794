"""A local checkpoint of LLMLingua-2 (arXiv 2403.12968), or of any token classifier with two labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForTokenClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from laconic.backbone import resolve_device
from laconic.core.compat import quiet_loading
from laconic.core.fingerprint import fingerprint
from laconic.core.segments import Range
from laconic.encoder import Encoder
from laconic.errors import BackboneError
from laconic.methods.pruning.scoring import read_rows, rows_of


@dataclass
class Checkpoint:
    """Keeps a token where the second of two labels is the likelier one. A ``TokenClassifier``; reads no question."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    row_tokens: int
    reads_query: bool = False

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str | torch.device | None = None) -> Checkpoint:
        """Load a folder saved by transformers.

        Raises:
            BackboneError: it is missing, damaged, or no classifier of tokens with two labels.
        """
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise BackboneError(f"{folder} is no saved classifier: it has no config.json.", "Check the folder.")
        try:
            with quiet_loading():
                model, loaded = AutoModelForTokenClassification.from_pretrained(
                    path, dtype=torch.float32, output_loading_info=True
                )
                tokenizer = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise BackboneError(f"{folder} cannot be loaded: {reason}", "Fetch it again.") from error
        if loaded["missing_keys"]:  # of any encoder a classifier can be made, with a head of noise
            raise BackboneError(f"{folder} holds no trained classifier of tokens.", "Name another checkpoint.")
        if model.config.num_labels != 2:
            raise BackboneError(
                f"{folder} has {model.config.num_labels} labels; keep or drop are two.", "Name another checkpoint."
            )
        window = Encoder(model, tokenizer, str(folder)).window
        return cls(model.to(resolve_device(device)).eval(), tokenizer, min(window, 512))

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def version(self) -> str:
        return fingerprint(self.model.named_parameters(), torch.bfloat16)

    @torch.inference_mode()
    def token_scores(self, text: str, query: str | None) -> tuple[list[float], list[Range]]:
        rows = rows_of(self.tokenizer, text, self.row_tokens)

        def kept(ids: Tensor, real: Tensor) -> Tensor:
            return self.model(input_ids=ids, attention_mask=real).logits.softmax(-1)[..., 1]

        found = read_rows(rows, self.tokenizer.pad_token_id or 0, self.device, kept)
        return torch.cat(found).tolist() if found else [], [span for row in rows for span in row.offsets]
