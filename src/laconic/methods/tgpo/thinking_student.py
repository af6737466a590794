"""Methods that reason in steps as students: they answer under their own eviction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from laconic.core.layout import IGNORE, batch
from laconic.core.thoughts import Trace, lay_out
from laconic.core.visibility import attention_mask
from laconic.data.problems import Problem
from laconic.generation.choosing import processors_for
from laconic.generation.thinking import think
from laconic.methods.tgpo.students import Answer, Fed
from laconic.methods.thinking.model import Thinker


class ThinkingStudent:
    """A method that reasons in steps (vanilla, LightThinker, HybridThinker, MemoSight)."""

    feeds_cache = False

    def __init__(self, thinker: Thinker) -> None:
        self.thinker = thinker

    @property
    def decoder(self) -> PreTrainedModel:
        return self.thinker.decoder

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.thinker.backbone.tokenizer

    @property
    def window(self) -> int:
        return self.thinker.backbone.window

    @property
    def soft(self) -> list[nn.Module]:
        # foresight tokens are no part of what is scored: nobody reads them
        return [self.thinker.memory, self.thinker.restart]

    def prompt(self, problem: Problem) -> list[int]:
        return self.thinker.prompt_ids(problem.question)

    def given(self, problem: Problem) -> Answer:
        trace = self.thinker.trace(problem.question, problem.steps)
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
        return Fed(inputs, speakers)

    def _trace(self, prompt: list[int], words: list[int]) -> Trace:
        """What was said, cut where steps ended; the end of the whole is a word like any other, which nobody reads."""
        steps: list[list[int]] = []
        closed = True
        for word in words:
            if closed:
                steps.append([])
            steps[-1].append(word)
            closed = word == self.thinker.step_end
        return Trace(prompt, steps, None)
