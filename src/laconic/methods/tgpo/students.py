"""Compressed students: how a method answers under its own eviction, and what its decoder is fed to score the answers.

A student that answers with less in its cache than its teacher must be scored with less too: log-probabilities under
full attention would be those of another policy. The teacher reads the same answers with nothing compressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laconic.core.layout import IGNORE, batch
from laconic.core.thoughts import Trace, lay_out
from laconic.core.visibility import attention_mask
from laconic.generation.choosing import processors_for
from laconic.generation.thinking import model_ends, think
from laconic.methods.thinking.model import Thinker


@dataclass(frozen=True)
class Answer:
    """An answer to a prompt.

    Attributes:
        words: token ids, the end included if it was said.
        own: 1 for a word that was chosen, 0 for one that was put in (a step ended by force).
        held: most tokens that the cache held for it; 0 if it was not rolled out.
    """

    words: list[int]
    own: list[int]
    held: int = 0


@dataclass(frozen=True)
class Fed:
    """What a student's decoder is fed to score answers.

    Attributes:
        inputs: arguments of its forward, over a sequence of its own length L.
        speakers: int64 ``[B, T]``, the place in that sequence whose state comes before each token of the answers; 0
            where they are padding.
        length: L.
    """

    inputs: dict[str, Any]
    speakers: Tensor
    length: int


class Student(Protocol):
    """What a trainer asks of a method that is trained on its own answers."""

    @property
    def decoder(self) -> PreTrainedModel: ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def soft(self) -> list[nn.Module]:
        """What is trained besides the decoder's own parameters."""
        ...

    def prompt(self, problem: str) -> list[int]:
        """A problem as it is asked, nothing compressed: what the teacher reads."""
        ...

    def given(self, problem: str, steps: Sequence[str]) -> Answer:
        """A worked solution as an answer."""
        ...

    def answers(self, prompts: Sequence[list[int]], *, most: int, temperature: float, seed: int) -> list[Answer]:
        """Sampled answers of at most so many words, under the method's own eviction."""
        ...

    def fed(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Fed:
        """Prompts ``[B, P]``, padded on the left, and answers ``[B, T]``, padded on the right, under the same
        visibility."""
        ...


class ThinkingStudent:
    """A method that reasons in steps (vanilla, LightThinker, HybridThinker, MemoSight)."""

    def __init__(self, thinker: Thinker) -> None:
        self.thinker = thinker
        self.ends = model_ends(thinker)

    @property
    def decoder(self) -> PreTrainedModel:
        return self.thinker.decoder

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.thinker.backbone.tokenizer

    @property
    def soft(self) -> list[nn.Module]:
        # foresight tokens are no part of what is scored: nobody reads them
        return [self.thinker.memory, self.thinker.restart]

    def prompt(self, problem: str) -> list[int]:
        return self.thinker.prompt_ids(problem)

    def given(self, problem: str, steps: Sequence[str]) -> Answer:
        trace = self.thinker.trace(problem, steps)
        words = [word for step in trace.steps for word in step] + ([] if trace.end is None else [trace.end])
        return Answer(words, [1] * len(words))

    def answers(self, prompts: Sequence[list[int]], *, most: int, temperature: float, seed: int) -> list[Answer]:
        processors = processors_for(temperature=temperature, top_k=0, top_p=1.0, repetition_penalty=1.0, exempt=[])
        found = think(
            self.thinker, prompts, max_new_tokens=most, processors=processors, sample=temperature > 0, seed=seed
        )
        answers = []
        for one in found:
            words = [*one.words, *([] if one.end is None else [one.end])]
            own = [1] * len(words)
            for place in one.forced:
                own[place] = 0
            answers.append(Answer(words, own, one.peak_tokens))
        return answers

    def fed(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Fed:
        thinker = self.thinker
        traces = [
            self._trace(p[m.bool()].tolist(), a[n.bool()].tolist())
            for p, m, a, n in zip(prompt, prompt_mask, answer, answer_mask, strict=True)
        ]
        rows, ids = zip(*(lay_out(trace, thinker.shape) for trace in traces), strict=True)
        device = answer.device
        layout = batch(rows, "right").map(lambda field: field.to(device))
        padded = nn.utils.rnn.pad_sequence(list(ids), batch_first=True).to(device)
        speakers = torch.zeros_like(answer)
        speakers[answer_mask.bool()] = (layout.label != IGNORE).nonzero()[:, 1]
        inputs = {
            "inputs_embeds": thinker.embedded(layout.kind, padded),
            # a step is readable as long as in decoding, in every one of them
            "attention_mask": attention_mask(thinker.decoder, thinker.rule(thinker.retention), layout),
            "position_ids": layout.position,
        }
        return Fed(inputs, speakers, len(layout))

    def _trace(self, prompt: list[int], words: list[int]) -> Trace:
        """What was said, cut where steps ended."""
        end = words.pop() if words and words[-1] in self.ends else None
        steps: list[list[int]] = []
        closed = True
        for word in words:
            if closed:
                steps.append([])
            steps[-1].append(word)
            closed = word == self.thinker.step_end
        return Trace(prompt, steps, end)
