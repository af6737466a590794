"""Perplexity of running text, chunk by chunk: what the scripts that measure it share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

import torch
from torch import Tensor, nn

from laconic.backbone import Backbone
from laconic.data.books import load_books
from laconic.data.generated import BOOKS
from laconic.methods.comet.model import CoMeT
from laconic.train.reading_examples import token_haystacks

#: from a text's ids to the logits at each of its chunks
Reader = Callable[[Tensor], Sequence[Tensor]]


def pieces(backbone: Backbone, texts: int, tokens: int) -> list[Tensor]:
    """Of books that nothing was trained on."""
    books, draw = token_haystacks(backbone, load_books(BOOKS)), random.Random(0)
    return [torch.tensor(books.cut(tokens, draw)) for _ in range(texts)]


def behind_memory(comet: CoMeT) -> Reader:
    """Reads each chunk behind what CoMeT remembers of the ones before."""
    full = comet.config.chunk_tokens

    def read(ids: Tensor) -> list[Tensor]:
        plan = [len(part) for part in ids.split(full)]
        return [comet.logits(outputs) for outputs, _ in comet.chunks([ids], [plan])]

    return read


def apart(model: nn.Module, full: int) -> Reader:
    """Reads each chunk alone."""
    return lambda ids: [model(part[None]).logits[0] for part in ids.split(full)]


@torch.inference_mode()
def perplexities(readers: Mapping[str, Reader], texts: Sequence[Tensor], full: int) -> dict[str, list[float]]:
    """Of each chunk's tokens but its first, by reader; a full chunk has ``full`` tokens."""
    found = {}
    for name, read in readers.items():
        surprises = [list(map(surprise, read(ids), ids.split(full))) for ids in texts]
        found[name] = [math.exp(mean(of_chunk)) for of_chunk in zip(*surprises, strict=True)]
        print(name, found[name], flush=True)
    return found


def surprise(logits: Tensor, ids: Tensor) -> float:
    """Mean negative log likelihood of a chunk's tokens but the first, in nats."""
    return nn.functional.cross_entropy(logits[:-1].float(), ids[1:]).item()
