"""Words that a trained classifier keeps (in the manner of LLMLingua-2, arXiv 2403.12968).

Ours knows the question, where there is one: the same reading of a text says which of its words are worth asking about,
and which one question needs. A text is read once for all ratios and all questions.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from laconic.backbone import Backbone, resolve_dtype
from laconic.core import persist
from laconic.core.lora import add_lora
from laconic.core.method import TrainedMethod
from laconic.core.options import Options, option
from laconic.core.segments import Range, require_question
from laconic.core.sharing import shared_twin, unshared
from laconic.encoder import Encoder, load_encoder
from laconic.errors import AdapterError, LaconicError, QuestionError
from laconic.methods.pruning.checkpoint import Checkpoint
from laconic.methods.pruning.relevance import CENTRE, SIGNS, SPREAD, START, sentence_numbers, signs
from laconic.methods.pruning.scoring import Row, TokenClassifier, read_rows, rows_of, word_scores
from laconic.methods.pruning.summary import summary
from laconic.methods.pruning.words import WordPruner


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(Options):
    """Of the word classifier."""

    title: ClassVar[str] = "the word classifier"

    lora_rank: int = option(16, "rank of the LoRA on the encoder")
    row_tokens: int = option(256, "tokens that are read together")
    hidden: int = option(16, "width of what weighs the signs of relevance")

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.lora_rank, self.hidden) < 1 or self.row_tokens < 16:
            raise LaconicError("lora_rank and hidden must be at least 1, row_tokens at least 16.")


@dataclass(frozen=True)
class ReadText:
    """A text the encoder has been through, for any question.

    Attributes:
        hidden: last states of its tokens, ``[T, D]``.
        ids: of its tokens.
        sentence: number of the sentence each token is in, int64 ``[T]``, rising.
    """

    hidden: Tensor
    ids: list[int]
    sentence: Tensor


class Weighed(nn.Module):
    """From signs of relevance ``[..., SIGNS]`` to one number ``[..., 1]``.

    It begins as the sum of those signs that tell most in a general encoder, so that little is left to learn.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sum = nn.Linear(SIGNS, 1)
        last = nn.Linear(width, 1)
        self.rest = nn.Sequential(nn.Linear(SIGNS, width), nn.GELU(), last)
        with torch.no_grad():
            self.sum.weight.copy_(torch.tensor([START]))
            self.sum.bias.fill_(-2.0)  # few sentences answer
            last.weight.zero_()

    def forward(self, told: Tensor) -> Tensor:
        even = (told - told.new_tensor(CENTRE)) / told.new_tensor(SPREAD)
        return self.sum(even) + self.rest(even)


class WordClassifier(TrainedMethod):
    """An encoder with LoRA that reads a text once, and a score for each token, for any question or for none.

    Without a question a token's score follows from its state. With one, signs of relevance are weighed beside it
    (``relevance.signs``): how near the sentence and its neighbours are to the question, by their states and by the
    words they share. A ``TokenClassifier``; not safe for threads, the text read last is remembered.

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
        self.alone = nn.Linear(encoder.width, 1)
        self.asked = nn.Linear(encoder.width, 1)
        self.weigh = Weighed(self.config.hidden)
        self._last: tuple[str, ReadText, list[Range]] | None = None
        self.to(encoder.device)

    def adapted(self) -> list[nn.Module]:
        return [self.body]

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], backbone: Any) -> Self:
        return super().from_pretrained(folder, backbone).float()  # it may be saved in bfloat16

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer: PreTrainedTokenizerBase = self.backbone.tokenizer
        return tokenizer

    @property
    def device(self) -> torch.device:
        return self.alone.weight.device

    def read(self, texts: Sequence[str], *, first_rows: bool = False) -> list[tuple[ReadText, list[Range]]]:
        """Read texts side by side; each with the character spans of its tokens.

        Args:
            first_rows: of each text its first row alone.
        """
        by_text = [rows_of(self.tokenizer, text, self.config.row_tokens) for text in texts]
        if first_rows:
            by_text = [rows[:1] for rows in by_text]
        hidden = iter(self._hidden([row for rows in by_text for row in rows]))
        found = []
        for text, rows in zip(texts, by_text, strict=True):
            states = [next(hidden) for _ in rows]
            offsets = [span for row in rows for span in row.offsets]
            ids = [token for row in rows for token in row.ids[1:-1]]
            sentence = torch.tensor(sentence_numbers(text, offsets), device=self.device)
            nothing = torch.zeros(0, self.backbone.width, device=self.device)  # an encoder may drop every character
            found.append((ReadText(torch.cat([nothing, *states]), ids, sentence), offsets))
        return found

    def read_query(self, queries: Sequence[str]) -> list[ReadText]:
        """Read questions side by side.

        Raises:
            QuestionError: the encoder knows no character of one, or it is longer than a row.
        """
        all_rows = [rows_of(self.tokenizer, query, self.config.row_tokens) for query in queries]
        for rows in all_rows:
            if not rows:
                raise QuestionError("The question has no character that the classifier knows.", "Ask in words.")
            if len(rows) > 1:
                tokens, most = sum(len(row.ids) - 2 for row in rows), self.config.row_tokens - 2
                raise QuestionError(
                    f"A question of {tokens} tokens is more than the classifier reads, {most}.", "Ask a shorter one."
                )
        rows = [own[0] for own in all_rows]
        states = self._hidden(rows)
        numbers = [torch.zeros(len(row.offsets), dtype=torch.long, device=self.device) for row in rows]
        return [ReadText(h, row.ids[1:-1], n) for h, row, n in zip(states, rows, numbers, strict=True)]

    def logits(self, text: ReadText, query: ReadText | None) -> Tensor:
        """Log odds that each token of a text is kept, ``[T]``."""
        if query is None:
            return self.alone(text.hidden).squeeze(-1)
        told = signs(text.hidden, text.sentence, text.ids, query.hidden, query.ids)
        return (self.asked(text.hidden) + self.weigh(told)).squeeze(-1)

    def _hidden(self, rows: Sequence[Row]) -> list[Tensor]:
        def forward(ids: Tensor, real: Tensor) -> Tensor:
            hidden: Tensor = self.body(input_ids=ids, attention_mask=real).last_hidden_state
            return hidden.float()

        return read_rows(rows, self.tokenizer.pad_token_id or 0, self.device, forward)

    @torch.inference_mode()
    def token_scores(self, text: str, query: str | None) -> tuple[list[float], list[Range]]:
        if self._last is None or self._last[0] != text:
            self._last = (text, *self.read([text])[0])
        _, read, offsets = self._last
        if not offsets:
            return [], []
        question = None if query is None else self.read_query([require_question(query)])[0]
        return self.logits(read, question).sigmoid().tolist(), offsets


def load_classifier(
    folder: str | os.PathLike[str] | None = None, device: str | torch.device | None = None
) -> tuple[TokenClassifier, str]:
    """A saved classifier of ours, or a local checkpoint of LLMLingua-2's kind; None: the one inside this package.

    The encoder of ours reads in bfloat16 where the device multiplies it in hardware, at a third of the time.

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
    classifier = WordClassifier.from_pretrained(found, encoder).merge()
    # reading takes nearly all of the time; what is made of the states stays float32
    unshared(classifier.body).to(resolve_dtype(None, encoder.device))
    classifier._loaded_as(persist.version(found))
    return classifier, persist.version(found)


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

    def features(self, context: str, query: str | None = None) -> list[float]:
        return summary(*self._scored(context, query if self.query_aware else None))
