"""Answering a question from a compressed context: one reader for every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from laconic.backbone import Backbone, text_ends
from laconic.core.preallocated import preallocated_cache
from laconic.core.results import Answer, Compressed, Stopwatch, added
from laconic.core.segments import require_question
from laconic.errors import BudgetError
from laconic.generation.greedy import greedy_decode
from laconic.generation.prefill import prefill

# readers are trained on exactly this (RAM, section 2.6, with a blank line between context and question)
QUESTION_TEMPLATE = "\n\nQuestion: {question}\nAnswer:"
# tokens of question and answer that a read document has room for before its cache must move
ROOM = 256


@dataclass
class Reader:
    """A decoder that answers from whatever a method left of a document.

    Attributes:
        backbone: gives tokenizer and window.
        model: the decoder that reads: the backbone's own, or an adapted twin.
        template: what follows the context, with ``{question}`` in it.
        unbounded: whether context, question and answer may be of any length.
    """

    unbounded: ClassVar[bool] = False

    backbone: Backbone
    model: PreTrainedModel | None = None
    template: str = QUESTION_TEMPLATE

    def __post_init__(self) -> None:
        self.decoder: PreTrainedModel = self.model if self.model is not None else self.backbone.model
        self.embed = self.decoder.get_input_embeddings()
        self.stop_ids = frozenset(text_ends(self.decoder, self.backbone.tokenizer))

    @property
    def window(self) -> int:
        return self.backbone.window

    def prompt_ids(self, question: str) -> list[int]:
        return self.backbone.token_ids(self.template.format(question=require_question(question).strip()))

    def prompt_tokens(self, question: str) -> int:
        """Tokens the question takes with its template."""
        return len(self.prompt_ids(question))

    @torch.inference_mode()
    def read(self, compressed: Compressed) -> Compressed:
        """Prefill a context once, so that many questions can be asked of it; one already read is returned as it is.

        Raises:
            BudgetError: it does not fit the window.
        """
        if compressed.already_read:
            return compressed
        rows = self.rows(compressed)
        self._check(len(rows), 0, 0)
        # told nothing of sliding windows, it keeps every key and can be cropped; the masks hide what they must
        cache = preallocated_cache(len(rows) + ROOM)
        watch = Stopwatch(self.backbone.device)
        with watch("read"):
            prefill(self.decoder, rows[None], cache)
        seconds = added(compressed.seconds, watch.seconds)
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
        if any(context.already_read for context in compressed):
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
        if not compressed and not questions:
            return []
        prompts = [self.prompt_ids(question) for question in questions]
        asked = [self.embed(torch.tensor(ids, device=self.backbone.device)) for ids in prompts]
        cache, position = compressed[0].cache, compressed[0].next_position or 0
        if cache is not None:
            # an evicted cache is short, yet the question stands where the document ended
            rows, lengths = asked, [position]
        else:
            contexts = [self.rows(context) for context in compressed]
            lengths = [len(context) for context in contexts]
            rows = [torch.cat([context, own]) for context, own in zip(contexts, asked, strict=True)]
        for length, prompt in zip(lengths, prompts, strict=True):
            self._check(length, len(prompt), max_new_tokens)
        logical = cache.get_seq_length() if cache is not None else 0
        stream = self.stream_text(on_text)
        watch = Stopwatch(self.backbone.device)
        try:
            produced = greedy_decode(
                self.decoder,
                rows,
                max_new_tokens=max_new_tokens,
                stop_ids=self.stop_ids,
                cache=cache,
                next_position=position,
                ends=self.breaks_line,
                watch=watch,
                on_token=lambda row, token: stream.push(token) if row == 0 else None,
            )
        finally:
            if cache is not None and cache.get_seq_length() > logical:  # as it was, for the next question
                cache.crop(logical - cache.get_seq_length())
        stream.close()
        share = {stage: seconds / len(rows) for stage, seconds in watch.seconds.items()}
        return [
            Answer(
                text=answer_line(self.backbone, new.ids),
                context=context,
                prompt_tokens=len(prompt),
                generated_tokens=len(new.ids),
                peak_cache_tokens=new.peak_cache_tokens,
                peak_cache_bytes=new.peak_cache_bytes,
                seconds=dict(share),
            )
            for context, prompt, new in zip(compressed, prompts, produced, strict=True)
        ]

    def stream_text(self, on_text: Callable[[str], None] | None) -> TextStream:
        """What turns the tokens of an answer into text as they come."""
        return TextStream(self.backbone, on_text)

    def breaks_line(self, token: int) -> bool:
        """Whether a token ends an answer, which is one line.

        Vocabularies have many tokens with a line break in them, some with text before it.
        """
        return "\n" in self.backbone.tokenizer.decode([token])

    def rows(self, compressed: Compressed) -> torch.Tensor:
        """The context's embeddings [M, D]."""
        if compressed.embeddings is not None:
            return compressed.embeddings
        assert compressed.text is not None, "this context has been read already"
        ids = torch.tensor(self.backbone.token_ids(compressed.text), dtype=torch.long, device=self.backbone.device)
        return self.embed(ids)

    def _check(self, context: int, prompt: int, new: int) -> None:
        if context + prompt + new > self.window:
            raise BudgetError(
                f"A context of {context} tokens, {prompt} for the question and {new} for the answer exceed the window "
                f"of {self.window}.",
                "Raise --factor, lower --max-new-tokens or shorten the document.",
            )


def answer_line(backbone: Backbone, ids: Sequence[int]) -> str:
    """The answer in these tokens: the first line, without white space around it."""
    return backbone.tokenizer.decode(ids, skip_special_tokens=True).partition("\n")[0].strip()


class TextStream:
    """Turns tokens into text as they come; a character cut over two tokens waits for its rest."""

    def __init__(self, backbone: Backbone, on_text: Callable[[str], None] | None) -> None:
        self.backbone, self.on_text = backbone, on_text
        self.ids: list[int] = []
        self.shown = ""

    def push(self, token: int) -> None:
        if self.on_text is None:
            return
        self.ids.append(token)
        text = answer_line(self.backbone, self.ids)
        if not text.endswith("\ufffd"):
            self._show(text)

    def close(self) -> None:
        if self.on_text is not None and self.ids:
            self._show(answer_line(self.backbone, self.ids))

    def _show(self, text: str) -> None:
        assert self.on_text is not None
        piece = text[len(self.shown) :]
        if piece:
            self.on_text(piece)
        self.shown = text


__all__ = ["QUESTION_TEMPLATE", "Reader"]
