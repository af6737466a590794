"""Scored eviction on reasoning (H2O, arXiv 2306.14048): nothing is trained for it.

Behind every word a layer that holds more than its budget drops the token that has been attended to least so far, all
heads and words summed; the most recent half of the budget is safe. Layers keep different tokens. One problem at a
time, with eager attention, which alone shows what is attended to: its seconds say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.generation.streamers import BaseStreamer

from laconic.core.cache import EvictingLayer, take
from laconic.core.results import Stopwatch, added
from laconic.core.sharing import layer_list
from laconic.errors import BudgetError, LaconicError
from laconic.generation.thinking import Forgets, model_ends
from laconic.generation.thought_rows import Thoughts
from laconic.methods.thinking.generate import Generating
from laconic.methods.thinking.solving import Solution, solution_of
from laconic.methods.vanilla.model import Vanilla


class HeavyHitters(Vanilla):
    """A saved vanilla thinker that keeps the tokens that were attended to most.

    Attributes:
        tokens: that a layer holds at the most.
    """

    tokens = 128

    @property
    def decoding(self) -> dict[str, Any]:
        return {"tokens": self.tokens}

    @property
    def forgets(self) -> Forgets:
        return "words"

    @torch.inference_mode()
    def solve(self, problems: Sequence[str], *, max_new_tokens: int = 1024, **options: Any) -> list[Solution]:
        """As ``Thinker.solve``, greedily.

        Raises:
            LaconicError: an option that would have words chosen otherwise.
            BudgetError: no words are asked for, or a prompt fills the window.
        """
        plain = {"repetition_penalty": 1.0, "temperature": 0.0, "seed": options.get("seed")}
        changed = {name for name, value in options.items() if name not in plain or value != plain[name]}
        if changed:
            raise LaconicError(
                f"Scored eviction decodes greedily, without {', '.join(sorted(changed))}.", "Leave it out."
            )
        if max_new_tokens < 1:
            raise BudgetError(f"{max_new_tokens} new tokens are none.", "Ask for 1 or more.")
        self.decoder.set_attn_implementation("eager")
        found = [self._solve(self.prompt_ids(problem), max_new_tokens) for problem in problems]
        seconds = added(*(one.seconds for one in found))  # as of problems that are solved side by side
        return [replace(one, seconds=seconds) for one in found]

    def generating(self, streamer: BaseStreamer | None = None) -> Generating:
        """Raises ``LaconicError``: the loop behind ``generate`` keeps all."""
        raise LaconicError("Scored eviction is not there behind generate.", "Call solve.")

    def _solve(self, prompt: list[int], max_new_tokens: int) -> Solution:
        cache = Cache(layer_class_to_replicate=EvictingLayer)
        scores: list[Tensor] = []
        thoughts, ends, watch = Thoughts(), model_ends(self), Stopwatch(self.backbone.device)
        if len(prompt) >= self.backbone.window:
            raise BudgetError(f"A prompt of {len(prompt)} tokens fills the window.", "Shorten the problem.")
        fed, position = prompt, 0
        with watch("decode"), _Attended(layer_list(self.decoder.base_model)[1]) as attended:
            while True:
                ids = torch.tensor([fed], device=self.backbone.device)
                where = torch.arange(position, position + len(fed), device=ids.device)[None]
                out = self.decoder(ids, position_ids=where, past_key_values=cache, use_cache=True)
                held = cache.layers[0].keys.shape[-2]
                thoughts.peak_tokens = thoughts.peak_fed = max(thoughts.peak_tokens, held)
                scores = self._evict(cache, scores, attended.take())
                position += len(fed)
                word = int(out.logits[0, -1].argmax())
                if word in ends:
                    thoughts.stopped_by = "end"
                    break
                thoughts.words.append(word)
                thoughts.live.append(cache.layers[0].keys.shape[-2] + 1)
                thoughts.forwards += fed is not prompt
                if len(thoughts.words) == max_new_tokens:
                    thoughts.stopped_by = "length"
                    break
                if position >= self.backbone.window:
                    thoughts.stopped_by = "window"
                    break
                fed = [word]
        thoughts.token_bytes = sum(2 * layer.keys[:, :, 0].nbytes for layer in cache.layers)
        return solution_of(self, prompt, thoughts, (), watch.seconds)

    def _evict(self, cache: Cache, scores: list[Tensor], attended: list[Tensor]) -> list[Tensor]:
        """Add what was attended to now, per layer ``[K]``, and drop the least of what is not recent."""
        kept_scores = []
        for number, (layer, now) in enumerate(zip(cache.layers, attended, strict=True)):
            assert isinstance(layer, EvictingLayer)
            total = now
            if scores:
                total[: len(scores[number])] += scores[number]
            surplus = len(total) - self.tokens
            if surplus > 0:
                old = len(total) - self.tokens // 2
                dropped = total[:old].argsort()[:surplus]
                stays = torch.ones(len(total), dtype=torch.bool, device=total.device)
                stays[dropped] = False
                take([layer], stays.nonzero().T)
                total = total[stays]
            kept_scores.append(total)
        return kept_scores


class _Attended:
    """Sums what every layer attends to, by hooks on its attention."""

    def __init__(self, layers: nn.ModuleList) -> None:
        self.layers, self.handles, self.found = layers, list[Any](), list[Tensor]()

    def __enter__(self) -> _Attended:
        for layer in self.layers:
            self.handles.append(layer.get_submodule("self_attn").register_forward_hook(self._note))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _note(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self.found.append(outputs[1][0].float().sum((0, 1)))  # weights [B, N, Q, K]

    def take(self) -> list[Tensor]:
        found, self.found = self.found, []
        return found
