"""What readers of documents have in common as students: how they are asked, and what ends an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laconic.data.problems import Problem, Question
from laconic.errors import DataError
from laconic.generation.answer import Reader
from laconic.methods.tgpo.students import Answer


class QuestionStudent:
    """A reader that is asked about documents; its teacher reads document and question as they are."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._asked: dict[bytes, Question] = {}

    @property
    def decoder(self) -> PreTrainedModel:
        return self.reader.decoder

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.reader.backbone.tokenizer

    @property
    def window(self) -> int:
        return self.reader.window

    def prompt(self, problem: Problem) -> list[int]:
        """Raises ``DataError`` where there is no document."""
        if not isinstance(problem, Question):
            raise DataError(f"The problem {problem.id} is about no document.", "Choose a task of questions.")
        ids = self.reader.backbone.token_ids(problem.document)
        prompt = [*ids, *self.reader.prompt_ids(problem.question)]
        self._asked[key_of(prompt)] = problem
        return prompt

    def given(self, problem: Problem) -> Answer:
        ids = self.reader.backbone.token_ids(" " + problem.answer)
        words = [*ids, int(self.tokenizer.eos_token_id)]
        return Answer(words, [1] * len(words))

    def question_of(self, prompt: Sequence[int]) -> Question:
        """The problem that was asked so."""
        return self._asked[key_of(prompt)]

    def ends(self, token: int) -> bool:
        """Whether a token ends an answer, which is one line."""
        return token in self.reader.stop_ids or self.reader.breaks_line(token)


def key_of(prompt: Sequence[int]) -> bytes:
    return hashlib.blake2b(torch.tensor(prompt).numpy().tobytes()).digest()
