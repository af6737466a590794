"""Reasoning behind ``generate`` of transformers: ``decoder.generate(..., custom_generate=thinker.generating())``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    PrefixConstrainedLogitsProcessor,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
    SynthIDTextWatermarkLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from transformers.generation.streamers import BaseStreamer

from laconic.errors import LaconicError
from laconic.generation.choosing import Processor, sparing
from laconic.generation.thinking import think
from laconic.generation.thought_rows import Thoughts

#: processors of transformers that no loop of ours can ask
UNFIT = (
    PrefixConstrainedLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    EncoderNoRepeatNGramLogitsProcessor,
    SynthIDTextWatermarkLogitsProcessor,
)

if TYPE_CHECKING:
    from laconic.methods.thinking.model import Thinker


class Generating:
    """What ``generate`` calls in place of its own loop.

    Greedy or sampled, batched (padding on the left), with stopping criteria and logits processors, but for those that
    remember what they saw or go by a row's number. Processors see a row alone, without its padding, and one word behind
    another, however many are made in a pass; they are asked about guesses too. Stop texts are given as
    ``StoppingCriteriaList([StopStringCriteria(tokenizer, texts)])``: ``generate`` hands no tokenizer on to a function
    (transformers 5.23).

    Args:
        streamer: gets the prompt, the words of a single row as they come, and the end. It is named here, since
            ``generate`` hands none on either.
    """

    def __init__(self, thinker: Thinker, streamer: BaseStreamer | None = None) -> None:
        self.thinker, self.streamer = thinker, streamer

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        generation_config: GenerationConfig | None = None,
        **inputs: Any,
    ) -> Tensor:
        """Token ids ``[B, T]``: prompts, words and the end that was said, padded on the right.

        Raises:
            LaconicError: another model's ``generate``, beams, padding on the right, embeddings as prompt, a dictionary
                as output, a processor that cannot be asked so, or a streamer for several rows.
        """
        assert generation_config is not None, "generate of transformers hands its settings on"
        if inputs.get("inputs_embeds") is not None:
            raise LaconicError("A prompt is given as embeddings.", "Give token ids.")
        self._check(model, generation_config, len(input_ids))
        for processor in logits_processor or []:
            if isinstance(processor, UNFIT):
                raise LaconicError(
                    f"{type(processor).__name__} goes by a row's number, or remembers what it saw.",
                    "Leave it out: here rows come and go, and several words are made in a pass.",
                )
        # not a parameter of its own: generate would hand over what is named here twice
        prompts = self._prompts(input_ids, inputs.get("attention_mask"))
        room = generation_config.max_length - input_ids.shape[1]
        ends = _list(generation_config.eos_token_id)
        own = ends == _list(getattr(model.generation_config, "eos_token_id", None))
        criteria = [one for one in stopping_criteria or [] if not isinstance(one, MaxLengthCriteria | EosTokenCriteria)]

        def stops(row: int, words: Sequence[int]) -> bool:
            said = torch.tensor([[*prompts[row], *words]], device=input_ids.device)
            return any(bool(one(said, None).any()) for one in criteria)

        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())  # as generate does: a streamer may skip it
        found = think(
            self.thinker,
            prompts,
            max_new_tokens=room,
            processors=[self._spared(one) for one in logits_processor or []],
            sample=bool(generation_config.do_sample),
            seed=int(torch.randint(2**31, ())),  # as transformers: what torch.manual_seed says
            ends=None if own else frozenset(ends),
            stops=stops if criteria else None,
            on_word=self._stream,
        )
        if self.streamer is not None:
            if found[0].end is not None:
                self.streamer.put(torch.tensor([found[0].end]))
            self.streamer.end()
        padding = generation_config.pad_token_id
        pad = int(ends[0] if padding is None and ends else padding or 0)
        rows = [
            torch.tensor([*thoughts.words, *([] if thoughts.end is None else [thoughts.end])], dtype=torch.long)
            for thoughts in found
        ]
        new = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad).to(input_ids.device)
        return torch.cat([input_ids, new], dim=1)

    def _spared(self, processor: Processor) -> Processor:
        """A penalty on what was said leaves the ends of steps alone, and what belongs to no text."""
        repeated = isinstance(processor, RepetitionPenaltyLogitsProcessor)
        return sparing(processor, self.thinker.unpenalised) if repeated else processor

    def _stream(self, row: int, word: int, bill: Thoughts) -> None:
        if self.streamer is not None:
            self.streamer.put(torch.tensor([word]))

    def _check(self, model: PreTrainedModel, config: GenerationConfig, rows: int) -> None:
        if model is not self.thinker.decoder:
            raise LaconicError(
                "This model is not the one that was taught to reason.", "Call thinker.decoder.generate(...)."
            )
        if self.streamer is not None and rows > 1:
            raise LaconicError("A streamer shows a single row.", "Give one prompt, or no streamer.")
        if (config.num_beams or 1) > 1 or config.return_dict_in_generate:
            raise LaconicError("Beams and dictionaries as output are not supported.", "Leave them out of generate.")

    def _prompts(self, input_ids: Tensor, mask: Tensor | None) -> list[list[int]]:
        if mask is None:
            return [row.tolist() for row in input_ids]
        if not bool((mask[:, 1:] >= mask[:, :-1]).all()):
            raise LaconicError("A prompt is padded on the right.", 'Set tokenizer.padding_side = "left".')
        return [row[own.bool()].tolist() for row, own in zip(input_ids, mask, strict=True)]


def _list(value: Any) -> list[int]:
    return [] if value is None else [int(one) for one in torch.as_tensor(value).flatten()]
