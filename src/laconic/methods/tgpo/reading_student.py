"""Methods that shorten a document as students: they answer from what is left of it, and their teacher reads all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from laconic.data.problems import Question
from laconic.generation.answer import Reader
from laconic.methods.roles import Compressor
from laconic.methods.tgpo.question_student import QuestionStudent, key_of
from laconic.methods.tgpo.students import Answer, Fed

#: shortened documents that are kept; others are shortened anew
KEPT = 256


class ReadingStudent(QuestionStudent):
    """A reader that answers from what a compressor (RAM, or one that selects text) leaves of a document.

    What is trained is the reader; the compressor stays as it is.

    Args:
        factor: how strongly documents are shortened.
    """

    feeds_cache = False

    def __init__(self, reader: Reader, compressor: Compressor, factor: float) -> None:
        super().__init__(reader)
        self.compressor, self.factor = compressor, factor
        self._left: OrderedDict[bytes, Tensor] = OrderedDict()

    @property
    def soft(self) -> list[nn.Module]:
        return []

    @torch.no_grad()
    def answers(self, prompts: Sequence[list[int]], *, most: int, temperature: float, seed: int) -> list[Answer]:
        rows = [self._before(prompt) for prompt in prompts]
        longest = max(map(len, rows))
        embedded = torch.stack([nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        sizes = torch.tensor([len(row) for row in rows], device=embedded.device)
        mask = (torch.arange(longest, device=embedded.device) >= longest - sizes[:, None]).long()
        chance = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        with torch.random.fork_rng(devices=[embedded.device] if embedded.is_cuda else []):
            torch.manual_seed(seed)
            made = self.decoder.generate(
                inputs_embeds=embedded,
                attention_mask=mask,
                max_new_tokens=most,
                eos_token_id=sorted(self.reader.stop_ids),
                pad_token_id=self.tokenizer.pad_token_id or 0,
                repetition_penalty=1.0,
                stopping_criteria=StoppingCriteriaList([_LineBreak(self.reader)]),
                **(chance if temperature > 0 else {"do_sample": False}),
            )
        answers = []
        for row, held in zip(made.tolist(), sizes.tolist(), strict=True):
            ends = (at for at, token in enumerate(row) if self.ends(token))
            words = row[: next(ends, len(row)) + 1]
            answers.append(Answer(words, [1] * len(words), held + len(words)))
        return answers

    def fed(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Fed:
        before = [self._before(own[mask.bool()].tolist()) for own, mask in zip(prompt, prompt_mask, strict=True)]
        spoken = self.reader.embed(answer)
        rows = [
            torch.cat([row, said[mask.bool()]]) for row, said, mask in zip(before, spoken, answer_mask, strict=True)
        ]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        starts = torch.tensor([len(row) - 1 for row in before], device=padded.device)
        speakers = (starts[:, None] + torch.arange(answer.shape[1], device=padded.device)) * answer_mask
        # padding stands behind all that is real: a decoder reads only backwards, and needs no mask for it
        places = torch.arange(padded.shape[1], device=padded.device).expand(len(rows), -1)
        return Fed({"inputs_embeds": padded, "position_ids": places}, speakers)

    def _before(self, prompt: Sequence[int]) -> Tensor:
        """What the reader has in front of its answer, ``[M + Q, D]``."""
        key = key_of(prompt)
        if key not in self._left:
            self._left[key] = self._left_of(self.question_of(prompt))
            if len(self._left) > KEPT:
                self._left.popitem(last=False)
        self._left.move_to_end(key)
        return self._left[key]

    def _left_of(self, problem: Question) -> Tensor:
        found = self.compressor.compress(problem.document, problem.question, ratio=1 / self.factor)
        context = self.reader.rows(found).detach().clone()  # made under inference mode, and read in training
        asked = torch.tensor(self.reader.prompt_ids(problem.question), device=context.device)
        return torch.cat([context, self.reader.embed(asked).detach()])


class _LineBreak(StoppingCriteria):
    """An answer is one line."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        return torch.tensor([self.reader.breaks_line(int(row[-1])) for row in input_ids], device=input_ids.device)
