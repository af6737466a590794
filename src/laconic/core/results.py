"""What a method hands back: the compressed context, the answer, and the bill for both."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Cache


@dataclass(frozen=True)
class Span:
    """A stretch of the document: ``document[start:end] == text`` (character offsets)."""

    start: int
    end: int
    text: str
    score: float | None = None


class Stopwatch:
    """Seconds by stage. ``with watch("encode"): ...`` adds to that stage; accelerators are synchronised first."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._settle()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._settle()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def _settle(self) -> None:
        # kernels run behind the host's back; an unsynchronised clock bills them to the next stage
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def added(*bills: Mapping[str, float]) -> dict[str, float]:
    """Seconds by stage of several bills together; a stage can stand in more than one of them."""
    stages = dict.fromkeys(stage for bill in bills for stage in bill)
    return {stage: sum(bill.get(stage, 0.0) for bill in bills) for stage in stages}


def peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in MiB."""
    if sys.platform == "win32":
        import psutil  # comes with accelerate

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@dataclass
class Compressed:
    """A document as the decoder will see it.

    Exactly one payload is set:

    - ``text``: plain text, fit for any language model;
    - ``embeddings`` ``[M, D]``: rows for ``inputs_embeds`` of the backbone the method was made for;
    - ``cache``: keys and values of a document already read (positions 0..``next_position``-1);
    - ``state``: whatever a reader of its own keeps of a document already read; for that reader alone.

    Lengths are counted in the reader's tokens; a skim vector counts as one.
    """

    document_tokens: int
    context_tokens: int
    requested_ratio: float
    text: str | None = None
    embeddings: torch.Tensor | None = None
    cache: Cache | None = None
    next_position: int | None = None
    state: Any = None
    evidence: list[Span] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        payloads = [p for p in (self.text, self.embeddings, self.cache, self.state) if p is not None]
        assert len(payloads) == 1, "a Compressed carries exactly one payload"

    @property
    def already_read(self) -> bool:
        """Whether a reader has been through it, so that a question costs the question alone."""
        return self.cache is not None or self.state is not None

    @property
    def delivered_ratio(self) -> float:
        """Kept fraction that was really delivered (tokens the decoder sees / tokens in)."""
        return self.context_tokens / self.document_tokens

    @property
    def delivered_factor(self) -> float:
        return self.document_tokens / max(self.context_tokens, 1)


def whole(text: str, tokens: int, *notes: str) -> Compressed:
    """A text of so many tokens as it is."""
    return Compressed(tokens, tokens, 1.0, text=text, evidence=[Span(0, len(text), text)], notes=list(notes))


@dataclass
class Answer:
    """A generated answer with its bill.

    ``prompt_tokens`` counts the question and its template, ``peak_cache_tokens`` the longest key/value cache of this
    row, ``peak_cache_bytes`` its keys and values in all layers.
    """

    text: str
    context: Compressed
    prompt_tokens: int
    generated_tokens: int
    peak_cache_tokens: int
    peak_cache_bytes: int
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage, the context's and the answer's own together."""
        return added(self.context.seconds, self.seconds)
