"""Cutting a written solution into thought steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from laconic.errors import DataError

#: a solution -> its steps
Segmenter = Callable[[str], list[str]]


class Tokens(Protocol):
    """What a segmenter by tokens needs of a tokenizer: where each token lies in the text."""

    def __call__(self, text: str, **options: bool) -> dict[str, list[tuple[int, int]]]: ...


def by_blank_line(text: str) -> list[str]:
    """Paragraphs, as LightThinker and its successors cut."""
    return _clean(re.split(r"\n\s*\n", text))


def by_line(text: str) -> list[str]:
    """Lines, as GSM8K's solutions are written."""
    return _clean(text.splitlines())


def by_sentence(text: str) -> list[str]:
    """Sentences: cut behind a full stop, an exclamation or a question mark before white space, and at line breaks."""
    return _clean(re.split(r"(?<=[.!?])\s+|\n+", text))


def by_tokens(count: int, tokenizer: Tokens) -> Segmenter:
    """Pieces of so many tokens each, cut at line breaks too (LightThinker's token level).

    They lose the space around them: alone, a piece may have a token more.

    Raises:
        DataError: fewer than one.
    """
    if count < 1:
        raise DataError(f"A step of {count} tokens is none.", "Ask for 1 or more.")

    def cut(text: str) -> list[str]:
        tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in tokens["offset_mapping"]]
        places = [0, *ends[count - 1 : -1 : count], len(text)]
        return _clean([text[start:end] for start, end in pairwise(places)])

    return lambda text: [piece for line in by_line(text) for piece in cut(line)]


SEGMENTERS: dict[str, Segmenter] = {"blank line": by_blank_line, "line": by_line, "sentence": by_sentence}


def _clean(steps: list[str]) -> list[str]:
    return [step.strip() for step in steps if step.strip()]
