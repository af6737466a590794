"""Solving problems with a method that reasons: text in, text and the bill out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from laconic.core.results import Stopwatch
from laconic.data.problems import stated_answer
from laconic.errors import LaconicError
from laconic.generation.choosing import processors_for
from laconic.generation.thinking import think
from laconic.generation.thought_rows import Thoughts

if TYPE_CHECKING:
    from laconic.methods.thinking.model import Thinker

#: told (row, text, its bill so far) as text comes
OnText = Callable[[int, str, Thoughts], None]


@dataclass(frozen=True)
class Solution:
    """What came of a problem.

    Attributes:
        text: all that was said, up to what stopped it.
        answer: what the text says its answer is; the last step where it says none.
        answer_stated: whether it says one.
        prompt_tokens: of the problem with what is around it.
        bill: words, passes, tokens in the cache.
        seconds: by stage, of the whole batch that the problem was solved in.
    """

    text: str
    steps: list[str]
    answer: str
    answer_stated: bool
    prompt_tokens: int
    bill: Thoughts
    seconds: dict[str, float]


def solve(
    thinker: Thinker,
    problems: Sequence[str],
    *,
    max_new_tokens: int = 1024,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
    two_passes: bool = False,
    on_text: OnText | None = None,
) -> list[Solution]:
    """Solve problems side by side.

    Args:
        temperature: 0 takes the likeliest word each time.
        repetition_penalty: divides the score of what was said before; the ends of steps are spared.
        stop: texts that end a solution, which do not belong to it.

    Raises:
        QuestionError: a problem is empty.
        BudgetError: a problem fills the window.
        LaconicError: a setting that means nothing.
    """
    check_stop(stop)
    for one in stop:
        if hidden := [token for token in thinker.backbone.tokenizer.all_special_tokens if token in one]:
            raise LaconicError(f"No text ever holds {hidden[0]!r}: it is a token of its own.", "Stop at other words.")
    settings = {"top_k": top_k, "top_p": top_p, "repetition_penalty": repetition_penalty}
    processors = processors_for(temperature=temperature, exempt=thinker.unpenalised, **settings)  # type: ignore[arg-type]
    prompts = [thinker.prompt_ids(problem) for problem in problems]
    streams = [_Stream(thinker, row, stop, on_text) for row in range(len(prompts))]
    watch = Stopwatch(thinker.backbone.device)
    found = think(
        thinker,
        prompts,
        max_new_tokens=max_new_tokens,
        processors=processors,
        sample=temperature > 0,
        seed=seed,
        stops=(lambda row, words: _holds(thinker, words, stop)) if stop else None,
        on_word=lambda row, word, bill: streams[row].push(word, bill),
        two_passes=two_passes,
        watch=watch,
    )
    for stream, thoughts in zip(streams, found, strict=True):
        stream.close(thoughts)
    return [
        solution_of(thinker, prompt, thoughts, stop, watch.seconds)
        for prompt, thoughts in zip(prompts, found, strict=True)
    ]


def check_stop(stop: Sequence[str]) -> None:
    """Raise ``LaconicError`` for what is no list of texts that may stop a solution."""
    if isinstance(stop, str) or not all(stop):
        raise LaconicError("A text that stops a solution is empty, or no list of texts is given.", "Give some words.")


def solution_of(
    thinker: Thinker, prompt: list[int], thoughts: Thoughts, stop: Sequence[str], seconds: dict[str, float]
) -> Solution:
    """What a row's words come to."""
    text = _text(thinker, thoughts.words)
    text = text[: _stopped_at(text, stop)]
    steps, before = list[str](), 0
    ends = [at for at, word in enumerate(thoughts.words) if word == thinker.step_end]
    for end in [*ends, len(thoughts.words)]:
        # up to where the text was cut off
        until = min(len(_text(thinker, thoughts.words[:end])), len(text))
        steps.append(text[before:until].strip())
        before = until
    steps = [step for step in steps if step]
    stated = stated_answer(text)
    answer = stated or (steps[-1] if steps else "")
    return Solution(text, steps, answer, bool(stated), len(prompt), thoughts, dict(seconds))


def _text(thinker: Thinker, words: Sequence[int]) -> str:
    return str(thinker.backbone.tokenizer.decode(words, skip_special_tokens=True))


def _holds(thinker: Thinker, words: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether the last words hold one of the texts: a text has at most as many tokens as bytes."""
    longest = max(len(text.encode()) for text in stop)
    tail = _text(thinker, words[-longest - 1 :])
    return any(text in tail for text in stop)


def settled(text: str, stop: Sequence[str]) -> int:
    """How many characters of a text belong to it whatever follows: up to one that stops it, or what may become one.

    Args:
        stop: texts that end it.
    """
    begun = [len(text) - size for one in stop for size in range(1, len(one)) if text.endswith(one[:size])]
    return min([_stopped_at(text, stop), *begun])


def _stopped_at(text: str, stop: Sequence[str]) -> int:
    """Where the first text that stops it begins; its length where there is none."""
    return min((at for at in (text.find(one) for one in stop) if at >= 0), default=len(text))


class _Stream:
    """Turns a row's words into text as they come; what may be cut off yet waits: half a character, half a stop text."""

    def __init__(self, thinker: Thinker, row: int, stop: Sequence[str], on_text: OnText | None) -> None:
        self.thinker, self.row, self.stop, self.on_text = thinker, row, stop, on_text
        self.words: list[int] = []
        self.shown = 0

    def push(self, word: int, bill: Thoughts) -> None:
        if self.on_text is None:
            return
        self.words.append(word)
        text = _text(self.thinker, self.words)
        if text.endswith("\ufffd") and word != self.thinker.step_end:
            return
        self._show(text[: settled(text, self.stop)], bill)
        if word == self.thinker.step_end and self.shown == len(text):  # what is decoded again and again stays short
            self.words, self.shown = [], 0

    def close(self, bill: Thoughts) -> None:
        """Show what waited in vain, if the text was not stopped there."""
        text = _text(self.thinker, self.words)
        text = text[: _stopped_at(text, self.stop)]
        if self.on_text is not None and self.shown < len(text):
            self._show(text, bill)

    def _show(self, text: str, bill: Thoughts) -> None:
        """Hand on what of this text has not been."""
        assert self.on_text is not None
        self.on_text(self.row, text[self.shown :], bill)
        self.shown = max(self.shown, len(text))
