"""Reasoning in thought steps: how a trace lies in a sequence, and what of a finished step can still be read.

``P  T_1 M_1 O_1  T_2 M_2 O_2 ...``: the prompt, then for each step its words (the last of which is the step's end, an
ordinary token), memory tokens that keep what it said, and a restart token that the next step begins from. Words are
what the model says itself; memory and restart tokens are put in by whoever runs it. In training a foresight token may
stand before every word, to guess one further ahead. Training, decoding and eviction all take their layout from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.core.layout import IGNORE, Kind, Layout, concatenate, run
from laconic.core.positions import Scheme, memory_positions, sequential
from laconic.core.visibility import Rule, Tokens


@dataclass(frozen=True)
class Trace:
    """A prompt and the steps that follow it, as token ids.

    Attributes:
        steps: words of each step, its end included; only the last may lack it (a trace that was cut off).
        end: the token behind the last step, which ends the sequence; None where the trace was cut off.
    """

    prompt: list[int]
    steps: list[list[int]]
    end: int | None


@dataclass(frozen=True)
class Shape:
    """How a method lays a finished step out.

    Attributes:
        step_end: the token that ends a step.
        memory: how many memory tokens keep a step of so many words (its end included); 0 anywhere means that steps are
            not compressed and have no restart token either.
        scheme: which positions memory tokens have.
        anchors: a step's end is itself what stays of the step.
    """

    step_end: int
    memory: Callable[[int], int]
    scheme: Scheme
    anchors: bool = False

    @property
    def end_kind(self) -> int:
        """What the token is that ends a step."""
        return Kind.ANCHOR if self.anchors else Kind.TEXT

    def closing(self, step: int, start: int, words: int) -> tuple[Layout, int]:
        """The memory and restart tokens of a step of so many words from ``start`` on, and where the next one starts."""
        count = self.memory(words)
        if not count:
            return run(Kind.MEMORY, sequential(0, 0), step=step), start + words
        places, after = memory_positions(self.scheme, start, words, count)
        restart = run(Kind.CONTINUE, sequential(after, 1), step=step)
        return concatenate([run(Kind.MEMORY, places, step=step), restart]), after + 1


def closing_rows(closing: Layout) -> Tensor:
    """Which of the method's rows the tokens of a step's closing are: memory tokens in order."""
    return torch.arange(len(closing)) * (closing.kind == Kind.MEMORY)


def lay_out(trace: Trace, shape: Shape, offset: int | None = None) -> tuple[Layout, Tensor]:
    """A trace as training sees it.

    Every word and the sequence's end is the label of the token that says it: the last of the prompt, the word before,
    or the restart token of the step before. Memory tokens and a step's end before them say nothing.

    Args:
        offset: put a foresight token before every word, each to guess the word ``offset`` behind that one, if its
            step has one: standing ``offset`` positions behind the word before, as the guess of a decoder does.

    Returns:
        The layout ``[T]``, and int64 ``[T]``: token ids of the prompt and the words, the number of each memory token,
        0 for the rest.
    """
    parts = [run(Kind.PROMPT, sequential(0, len(trace.prompt)))]
    ids = [torch.tensor(trace.prompt, dtype=torch.long)]
    start = len(trace.prompt)
    for step, words in enumerate(trace.steps, start=1):
        said = torch.tensor(words, dtype=torch.long)
        parts.append(run(Kind.TEXT, sequential(start, len(words)), step=step))
        ids.append(said)
        if words[-1] == shape.step_end:
            parts[-1].kind[-1] = shape.end_kind
            closing, start = shape.closing(step, start, len(words))
            parts.append(closing)
            ids.append(closing_rows(closing))
    layout, flat = concatenate(parts), torch.cat(ids)
    layout = Layout(layout.kind, layout.step, layout.position, _said_next(layout, flat, trace.end))
    return (layout, flat) if offset is None else _with_foresight(layout, flat, offset)


def _said_next(layout: Layout, ids: Tensor, end: int | None) -> Tensor:
    label = torch.full_like(ids, IGNORE)
    spoken = _is_word(layout.kind[1:])
    label[:-1][spoken] = ids[1:][spoken]
    if end is not None:
        label[-1] = end
    return label


def _is_word(kind: Tensor) -> Tensor:
    return (kind == Kind.TEXT) | (kind == Kind.ANCHOR)


def _with_foresight(layout: Layout, ids: Tensor, offset: int) -> tuple[Layout, Tensor]:
    """A foresight token before every word; section 3 of MemoSight's specification."""
    words = _is_word(layout.kind).nonzero()[:, 0]
    step, position = layout.step[words], layout.position[words]
    # the last word of the step that a word is in, by place among the words
    last = torch.searchsorted(step, step, right=True) - 1
    number = torch.arange(len(words))
    target = number + offset
    inside = target <= last
    guess = ids[words][target.clamp(max=len(words) - 1)].masked_fill(~inside, IGNORE)
    ahead = Layout(
        kind=torch.full_like(words, Kind.FORESIGHT),
        step=step,
        position=torch.minimum(position + offset - 1, position[last]),
        label=guess,
    )
    order = torch.cat([2 * torch.arange(len(layout)) + 1, 2 * words]).argsort()
    joined = concatenate([layout, ahead]).map(lambda field: field[order])
    return joined, torch.cat([ids, torch.zeros_like(words)])[order]


def finished_words_hidden(reach: int | Tensor, gap: bool = False) -> Rule:
    """Words of a finished step are read by the next ``reach`` steps, through those steps' memory tokens, and then gone.

    A restart token already reads as the step it begins: not the words of the step it closes, unless these reach on.
    Prompt, memory and restart tokens stay readable for ever, foresight tokens are read by nobody else.

    Args:
        reach: of every step, or of each: int64 ``[B, steps + 1]`` by row and number of the step.
        gap: a step reads the words of the one ``reach`` steps before and of none between (an ablation).
    """

    def rule(q: Tokens, k: Tokens) -> Tensor:
        allowed = reach if isinstance(reach, int) else reach[q.row, k.step]
        behind = q.step - k.step + (q.kind == Kind.CONTINUE).long()
        near = (behind == 0) | (behind == allowed) if gap else behind <= allowed
        return (k.kind != Kind.FORESIGHT) & ((k.kind != Kind.TEXT) | near)

    return rule


def documents_apart(rule: Rule, document: Tensor) -> Rule:
    """The same rule for several sequences in one row, which do not see each other.

    Args:
        document: int64 ``[B, T]``, the number of the sequence each token belongs to.
    """

    def apart(q: Tokens, k: Tokens) -> Tensor:
        return (document[q.row, q.column] == document[k.row, k.column]) & rule(q, k)

    return apart


def to_come(step: int, reach: int, position: int = 0) -> Layout:
    """The kinds of tokens that can still follow in step ``step`` and after it, for ``readable_by``.

    Args:
        position: of the next token, for rules that go by positions and show less the further one comes.
    """
    kinds = (Kind.TEXT, Kind.MEMORY, Kind.CONTINUE)
    steps: Sequence[int] = range(step, step + reach + 1)
    return concatenate([run(kind, sequential(position, 1), step=number) for number in steps for kind in kinds])
