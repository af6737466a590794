"""A ratio for each chunk of a text (PoC, arXiv 2603.19733; section 2.3 of its specification, "chunks", variant a).

Chunks that can be cut hard are, and those that cannot are spared, so that the mean of what is predicted of each meets
the floor; a text has one curve otherwise, the mean of its chunks', and one ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from laconic.core.results import Compressed, Span, added
from laconic.core.segments import Range, segment
from laconic.errors import BudgetError, LaconicError
from laconic.methods.poc.predictor import CurvePredictor, TextCurve
from laconic.methods.poc.selection import GRID, Choice, Curve, Policy, select
from laconic.methods.roles import Compressor


def choose_each(text: TextCurve, floor: float, policy: Policy, least_ratio: float) -> tuple[list[Choice], Choice]:
    """A choice for each chunk, and what they come to: means weighted by tokens."""
    grid = [place / GRID for place in range(1, GRID)]
    by_chunk = text.by_chunk(grid).tolist()
    choices = [
        replace(select(looked_up(values), floor, policy=policy, least_ratio=least_ratio), feasible=True)
        for values in by_chunk
    ]
    weights = (text.weights / text.weights.sum()).tolist()
    ratio = sum(weight * one.ratio for weight, one in zip(weights, choices, strict=True))
    retention = sum(weight * one.retention for weight, one in zip(weights, choices, strict=True))
    return choices, Choice(ratio, retention, True, policy, [])


def looked_up(values: Sequence[float]) -> Curve:
    """A curve from its values on the search's grid."""
    return lambda ratios: [values[round(ratio * GRID) - 1] for ratio in ratios]


def compress_each(
    compressor: Compressor,
    predictor: CurvePredictor,
    context: str,
    query: str | None,
    ratios: Sequence[float],
) -> Compressed:
    """Each chunk at its ratio, one behind the other; those at ratio 1 as they are, and those with no part so short.

    Raises:
        LaconicError: the compressor leaves something else than text.
    """
    pieces = segment(predictor.backbone.tokenizer, context, predictor.config.chunk_tokens)
    parts: list[str] = []
    evidence: list[Span] = []
    seconds: dict[str, float] = {}
    stiff = 0
    for (start, end), ratio in zip(between_words(context, pieces.char_spans), ratios, strict=True):
        chunk = context[start:end]
        found = None if ratio >= 1 or not chunk.strip() else _compressed(compressor, chunk, query, ratio)
        if found is None:
            stiff += ratio < 1 and bool(chunk.strip())
            parts.append(chunk)
            evidence.append(Span(start, end, chunk))
            continue
        if found.text is None:
            raise LaconicError("Chunks are put together as text, and this compressor leaves vectors.", "Use another.")
        # white space between two chunks may belong to either, and either may be left as it is
        before, behind = chunk[: -len(chunk.lstrip())], chunk[len(chunk.rstrip()) :]
        parts.append(before + found.text.strip() + behind)
        evidence += [replace(span, start=span.start + start, end=span.end + start) for span in found.evidence]
        seconds = added(seconds, found.seconds)
    text = "".join(parts)
    tokens, left = len(pieces.ids), predictor.backbone.count_tokens(text)
    asked = sum(ratio * length for ratio, length in zip(ratios, pieces.lengths, strict=True)) / tokens
    notes = [f"{stiff} of {len(pieces)} chunks have no part so short, and are as they were"] if stiff else []
    return Compressed(tokens, left, asked, text=text, evidence=evidence, seconds=seconds, notes=notes)


def _compressed(compressor: Compressor, chunk: str, query: str | None, ratio: float) -> Compressed | None:
    try:
        return compressor.compress(chunk, query, ratio=ratio)
    except BudgetError:  # less than its shortest sentence
        return None


def between_words(text: str, spans: Sequence[Range]) -> list[Range]:
    """The same spans, each border moved on to the end of the word it cuts."""
    borders = [0]
    for _, end in spans:
        end = max(end, borders[-1])
        while 0 < end < len(text) and not text[end - 1].isspace() and not text[end].isspace():
            end += 1
        borders.append(end)
    return list(pairwise(borders))
