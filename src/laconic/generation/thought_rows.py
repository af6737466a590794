"""One row of a batch that reasons in steps: what it feeds next, and what it makes of the scores that come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from laconic.core.layout import Kind, Layout, concatenate, run
from laconic.core.positions import sequential
from laconic.core.thoughts import Shape, closing_rows
from laconic.generation.choosing import Chooser, Guess


@dataclass
class Thoughts:
    """What a row has said, and its bill.

    Attributes:
        words: token ids, the ends of steps included, the end of the whole left out.
        end: the token that ended it, if the model said one.
        stopped_by: ``end`` (the model's own), ``length``, ``stop`` (what the caller looks for), or ``window``.
        forwards: passes it took part in, the reading of its prompt left out.
        live: for every word, the tokens it is read with, itself included; foresight tokens and guesses left out.
        peak_tokens: most tokens of it that the cache held, the block just fed included, foresight tokens and guesses
            that did not stand left out.
        peak_fed: the same with those.
        token_bytes: what one token takes in the cache, over all layers.
        offered: how many guesses were looked at of the first word behind one that stands, of the second, and so on: a
            second one only where the first stood.
        accepted: how many of those stood.
        forced: places of the words that the model was not asked for: ends of steps that grew too long.
    """

    words: list[int] = field(default_factory=list)
    end: int | None = None
    stopped_by: str = ""
    forwards: int = 0
    live: list[int] = field(default_factory=list)
    peak_tokens: int = 0
    peak_fed: int = 0
    token_bytes: int = 0
    offered: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)

    @property
    def peak_bytes(self) -> int:
        return self.peak_fed * self.token_bytes

    @property
    def dependency(self) -> int:
        """Tokens read for all words together (LightThinker's Dep): the area under the curve of live tokens."""
        return sum(self.live)

    @property
    def tokens_per_forward(self) -> float:
        """Words per pass, the end among them; the first one comes with the prompt."""
        return (len(self.words) + (self.end is not None) - 1) / self.forwards if self.forwards else 0.0


@dataclass(frozen=True)
class Block:
    """What a row feeds in one pass.

    Attributes:
        layout, ids: ``[Q]``.
        speakers: places of the tokens that a word is said behind: the words, or the restart token of a closing.
        ahead: for each of them, the places of its foresight tokens.
        closes: whether it ends a step.
    """

    layout: Layout
    ids: Tensor
    speakers: list[int]
    ahead: list[list[int]]
    closes: bool

    def standing(self, guesses: int) -> list[bool]:
        """Which of its tokens stay, if so many of the guesses that were fed stood."""
        if self.closes:
            return (self.layout.kind != Kind.FORESIGHT).tolist()
        stays = [False] * len(self.layout)
        for place in self.speakers[: guesses + 1]:
            stays[place] = True
        return stays


@dataclass
class Row:
    """Where a row stands.

    Attributes:
        number: among all rows of the batch.
        said: its prompt and its words.
        step: number of the step it is in.
        start: position of that step's first word.
        fed: words of the step that the cache holds.
        held: tokens of the row that the cache holds.
        pending: the word that was said and not yet fed.
        guesses: of the words behind that one.
    """

    number: int
    said: list[int]
    thoughts: Thoughts = field(default_factory=Thoughts)
    step: int = 1
    start: int = 0
    fed: int = 0
    held: int = 0
    pending: int = -1
    guesses: list[Guess] = field(default_factory=list)

    def next_block(self, shape: Shape, ahead: int, window: int) -> Block:
        """The pending word with what is guessed behind it, or what closes the step.

        Args:
            ahead: foresight tokens behind every word.
            window: positions there are; guesses and foresight tokens beyond it are left out.
        """
        position = self.start + self.fed
        if self.pending == shape.step_end:
            return self._closing(shape, position, ahead, window)
        self.guesses = self.guesses[: max(window - position - 1, 0)]
        parts: list[Layout] = []
        ids: list[int] = []
        speakers: list[int] = []
        places: list[list[int]] = []
        for at, word in enumerate([self.pending, *(guess.word for guess in self.guesses)], position):
            fitting = min(ahead, max(window - at - 1, 0))
            speakers.append(len(ids))
            places.append(list(range(len(ids) + 1, len(ids) + 1 + fitting)))
            parts.append(run(Kind.TEXT, sequential(at, 1), step=self.step))
            if fitting:
                parts.append(run(Kind.FORESIGHT, sequential(at + 1, fitting), step=self.step))
            ids += [word] + [0] * fitting
        return Block(concatenate(parts), torch.tensor(ids), speakers, places, closes=False)

    def _closing(self, shape: Shape, position: int, ahead: int, window: int) -> Block:
        end = run(shape.end_kind, sequential(position, 1), step=self.step)
        closing, after = shape.closing(self.step, self.start, self.fed + 1)
        ahead = min(ahead, max(window - after, 0))
        foresight = run(Kind.FORESIGHT, sequential(after, ahead), step=self.step + 1)
        ids = torch.cat([torch.tensor([self.pending]), closing_rows(closing), torch.zeros(ahead, dtype=torch.long)])
        speaker = len(closing)  # its last token; the step's end itself, where nothing is compressed
        places = list(range(speaker + 1, speaker + 1 + ahead))
        return Block(concatenate([end, closing, foresight]), ids, [speaker], [places], closes=True)

    def fed_block(self, block: Block) -> None:
        """The pending word is in the cache now."""
        if block.closes:
            self.step += 1
            self.start = int(block.layout.position[block.speakers[0]]) + 1
            self.fed = 0
        else:
            self.fed += 1


@dataclass(frozen=True)
class Rules:
    """When a step is ended by force, and when a row.

    Attributes:
        stops: asked with (row, words so far) behind every word.
    """

    shape: Shape
    longest_step: int
    max_new_tokens: int
    stop_ids: frozenset[int]
    stops: Callable[[int, Sequence[int]], bool] | None

    def hear(
        self, row: Row, chooser: Chooser, place: int, speakers: Sequence[int], ahead: Sequence[Sequence[int]]
    ) -> int:
        """What the scores say: words as long as guesses stand, then a pending one with new guesses behind it.

        Args:
            place: the row's place in the batch that was fed.
            speakers, ahead: as those of its block, by column of the scores.

        Returns:
            How many of the guesses that were fed stood.
        """
        offered, row.guesses = row.guesses, []
        stood = 0
        while True:
            guess = offered[stood] if stood < len(offered) else None
            word = self._next(row, chooser, (place, speakers[stood]), guess)
            # a step's end waits: it is fed anew, with what closes the step
            stands = guess is not None and word == guess.word and word != self.shape.step_end
            if guess is not None:
                _count(row.thoughts, stood, stands)
            if not self._say(row, word):
                return stood
            if not stands:
                break
            row.fed += 1
            stood += 1
        if row.pending != self.shape.step_end:  # behind it come memory tokens, whose own guesses are better
            row.guesses = [chooser.guess(row.number, (place, column)) for column in ahead[stood]]
        return stood

    def _next(self, row: Row, chooser: Chooser, at: tuple[int, int], guess: Guess | None) -> int:
        if row.fed >= self.longest_step - 1:
            row.thoughts.forced.append(len(row.thoughts.words))
            return self.shape.step_end
        return chooser.word(row.number, at, guess)

    def _say(self, row: Row, word: int) -> bool:
        """Take a word over; False if the row ends with it or before it."""
        thoughts = row.thoughts
        if word in self.stop_ids:
            thoughts.stopped_by, thoughts.end = "end", word
            return False
        thoughts.words.append(word)
        row.said.append(word)
        row.pending = word
        if self.stops is not None and self.stops(row.number, thoughts.words):
            thoughts.stopped_by = "stop"
        elif len(thoughts.words) >= self.max_new_tokens:
            thoughts.stopped_by = "length"
        return not thoughts.stopped_by


def _count(thoughts: Thoughts, place: int, stands: bool) -> None:
    if place == len(thoughts.offered):
        thoughts.offered.append(0)
        thoughts.accepted.append(0)
    thoughts.offered[place] += 1
    thoughts.accepted[place] += stands
