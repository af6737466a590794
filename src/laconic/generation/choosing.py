"""Choosing words from scores, and checking guessed words against them without changing what would be said.

A guess is kept exactly when the decoder itself would have said it: greedily, if it is the likeliest word; when
sampling, by the rule of speculative sampling (arXiv 2211.17192, 2302.01318), under which words follow the same
distribution as without guesses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from laconic.errors import LaconicError

#: changes scores ``[1, V]`` by the words so far ``[1, T]``, as the logits processors of transformers do
Processor = Callable[[Tensor, Tensor], Tensor]


class Guess(NamedTuple):
    """A guessed word, and the distribution it was drawn from, ``[V]``; None if it was not drawn."""

    word: int
    drawn_from: Tensor | None


def processors_for(
    *, temperature: float, top_k: int, top_p: float, repetition_penalty: float, exempt: Sequence[int]
) -> list[Processor]:
    """The processors of transformers for these settings, in the order it applies them.

    Args:
        temperature: 0 is greedy.
        exempt: tokens that the repetition penalty leaves alone: a step's end is said again and again.

    Raises:
        LaconicError: a setting that means nothing.
    """
    known = isfinite(temperature) and isfinite(repetition_penalty)
    if not known or temperature < 0 or not 0 < top_p <= 1 or top_k < 0 or repetition_penalty <= 0:
        raise LaconicError(
            "temperature and top_k must not be negative, top_p lie in (0, 1], repetition_penalty be above 0.",
            "0 is greedy; 1 leaves top_p and repetition_penalty out.",
        )
    found: list[Processor] = []
    if repetition_penalty != 1:
        found.append(sparing(RepetitionPenaltyLogitsProcessor(repetition_penalty), exempt))
    if temperature and temperature != 1:
        found.append(TemperatureLogitsWarper(float(temperature)))
    if temperature and top_k:
        found.append(TopKLogitsWarper(top_k))
    if temperature and top_p < 1:
        found.append(TopPLogitsWarper(top_p))
    return found


def sparing(processor: Processor, exempt: Sequence[int]) -> Processor:
    """The same processor, but for some tokens, whose scores it leaves alone."""
    spared = list(exempt)

    def changed(words: Tensor, scores: Tensor) -> Tensor:
        found = processor(words, scores.clone())
        found[:, spared] = scores[:, spared]
        return found

    return changed


class Chooser:
    """Chooses the words of the rows of a batch, each as if it were alone.

    Args:
        said: per row, the words so far (prompt first); read, never changed.
        sample: draw words instead of taking the likeliest.
        never_guessed: tokens that a guess may not be.
        seed: each row draws from a generator of its own, so that company changes nothing.
    """

    def __init__(
        self,
        said: Sequence[list[int]],
        processors: Sequence[Processor],
        *,
        sample: bool,
        never_guessed: Sequence[int],
        seed: int = 0,
    ) -> None:
        self.said, self.processors, self.sample = said, processors, sample
        self.never_guessed = list(never_guessed)
        self.generators = [torch.Generator().manual_seed(_seed_of(seed, row)) for row in range(len(said))]
        self._scores = torch.empty(0)
        self._best: list[list[int]] = []

    def look(self, scores: Tensor) -> None:
        """The scores ``[B, Q, V]`` of the tokens just fed, which the next calls choose from."""
        self._scores = scores
        if not self.sample and not self.processors:
            self._best = _likeliest(scores)  # all at once: an accelerator is waited for only here

    def word(self, row: int, at: tuple[int, int], guess: Guess | None) -> int:
        """The word behind the token at this place of the scores; the guessed one exactly if that stands.

        Args:
            row: number among all rows.
            at: place in the batch that was fed.
            guess: of a word behind that token, if there is any.
        """
        if not self.sample and not self.processors:
            return self._best[at[0]][at[1]]
        scores = self._processed(row, at)
        if not self.sample:
            return int(scores.argmax())
        wanted = scores.softmax(-1)
        if guess is None:
            return self._draw(row, wanted)
        if guess.drawn_from is None:  # it was certain
            proposed = torch.zeros_like(wanted)
            proposed[guess.word] = 1
        else:
            proposed = guess.drawn_from
        chance = wanted[guess.word] / proposed[guess.word]
        if torch.rand((), generator=self.generators[row]) < chance.cpu():
            return guess.word
        left = (wanted - proposed).clamp(min=0)
        # nothing is left where both are alike but for rounding
        return self._draw(row, left if bool(left.any()) else wanted)

    def guess(self, row: int, at: tuple[int, int]) -> Guess:
        """A guess from a foresight token's scores."""
        if not self.sample and not self.processors and self._best[at[0]][at[1]] not in self.never_guessed:
            return Guess(self._best[at[0]][at[1]], None)
        ends = torch.tensor(self.never_guessed, device=self._scores.device)
        possible = self._scores[at].float().index_fill(0, ends, -torch.inf)
        scores = self._changed(row, possible).index_fill(0, ends, -torch.inf)
        if not self.sample:
            return Guess(int(scores.argmax()), None)
        if not bool((scores > -torch.inf).any()):  # a processor leaves nothing but ends
            return Guess(int(possible.argmax()), None)
        drawn_from = scores.softmax(-1)
        return Guess(self._draw(row, drawn_from), drawn_from)

    def _processed(self, row: int, at: tuple[int, int]) -> Tensor:
        return self._changed(row, self._scores[at].float())

    def _changed(self, row: int, scores: Tensor) -> Tensor:
        """Scores ``[V]`` as the processors change them."""
        scores = scores[None]
        if self.processors:
            words = torch.tensor([self.said[row]], device=scores.device)
            for process in self.processors:
                scores = process(words, scores)
        return scores[0]

    def _draw(self, row: int, weights: Tensor) -> int:
        # on the CPU in float64: the same seed gives the same words on any device
        sums = weights.double().cpu().cumsum(0)
        drawn = sums[-1] * torch.rand((), generator=self.generators[row], dtype=torch.float64)
        # a word without weight has the sum of the one before it; rounding must not reach beyond the last that has some
        return int(torch.searchsorted(sums, drawn.clamp(max=sums[-1].nextafter(sums.new_zeros(()))), right=True))


def _seed_of(seed: int, row: int) -> int:
    """Of a row: another one's only by chance, whatever seeds are tried one after the other."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{row}".encode(), digest_size=7).digest(), "big")


def _likeliest(scores: Tensor) -> list[list[int]]:
    """The likeliest word by row and place, ``[B, Q, V]`` -> ``[B][Q]``; the first where several are."""
    if scores.device.type == "cpu":  # numpy takes a fifth of the time that torch takes for so many words
        found: list[list[int]] = scores.float().numpy().argmax(-1).tolist()
        return found
    words: list[list[int]] = scores.argmax(-1).tolist()
    return words
