"""CoMeT as a student: it answers from what its memory kept of a document, and its teacher reads all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from laconic.core.layout import Kind
from laconic.data.problems import Problem
from laconic.errors import BudgetError
from laconic.generation.greedy import best, continue_one_by_one
from laconic.methods.comet.chunks import columns_of
from laconic.methods.comet.memory import Memory
from laconic.methods.comet.reader import CoMeTReader
from laconic.methods.comet.stream import ChunkStream
from laconic.methods.tgpo.question_student import QuestionStudent
from laconic.methods.tgpo.students import Answer, Fed


@dataclass(frozen=True)
class Plan:
    """How a prompt is read.

    Attributes:
        closed: token ids of the chunks that go into the memory.
        open: those of the chunk that the answer is said in: the document's last, if there is room, and the question.
    """

    closed: tuple[tuple[int, ...], ...]
    open: tuple[int, ...]


class CoMeTStudent(QuestionStudent):
    """CoMeT on questions about documents.

    Answers are scored behind the same memory that they were said behind, and gradients go through it to whatever wrote
    it. A question and its answer share a chunk: a document's last chunk is closed where there is no room for both.

    Args:
        limit: words of an answer at most.

    Raises:
        BudgetError: no chunk has room for an answer.
    """

    feeds_cache = True

    def __init__(self, reader: CoMeTReader, limit: int) -> None:
        super().__init__(reader)
        self.comet, self.limit = reader.comet, limit
        if limit >= self.comet.config.chunk_tokens:
            raise BudgetError(
                f"An answer of {limit} tokens does not fit a chunk of {self.comet.config.chunk_tokens}.",
                "Lower limit.",
            )

    @property
    def soft(self) -> list[nn.Module]:
        return [self.comet.memories, self.comet.readouts, self.comet.compression]

    def prompt(self, problem: Problem) -> list[int]:
        """Raises ``BudgetError`` for a question that leaves no room for its answer."""
        prompt = super().prompt(problem)
        asked = len(self.reader.prompt_ids(problem.question))
        if asked + self.limit > self.comet.config.chunk_tokens:
            raise BudgetError(
                f"The question {problem.id} takes {asked} tokens; with {self.limit} of an answer it does not fit a "
                f"chunk of {self.comet.config.chunk_tokens}.",
                "Leave it out, or lower limit.",
            )
        return prompt

    def given(self, problem: Problem) -> Answer:
        """Raises ``BudgetError`` for an answer that is longer than may be said."""
        answer = super().given(problem)
        if len(answer.words) > self.limit:
            raise BudgetError(
                f"The answer to {problem.id} takes {len(answer.words)} tokens of {self.limit}.",
                "Leave it out, or raise limit.",
            )
        return answer

    @torch.no_grad()
    def answers(self, prompts: Sequence[list[int]], *, most: int, temperature: float, seed: int) -> list[Answer]:
        assert most <= self.limit, "a chunk has room for so many words"
        plans = [self._plan(prompt) for prompt in prompts]
        stream = ChunkStream(self.comet, self._memory(plans))
        logits = stream.feed([torch.tensor(plan.open) for plan in plans])

        def advance(tokens: Tensor, live: Sequence[bool]) -> Tensor:
            return stream.feed([token[None][: int(on)] for token, on in zip(tokens.cpu(), live, strict=True)])

        def chosen(scores: Tensor) -> Tensor:
            if not temperature:
                return best(scores)
            return torch.multinomial((scores.float() / temperature).softmax(-1), 1)[:, 0]

        held = stream.held
        with torch.random.fork_rng(devices=[logits.device] if logits.is_cuda else []):
            torch.manual_seed(seed)
            words = continue_one_by_one(logits, advance, max_new_tokens=most, ends=self.ends, choose=chosen)
        return [Answer(row, [1] * len(row), count + len(row)) for row, count in zip(words, held, strict=True)]

    def fed(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Fed:
        plans = [self._plan(own[mask.bool()].tolist()) for own, mask in zip(prompt, prompt_mask, strict=True)]
        memory = self._memory(plans)
        said = [words[mask.bool()].cpu() for words, mask in zip(answer, answer_mask, strict=True)]
        ids = [torch.cat([torch.tensor(plan.open), words]) for plan, words in zip(plans, said, strict=True)]
        frame = self.comet.prepare([len(row) for row in ids], [False] * len(ids), memory.counts).frame
        cache = Cache(layer_class_to_replicate=DynamicLayer)
        if frame.front_rotary is not None:
            for index, (cell, state) in enumerate(zip(self.comet.cells, memory.layers, strict=True)):
                cache.update(*cell.front(state, frame.front_rotary), index)
        # compression tokens stand between words, and say none
        words, _ = columns_of(Kind.TEXT, frame.layout)
        starts = torch.tensor([len(plan.open) - 1 for plan in plans], device=answer.device)
        place = starts[:, None] + torch.arange(answer.shape[1], device=answer.device)
        speakers = words.gather(1, place.clamp(max=words.shape[1] - 1)) * answer_mask
        inputs = {
            "inputs_embeds": self.comet.embedded(ids, frame.layout),
            "attention_mask": frame.mask,
            "position_ids": frame.layout.position,
            "past_key_values": cache,
        }
        return Fed(inputs, speakers)

    def _plan(self, prompt: Sequence[int]) -> Plan:
        full, asked = self.comet.config.chunk_tokens, len(self.reader.prompt_ids(self.question_of(prompt).question))
        document, question = tuple(prompt[:-asked]), tuple(prompt[-asked:])
        chunks = [document[start : start + full] for start in range(0, len(document), full)]
        last = chunks.pop() if chunks and len(chunks[-1]) + asked + self.limit <= full else ()
        return Plan(tuple(chunks), last + question)

    def _memory(self, plans: Sequence[Plan]) -> Memory:
        """What each prompt is answered behind; a document that is asked about several times is read once."""
        texts = list(dict.fromkeys(plan.closed for plan in plans))
        memory = self.comet.empty_memory(len(texts))
        for number in range(max(map(len, texts))):
            ids = [torch.tensor(text[number] if number < len(text) else (), dtype=torch.long) for text in texts]
            _, memory = self.comet.read_chunk(ids, memory, [len(row) > 0 for row in ids])
        return memory.rows([texts.index(plan.closed) for plan in plans])
