"""Answering a question from a compressed context: one reader for every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache, PreTrainedModel

from laconic.backbone import Backbone
from laconic.core.results import Answer, Compressed
from laconic.core.segments import require_question
from laconic.errors import BudgetError
from laconic.generation.greedy import greedy_decode

# readers are trained on exactly this (RAM, section 2.6, with a blank line between context and question)
QUESTION_TEMPLATE = "\n\nQuestion: {question}\nAnswer:"
READ_CHUNK = 1024


@dataclass
class Reader:
    """A decoder that answers from whatever a method left of a document.

    Attributes:
        backbone: gives tokenizer and window.
        model: the decoder that reads: the backbone's own, or an adapted twin.
    """

    backbone: Backbone
    model: PreTrainedModel | None = None

    def __post_init__(self) -> None:
        self.decoder: PreTrainedModel = self.model if self.model is not None else self.backbone.model
        self.embed = self.decoder.get_input_embeddings()
        # an answer is one line
        tokenizer = self.backbone.tokenizer
        breaks = [self.backbone.token_ids(text)[-1] for text in ("\n", "\n\n")]
        self.stop_ids = frozenset({tokenizer.eos_token_id, *breaks})

    @property
    def window(self) -> int:
        return self.backbone.window

    def prompt_ids(self, question: str) -> list[int]:
        return self.backbone.token_ids(QUESTION_TEMPLATE.format(question=require_question(question).strip()))

    def prompt_tokens(self, question: str) -> int:
        """Tokens the question takes with its template."""
        return len(self.prompt_ids(question))

    @torch.inference_mode()
    def read(self, compressed: Compressed) -> Compressed:
        """Prefill a context once, so that many questions can be asked of it.

        Raises:
            BudgetError: it does not fit the window.
        """
        rows = self._rows(compressed)
        self._check(len(rows), 0, 0)
        # told nothing of sliding windows, it keeps every key and can be cropped; the masks hide what they must
        cache = DynamicCache()
        start = time.perf_counter()
        for begin in range(0, len(rows), READ_CHUNK):
            piece = rows[None, begin : begin + READ_CHUNK]
            self.decoder(inputs_embeds=piece, past_key_values=cache, use_cache=True, logits_to_keep=1)
        seconds = compressed.seconds | {"read": time.perf_counter() - start}
        return replace(compressed, text=None, embeddings=None, cache=cache, next_position=len(rows), seconds=seconds)

    def answer(
        self,
        compressed: Compressed,
        question: str,
        max_new_tokens: int = 64,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer one question; ``on_text`` receives the answer piece by piece.

        Raises:
            QuestionError: the question is empty.
            BudgetError: context, question and answer do not fit the window together.
        """
        return self._answer([compressed], [question], max_new_tokens, on_text)[0]

    def answer_batch(
        self, compressed: Sequence[Compressed], questions: Sequence[str], max_new_tokens: int = 64
    ) -> list[Answer]:
        """Answer many questions; contexts already read are answered one after the other. Errors as ``answer``."""
        if any(context.cache is not None for context in compressed):
            return [self.answer(c, q, max_new_tokens) for c, q in zip(compressed, questions, strict=True)]
        return self._answer(compressed, questions, max_new_tokens, None)

    @torch.inference_mode()
    def _answer(
        self,
        compressed: Sequence[Compressed],
        questions: Sequence[str],
        max_new_tokens: int,
        on_text: Callable[[str], None] | None,
    ) -> list[Answer]:
        prompts = [self.prompt_ids(question) for question in questions]
        asked = [self.embed(torch.tensor(ids, device=self.backbone.device)) for ids in prompts]
        cache, position = compressed[0].cache, compressed[0].next_position or 0
        if cache is not None:
            rows, lengths = asked, [getattr(cache, "physical_length", cache.get_seq_length())]
        else:
            contexts = [self._rows(context) for context in compressed]
            lengths = [len(context) for context in contexts]
            rows = [torch.cat([context, own]) for context, own in zip(contexts, asked, strict=True)]
        for length, prompt in zip(lengths, prompts, strict=True):
            self._check(length, len(prompt), max_new_tokens)
        logical = cache.get_seq_length() if cache is not None else 0
        stream = _Stream(self.backbone, on_text)
        start = time.perf_counter()
        marks: list[float] = []
        produced = greedy_decode(
            self.decoder,
            rows,
            max_new_tokens=max_new_tokens,
            stop_ids=self.stop_ids,
            cache=cache,
            next_position=position,
            on_prefilled=lambda: marks.append(time.perf_counter()),
            on_token=lambda row, token: stream.push(token) if row == 0 else None,
        )
        end = time.perf_counter()
        stream.close()
        if cache is not None and cache.get_seq_length() > logical:  # as it was, for the next question
            cache.crop(logical - cache.get_seq_length())
        share = len(rows)
        answers = []
        for context, length, prompt, new in zip(compressed, lengths, prompts, produced, strict=True):
            # the last token is never fed back, so it takes no place
            peak = length + len(prompt) + max(0, len(new) - 1)
            answers.append(
                Answer(
                    text=self.backbone.tokenizer.decode(new, skip_special_tokens=True).strip(),
                    context=context,
                    prompt_tokens=len(prompt),
                    generated_tokens=len(new),
                    peak_cache_tokens=peak,
                    peak_cache_bytes=peak * self._bytes_per_token(),
                    seconds={"prefill": (marks[0] - start) / share, "decode": (end - marks[0]) / share},
                )
            )
        return answers

    def _rows(self, compressed: Compressed) -> torch.Tensor:
        """The context's embeddings [M, D]."""
        if compressed.embeddings is not None:
            return compressed.embeddings
        assert compressed.text is not None, "this context has been read already"
        ids = torch.tensor(self.backbone.token_ids(compressed.text), dtype=torch.long, device=self.backbone.device)
        return self.embed(ids)

    def _check(self, context: int, prompt: int, new: int) -> None:
        if context + prompt + new > self.window:
            raise BudgetError(
                f"{context} context tokens, {prompt} for the question and {new} for the answer exceed the window of "
                f"{self.window}.",
                "Raise --factor or lower --max-new-tokens.",
            )

    def _bytes_per_token(self) -> int:
        config = self.decoder.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * heads * head_dim * self.backbone.dtype.itemsize


class _Stream:
    """Turns tokens into text as they come; a character cut over two tokens waits for its rest."""

    def __init__(self, backbone: Backbone, on_text: Callable[[str], None] | None) -> None:
        self.backbone, self.on_text = backbone, on_text
        self.ids: list[int] = []
        self.shown = ""

    def push(self, token: int) -> None:
        if self.on_text is None:
            return
        self.ids.append(token)
        text = self.backbone.tokenizer.decode(self.ids, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            self._show(text)

    def close(self) -> None:
        if self.on_text is not None and self.ids:
            self._show(self.backbone.tokenizer.decode(self.ids, skip_special_tokens=True))

    def _show(self, text: str) -> None:
        assert self.on_text is not None
        piece = text[len(self.shown) :]
        if piece:
            self.on_text(piece if self.shown else piece.lstrip())
        self.shown = text


__all__ = ["QUESTION_TEMPLATE", "Reader"]
