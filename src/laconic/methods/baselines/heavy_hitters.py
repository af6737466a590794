"""Scored eviction on reasoning (H2O, arXiv 2306.14048): nothing is trained for it.

Behind every word a layer that holds more than its budget drops the token that has been attended to least so far, all
heads and words summed; the most recent half of the budget is safe. Layers keep different tokens, but as many of them,
so that problems are solved side by side. Eager attention alone shows what is attended to: seconds say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.generation.streamers import BaseStreamer

from laconic.core.cache import EvictingLayer, take
from laconic.core.compat import layer_windows
from laconic.core.results import Stopwatch
from laconic.core.sharing import layer_list
from laconic.core.visibility import additive
from laconic.errors import BackboneError, BudgetError, LaconicError
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
            BackboneError: layers have sliding windows, which count in positions that what is kept no longer has.
        """
        plain = {"repetition_penalty": 1.0, "temperature": 0.0, "seed": options.get("seed")}
        changed = {name for name, value in options.items() if name not in plain or value != plain[name]}
        if changed:
            raise LaconicError(
                f"Scored eviction decodes greedily, without {', '.join(sorted(changed))}.", "Leave it out."
            )
        if any(layer_windows(self.decoder).values()):
            raise BackboneError("Scored eviction is for layers that attend to all.", "Choose another baseline.")
        layers = layer_list(self.decoder.base_model)[1]
        if not all(hasattr(layer, "self_attn") for layer in layers):
            raise BackboneError(
                f"Where {type(layers[0]).__name__} attends is not known by name.",
                "Choose another baseline or backbone.",
            )
        if max_new_tokens < 1:
            raise BudgetError(f"{max_new_tokens} new tokens are none.", "Ask for 1 or more.")
        prompts = [self.prompt_ids(problem) for problem in problems]
        for prompt in prompts:
            if len(prompt) >= self.backbone.window:
                raise BudgetError(f"A prompt of {len(prompt)} tokens fills the window.", "Shorten the problem.")
        if not prompts:
            return []
        self.decoder.set_attn_implementation("eager")
        watch = Stopwatch(self.backbone.device)
        with watch("decode"), _Attended(layers) as attended:
            bills = self._decode(prompts, max_new_tokens, attended)
        return [solution_of(self, prompt, bill, (), watch.seconds) for prompt, bill in zip(prompts, bills, strict=True)]

    def generating(self, streamer: BaseStreamer | None = None) -> Generating:
        """Raises ``LaconicError``: the loop behind ``generate`` keeps all."""
        raise LaconicError("Scored eviction is not there behind generate.", "Call solve.")

    def _decode(self, prompts: Sequence[list[int]], most: int, attended: _Attended) -> list[Thoughts]:
        """Rows are padded on the left, in all layers alike: what is padding has the lowest score, and goes first."""
        cache, ends, device = Cache(layer_class_to_replicate=EvictingLayer), model_ends(self), self.backbone.device
        bills = [Thoughts() for _ in prompts]
        live = list(bills)
        said = torch.tensor([len(prompt) for prompt in prompts], device=device)
        real = said.clone()  # tokens that are held, by row
        fed = nn.utils.rnn.pad_sequence([torch.tensor(p) for p in prompts], batch_first=True, padding_side="left")
        scores: list[Tensor] = []
        while live:
            held, count = scores[0].shape[1] if scores else 0, fed.shape[1]
            attended.spoken = torch.arange(count, device=device) >= count - real[:, None]
            out = self.decoder(
                fed.to(device),
                position_ids=(torch.arange(count, device=device) + said[:, None] - count).clamp(min=0),
                attention_mask=self._mask(real, held, count),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            token_bytes = sum(t[:1, :, :1].nbytes for layer in cache.layers for t in (layer.keys, layer.values))
            for bill, tokens in zip(live, real.tolist(), strict=True):
                bill.token_bytes = token_bytes
                bill.peak_tokens = bill.peak_fed = max(bill.peak_tokens, tokens)
            scores = self._evict(cache, scores, attended.take(), real)
            real = real.clamp(max=self.tokens)
            words = out.logits[:, -1].argmax(-1).tolist()
            for bill, word, place, tokens in zip(live, words, said.tolist(), real.tolist(), strict=True):
                bill.forwards += bool(bill.words)
                if word in ends:
                    bill.end, bill.stopped_by = word, "end"
                    continue
                bill.words.append(word)
                bill.live.append(tokens + 1)
                if len(bill.words) == most:
                    bill.stopped_by = "length"
                elif place >= self.backbone.window:
                    bill.stopped_by = "window"
            going = torch.tensor(
                [n for n, bill in enumerate(live) if not bill.stopped_by], dtype=torch.long, device=device
            )
            if len(going) < len(live):
                live = [live[n] for n in going.tolist()]
                cache.batch_select_indices(going)
                scores = [one[going] for one in scores]
            said, real = said[going] + 1, real[going] + 1
            fed = torch.tensor([bill.words[-1:] for bill in live], device=device)
        return bills

    def _mask(self, real: Tensor, held: int, count: int) -> Tensor:
        """Of so many tokens fed behind so many held: they read what is no padding, up to themselves; padding itself."""
        columns = torch.arange(held + count, device=real.device)
        own = columns[held:, None]
        seen = (columns >= len(columns) - real[:, None, None]) & (columns <= own)
        return additive(seen | (columns == own), self.backbone.dtype)

    def _evict(self, cache: Cache, scores: list[Tensor], attended: list[Tensor], real: Tensor) -> list[Tensor]:
        """Add what was attended to now, per layer ``[B, K]``, and drop the least of what is not recent."""
        kept_scores = []
        length = attended[0].shape[1]
        surplus = length - min(self.tokens, int(real.max()))
        # below what is safe, all that can go is what is padding in every row
        old = max(length - self.tokens // 2, surplus)
        for number, (layer, total) in enumerate(zip(cache.layers, attended, strict=True)):
            assert isinstance(layer, EvictingLayer)
            if scores:
                total[:, : scores[number].shape[1]] += scores[number]
            padding = torch.arange(length, device=total.device) < length - real.to(total.device)[:, None]
            total.masked_fill_(padding, -torch.inf)
            if surplus > 0:
                dropped = total[:, :old].argsort(dim=1)[:, :surplus]
                stays = torch.ones_like(total, dtype=torch.bool).scatter(1, dropped, False)
                columns = stays.nonzero()[:, 1].view(len(total), -1)
                take([layer], columns)
                total = total.gather(1, columns)
            kept_scores.append(total)
        return kept_scores


class _Attended:
    """Sums what every layer attends to, ``[B, K]``, by hooks on its attention.

    Attributes:
        spoken: which of the tokens fed count, ``[B, Q]``: all but padding.
    """

    spoken: Tensor

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
        silent = ~self.spoken.to(outputs[1].device)
        weights = outputs[1].float().masked_fill(silent[:, None, :, None], 0.0)  # [B, N, Q, K]
        self.found.append(weights.sum((1, 2)))

    def take(self) -> list[Tensor]:
        found, self.found = self.found, []
        return found
