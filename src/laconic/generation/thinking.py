"""Decoding in thought steps: one loop for every method that reasons, batched, with physical eviction.

The rows of a batch live side by side: each ends its steps, accepts guesses and stops at its own time. A row's block is
what it feeds in one pass: a word, followed by guesses that were made of the next ones, with foresight tokens behind
each; or a step's end with its memory and restart tokens. Behind a block, what nobody will read again leaves the cache.

One pass verifies the guesses of the pass before and makes new ones, behind whichever word is the last to stand. With
``two_passes`` guesses are verified in a pass of their own, as MemoSight's code does (section 5 of its specification).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.backbone import Backbone, text_ends
from laconic.core.cache import EvictingCache
from laconic.core.compat import layer_windows
from laconic.core.layout import Kind, Layout, batch, run
from laconic.core.positions import sequential
from laconic.core.results import Stopwatch
from laconic.core.thoughts import Shape, to_come
from laconic.core.visibility import Rule, attention_mask, readable_by
from laconic.errors import BudgetError
from laconic.generation.choosing import Chooser, Processor
from laconic.generation.prefill import PREFILL_CHUNK
from laconic.generation.thought_rows import Block, Row, Rules, Thoughts

#: told (row, word, its bill so far)
OnWord = Callable[[int, int, Thoughts], None]
#: behind what something can leave the cache: nothing, a step's end, every word
Forgets = Literal["nothing", "steps", "words"]


class ThinkingModel(Protocol):
    """What the loop asks of a method."""

    backbone: Backbone
    decoder: PreTrainedModel
    shape: Shape

    @property
    def retention(self) -> int: ...

    @property
    def guesses(self) -> int: ...

    @property
    def forgets(self) -> Forgets: ...

    @property
    def reads_all(self) -> bool: ...

    @property
    def longest_step(self) -> int: ...

    def rule(self, reach: int | Tensor) -> Rule: ...

    def embedded(self, kind: Tensor, ids: Tensor) -> Tensor: ...


def think(
    model: ThinkingModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    processors: Sequence[Processor] = (),
    sample: bool = False,
    seed: int = 0,
    ends: frozenset[int] | None = None,
    stops: Callable[[int, Sequence[int]], bool] | None = None,
    on_word: OnWord = lambda row, word, bill: None,
    two_passes: bool = False,
    watch: Stopwatch | None = None,
    cache: EvictingCache | None = None,
) -> list[Thoughts]:
    """Reason from each prompt until the model ends, ``stops`` says so, or ``max_new_tokens`` words are said.

    Args:
        prompts: token ids of each row.
        processors, sample, seed: how words are chosen (``laconic.generation.choosing``).
        ends: tokens that end a row; None: the model's own.
        stops: asked with (row, words so far) behind every word.
        on_word: told (row, word, its bill so far) of every word; ``bill.live`` ends with that word.
        watch: gets the seconds of ``prefill`` and ``decode``.
        cache: an empty one to be used, for those who want to look into it.

    Raises:
        BudgetError: a prompt is empty or fills the window, or no words are asked for.
    """
    if max_new_tokens < 1:
        raise BudgetError(f"{max_new_tokens} new tokens are none.", "Ask for 1 or more.")
    _check(model, prompts)
    if not prompts:
        return []
    rows = [Row(number, list(prompt)) for number, prompt in enumerate(prompts)]
    rules = Rules(model.shape, model.longest_step, max_new_tokens, model_ends(model) if ends is None else ends, stops)
    never = [model.shape.step_end, *rules.stop_ids]
    chooser = Chooser([row.said for row in rows], processors, sample=sample, never_guessed=never, seed=seed)
    if cache is None:
        cache = EvictingCache(model.decoder)
    loop = _Loop(model, rows, rules, chooser, on_word, two_passes, cache)
    watch = watch or Stopwatch(model.backbone.device)
    with torch.inference_mode():
        with watch("prefill"):
            loop.read_prompts()
        with watch("decode"):
            while loop.live:
                loop.go_on()
    return [row.thoughts for row in rows]


def _check(model: ThinkingModel, prompts: Sequence[Sequence[int]]) -> None:
    window = model.backbone.window
    for prompt in prompts:
        if not len(prompt):
            raise BudgetError("A prompt is empty.", "Give it at least one token.")
        if len(prompt) >= window:
            raise BudgetError(f"A prompt of {len(prompt)} tokens fills the window of {window}.", "Shorten the problem.")


def model_ends(model: ThinkingModel) -> frozenset[int]:
    """What ends a text of a model that reasons."""
    return frozenset(text_ends(model.decoder, model.backbone.tokenizer))


class _Loop:
    """A batch that reasons; ``live`` are the rows of the cache, in its order."""

    def __init__(
        self,
        model: ThinkingModel,
        rows: list[Row],
        rules: Rules,
        chooser: Chooser,
        on_word: OnWord,
        two_passes: bool,
        cache: EvictingCache,
    ) -> None:
        self.model, self.live, self.rules, self.chooser = model, rows, rules, chooser
        self.on_word, self.two_passes, self.cache = on_word, two_passes, cache
        self.rule = model.rule(model.retention)
        # in a cache without what nobody reads again, a word reads all; not if a window counts in other positions
        self.reads_all = model.reads_all and not any(layer_windows(model.decoder).values())

    def read_prompts(self) -> None:
        scores = torch.empty(0)
        longest = max(len(row.said) for row in self.live)
        for begin in range(0, longest, PREFILL_CHUNK):
            pieces = [self._piece(row, begin + len(row.said) - longest) for row in self.live]
            scores = self._feed([layout for layout, _ in pieces], [ids for _, ids in pieces], 1)
        self.chooser.look(scores)
        token_bytes = self.cache.nbytes // (len(self.live) * self.cache.physical_length)
        for row in self.live:
            row.start = len(row.said)
            row.thoughts.token_bytes = token_bytes
            _raise_peak(row.thoughts, row.start, row.start)
        width = self.cache.physical_length
        self._forget([[False] * (width - row.start) + [True] * row.start for row in self.live], closed=False)
        for place, row in enumerate(self.live):
            ahead: list[int] = []  # a prompt has no foresight tokens: nothing is guessed before the first word is fed
            self.rules.hear(row, self.chooser, place, [0], [ahead])
            self._report(row, 0)
        self._drop_finished()

    @staticmethod
    def _piece(row: Row, begin: int) -> tuple[Layout, Tensor]:
        """Of a prompt from there on; negative places are its padding."""
        first, last = max(begin, 0), min(max(begin + PREFILL_CHUNK, 0), len(row.said))
        return run(Kind.PROMPT, sequential(first, last - first)), torch.tensor(row.said[first:last], dtype=torch.long)

    def go_on(self) -> None:
        """One pass of all live rows."""
        blocks = [self._next_block(row) for row in self.live]
        for row, block in zip(self.live, blocks, strict=True):
            if int(block.layout.position[-1]) >= self.model.backbone.window:
                row.thoughts.stopped_by = "window"
        blocks = [block for row, block in zip(self.live, blocks, strict=True) if not row.thoughts.stopped_by]
        self._drop_finished()
        if not blocks:
            return
        width = max(len(block.layout) for block in blocks)
        self.chooser.look(self._feed([block.layout for block in blocks], [block.ids for block in blocks], width))
        stood, stays = [], []
        for place, (row, block) in enumerate(zip(self.live, blocks, strict=True)):
            first = width - len(block.layout)
            row.thoughts.forwards += 1
            row.fed_block(block)
            speakers = [first + at for at in block.speakers]
            ahead = [[first + at for at in places] for places in block.ahead]
            stood.append(self.rules.hear(row, self.chooser, place, speakers, ahead))
            stays.append([False] * first + block.standing(stood[-1]))
            _raise_peak(row.thoughts, row.held + sum(stays[-1]), row.held + len(block.layout))
        self._forget(stays, any(block.closes for block in blocks))
        for row, accepted in zip(self.live, stood, strict=True):
            self._report(row, accepted)
        self._drop_finished()

    def _next_block(self, row: Row) -> Block:
        # in two passes, guesses are verified before new ones are made
        ahead = 0 if self.two_passes and row.guesses else self.model.guesses
        return row.next_block(self.model.shape, ahead, self.model.backbone.window)

    def _feed(self, layouts: Sequence[Layout], ids: Sequence[Tensor], scored: int) -> Tensor:
        """Run the rows' blocks; the scores of the last tokens, ``[B, scored, V]``."""
        model, device = self.model, self.model.backbone.device
        block = batch(layouts, "left").map(lambda field: field.to(device))
        padded = torch.nn.utils.rnn.pad_sequence(list(ids), batch_first=True, padding_side="left").to(device)
        keys = self.cache.announce(block)
        alone = block.kind.numel() == 1 and self.reads_all  # one word of one row needs no mask
        scores: Tensor = model.decoder(
            inputs_embeds=model.embedded(block.kind, padded),
            attention_mask=None if alone else attention_mask(model.decoder, self.rule, keys, len(block)),
            position_ids=block.position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=scored,
        ).logits
        return scores

    def _forget(self, stays: list[list[bool]], closed: bool) -> None:
        """Drop padding, foresight tokens and guesses that did not stand, and what nobody will read again."""
        for row, own in zip(self.live, stays, strict=True):
            row.held += sum(own)
        forgets = self.model.forgets == "words" or (closed and self.model.forgets == "steps")
        if all(map(all, stays)) and not forgets:
            return
        layout = self.cache.layout
        assert layout is not None
        kept = torch.ones_like(layout.real)
        kept[:, -len(stays[0]) :] = torch.tensor(stays, device=kept.device)
        if forgets:
            kept &= self._readable(layout)
        self.cache.keep(kept)
        assert self.cache.layout is not None
        for row, held in zip(self.live, self.cache.layout.real.sum(1).tolist(), strict=True):
            row.held = held

    def _readable(self, layout: Layout) -> Tensor:
        """Which cached tokens something that can still come may read."""
        future = [to_come(row.step, self.model.retention, row.start + row.fed) for row in self.live]
        return readable_by(self.rule, batch(future, "left").map(lambda field: field.to(layout.kind.device)), layout)

    def _report(self, row: Row, stood: int) -> None:
        """Bill and show the words that this pass added: guesses that stood are in the cache, the one behind is not."""
        thoughts = row.thoughts
        for place, word in enumerate(thoughts.words[len(thoughts.live) :]):
            thoughts.live.append(row.held - stood + place + 1)
            self.on_word(row.number, word, thoughts)

    def _drop_finished(self) -> None:
        going = [place for place, row in enumerate(self.live) if not row.thoughts.stopped_by]
        if len(going) < len(self.live):
            self.live = [self.live[place] for place in going]
            if going:
                self.cache.batch_select_indices(torch.tensor(going, device=self.model.backbone.device))
                assert self.cache.layout is not None
                self.cache.keep(self.cache.layout.real)  # what was padding for all that are left


def _raise_peak(thoughts: Thoughts, tokens: int, fed: int) -> None:
    thoughts.peak_tokens = max(thoughts.peak_tokens, tokens)
    thoughts.peak_fed = max(thoughts.peak_fed, fed)
