"""Words that a trained classifier keeps (in the manner of LLMLingua-2, arXiv 2403.12968).

Ours reads the question, where there is one, before the text: the same weights say which words a text is worth asking
about, and which words one question needs.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from laconic.backbone import Backbone
from laconic.core import persist
from laconic.core.lora import add_lora
from laconic.core.method import TrainedMethod
from laconic.core.options import Options, option
from laconic.core.segments import Range
from laconic.core.sharing import shared_twin
from laconic.encoder import Encoder, load_encoder
from laconic.errors import AdapterError, LaconicError
from laconic.methods.pruning.checkpoint import Checkpoint
from laconic.methods.pruning.scoring import TokenClassifier, word_scores
from laconic.methods.pruning.words import WordPruner


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Options):
    """Of the word classifier."""

    title: ClassVar[str] = "the word classifier"

    lora_rank: int = option(32, "rank of the LoRA on the encoder")
    row_tokens: int = option(320, "tokens that are read together, the question among them")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank < 1 or self.row_tokens < 16:
            raise LaconicError("lora_rank must be at least 1, row_tokens at least 16.")


class WordClassifier(TrainedMethod):
    """An encoder with LoRA and one number for each token: the log odds that it is kept. A ``TokenClassifier``.

    Attributes:
        backbone: the encoder it stands on, which adapters are saved for.

    Raises:
        LaconicError: ``row_tokens`` is beyond the encoder's window.
    """

    name = "classifier"
    options = ClassifierConfig
    config: ClassifierConfig
    reads_query = True

    def __init__(self, encoder: Encoder, config: ClassifierConfig | None = None) -> None:
        super().__init__()
        self.config = config or ClassifierConfig()
        if self.config.row_tokens > encoder.window:
            raise LaconicError(f"row_tokens is above the window of {encoder.name}, {encoder.window}.", "Lower it.")
        self.backbone: Any = encoder
        self.body = shared_twin(encoder.model)
        add_lora(self.body, self.config.lora_rank, alpha=2 * self.config.lora_rank)
        self.head = nn.Linear(encoder.width, 1)
        self.to(encoder.device)

    def adapted(self) -> list[nn.Module]:
        return [self.body]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer: PreTrainedTokenizerBase = self.backbone.tokenizer
        return tokenizer

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    @property
    def row_tokens(self) -> int:
        return self.config.row_tokens

    def logits(self, ids: Tensor, real: Tensor, part: Tensor) -> Tensor:
        # encoders of BERT's kind know two parts; one without that says its own name for them none
        parts = {"token_type_ids": part} if getattr(self.body.config, "type_vocab_size", 0) > 1 else {}
        hidden = self.body(input_ids=ids, attention_mask=real, **parts).last_hidden_state
        return self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)


def load_classifier(
    folder: str | os.PathLike[str] | None = None, device: str | torch.device | None = None
) -> tuple[TokenClassifier, str]:
    """A saved classifier of ours, or a local checkpoint of LLMLingua-2's kind; None: the one inside this package.

    Returns:
        The classifier, and a digest of what it is.

    Raises:
        AdapterError: there is none, or it is damaged.
        BackboneError: the encoder is missing, or the folder holds no token classifier.
    """
    if folder is not None and not (Path(folder) / persist.DESCRIPTION).is_file():
        checkpoint = Checkpoint.load(folder, device)
        return checkpoint, checkpoint.version
    from laconic.methods.registry import shipped_adapter  # which knows this class by name

    encoder = load_encoder(device=device)
    found = Path(folder) if folder is not None else shipped_adapter(encoder, WordClassifier.name)
    if found is None:
        raise AdapterError(
            "There is no trained word classifier.", "Train one with `laconic train recipes/classifier/cpu.yaml`."
        )
    classifier = WordClassifier.from_pretrained(found, encoder)  # type: ignore[arg-type]
    return classifier.merge(), persist.version(found)


class Classifier(WordPruner):
    """Keeps the words that a token classifier is surest of, with the question in view where there is one.

    Args:
        classifier: what scores tokens, and a digest of it; None: what is shipped.
    """

    query_aware = True

    def __init__(
        self,
        backbone: Backbone,
        protect: Collection[str] = (),
        classifier: tuple[TokenClassifier, str] | None = None,
    ) -> None:
        super().__init__(backbone, protect)
        self.classifier, self.version = classifier or load_classifier(device=backbone.device)
        self.query_aware = self.classifier.reads_query

    def scores(self, text: str, words: Sequence[Range], query: str | None) -> list[float]:
        return word_scores(self.classifier, text, words, query)
