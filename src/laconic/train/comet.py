"""Training CoMeT: text cut into chunks, the loss carried back through the memory (section 3).

What a step trains on is a batch of rows with a chunk plan each. Labels are shifted over the whole text before it is
cut, so a chunk's last token learns the first of the next one; soft tokens learn nothing themselves.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from laconic.backbone import Backbone
from laconic.core.layout import IGNORE
from laconic.data.haystacks import Haystacks
from laconic.data.needles import Needle, draw_needles
from laconic.generation.answer import QUESTION_TEMPLATE
from laconic.methods.comet.model import CoMeT
from laconic.train.pipeline import ChunkPipeline


@dataclass(frozen=True)
class Example:
    """One row: token ids, the label of each token (already shifted), tokens per chunk."""

    ids: list[int]
    labels: list[int]
    plan: list[int]


class Targets:
    """The labels of a batch, chunk by chunk, and how many of them were met."""

    def __init__(self, batch: Sequence[Example]) -> None:
        self.rows = [torch.tensor(example.ids) for example in batch]
        self.plans = [example.plan for example in batch]
        self.labels = [torch.tensor(example.labels).split(example.plan) for example in batch]
        self.count = sum(label != IGNORE for example in batch for label in example.labels)
        self.right = 0
        self.whole = [True] * len(batch)

    def loss(self, comet: CoMeT, number: int, outputs: Tensor) -> Tensor | None:
        """What the rows' chunk of this number adds to the mean loss over all labels; None where it has no label.

        Args:
            outputs: of the last layer at its text tokens, row after row.
        """
        row_of = [row for row, parts in enumerate(self.labels) if number < len(parts) for _ in parts[number]]
        wanted = torch.cat([parts[number] for parts in self.labels if number < len(parts)])
        places = (wanted != IGNORE).nonzero()[:, 0]
        if not len(places):
            return None
        targets = wanted[places].to(outputs.device)
        logits = comet.logits(outputs[places.to(outputs.device)]).float()
        hits = (logits.argmax(-1) == targets).tolist()
        self.right += sum(hits)
        for place, hit in zip(places.tolist(), hits, strict=True):
            self.whole[row_of[place]] &= hit
        return nn.functional.cross_entropy(logits, targets, reduction="sum") / self.count


class ReadingStage(nn.Module):
    """Next-token loss through the memory, over whatever is labelled.

    Args:
        fifo_slots: capacities of the queue, one drawn for each step (what the queue still holds, the slots need not
            learn to keep); None leaves the configuration's.
        truncate: cut the gradient after every so many chunks; None carries it through all of them.
        save_activations: False recomputes each layer in the backward pass.
    """

    def __init__(
        self,
        comet: CoMeT,
        *,
        fifo_slots: Sequence[int] | None = None,
        truncate: int | None = None,
        save_activations: bool = True,
    ) -> None:
        super().__init__()
        self.comet, self.fifo_slots = comet, fifo_slots
        self.truncate, self.save_activations = truncate, save_activations

    def forward(self, batch: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """The mean loss over all labels of the batch, however they lie over rows and chunks."""
        targets = Targets(batch)
        total = torch.zeros((), device=self.comet.backbone.device)
        chunks = self.comet.chunks(
            targets.rows,
            targets.plans,
            save_activations=self.save_activations,
            truncate=self.truncate,
            capacity=drawn(self.fifo_slots),
        )
        for number, (outputs, _) in enumerate(chunks):
            part = targets.loss(self.comet, number, outputs)
            total = total if part is None else total + part
        whole = sum(targets.whole) / len(targets.whole)
        return total, {"token_accuracy": targets.right / max(targets.count, 1), "exact": whole}


class SharedReadingStage(nn.Module):
    """As ``ReadingStage``, each text spread over all processes (``laconic.train.pipeline``).

    Args:
        fifo_slots: as there.
        save_activations: False keeps the inputs of each layer alone.
    """

    def __init__(self, comet: CoMeT, *, fifo_slots: Sequence[int] | None = None, save_activations: bool = True) -> None:
        super().__init__()
        self.comet, self.fifo_slots = comet, fifo_slots
        self.pipeline = ChunkPipeline(comet, save_activations=save_activations)

    def forward(self, batch: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """This process's part of the loss; the numbers are of all of them."""
        targets = Targets(batch)
        local = partial(targets.loss, self.comet)
        loss = self.pipeline.loss(targets.rows, targets.plans, local, drawn(self.fifo_slots))
        seen = torch.tensor([loss.item(), targets.right, *(not whole for whole in targets.whole)])
        dist.all_reduce(seen)
        exact = (seen[2:] == 0).float().mean().item()
        return loss, {"loss": seen[0].item(), "token_accuracy": seen[1].item() / max(targets.count, 1), "exact": exact}

    def synchronise(self) -> None:
        """Sum the processes' gradients."""
        self.pipeline.all_reduce_gradients(self.comet.parameters())


def drawn(choices: Sequence[int] | None) -> int | None:
    """One of them, by torch's generator, which the loop seeds with the step's number."""
    return None if choices is None else choices[int(torch.randint(len(choices), ()))]


def token_haystacks(backbone: Backbone, texts: Sequence[str]) -> Haystacks[list[int]]:
    return Haystacks([backbone.token_ids(text) for text in texts], backbone.token_ids)


class NeedleExamples:
    """Needles behind some full chunks of book, then questions one after the other, each with its answer.

    A question that does not fit into the open chunk begins the next one, as when one is asked; so the memory must last
    through questions and answers as well.

    Args:
        kinds: of needles, drawn evenly.
        chunk_tokens: of a full chunk in training; a curriculum may begin with short ones.
        chunks: how many full chunks of book there are at least; drawn evenly, one number for a batch.
        questions: most needles that are asked for; drawn evenly from one on, as far as the text has room.
        distractors: most needles beside those that are asked for.
        rows: rows of a batch.
    """

    def __init__(
        self,
        comet: CoMeT,
        texts: Sequence[str],
        *,
        kinds: Sequence[str],
        chunk_tokens: int,
        chunks: Sequence[int],
        questions: int,
        distractors: int,
        rows: int,
        seed: int | str,
    ) -> None:
        self.backbone: Backbone = comet.backbone
        self.full = chunk_tokens
        self.haystacks = token_haystacks(comet.backbone, texts)
        self.kinds, self.chunk_counts = list(kinds), list(chunks)
        self.questions, self.distractors = questions, distractors
        self.rows, self.seed = rows, seed

    def __call__(self, index: int) -> list[Example]:
        draw = random.Random(f"{self.seed}/{index}")
        chunks = draw.choice(self.chunk_counts)
        return [self._row(chunks, draw) for _ in range(self.rows)]

    def _row(self, chunks: int, draw: random.Random) -> Example:
        # half of the rows end in a short rest of text
        rest = draw.randrange(self.full) if draw.random() < 0.5 else 0
        length = chunks * self.full + rest
        asked = draw.randint(1, self.questions)
        needles = self._fitting(draw_needles(self.kinds, asked + draw.randint(0, self.distractors), draw), length)
        ids = self.haystacks.hide(needles, length, draw).text
        labels, plan = [IGNORE] * len(ids), [self.full] * chunks + [rest] * (rest > 0)
        for needle in needles[:asked]:
            prompt = self.backbone.token_ids(QUESTION_TEMPLATE.format(question=needle.question))
            answer = [*self.backbone.token_ids(" " + needle.answer), self._end()]
            plan = asked_behind(plan, len(prompt) + len(answer), self.full)
            ids = [*ids, *prompt, *answer]
            labels = [*labels, *[IGNORE] * len(prompt), *answer]
        plan[-1] -= 1
        return Example(ids[:-1], labels[1:], plan)

    def _fitting(self, needles: list[Needle], length: int) -> list[Needle]:
        """As many of the needles as leave at least half of the text to the book; one at least."""
        spelled = [sum(len(self.backbone.token_ids(part)) for part in needle.sentences) for needle in needles]
        while len(spelled) > 1 and sum(spelled) > length // 2:
            spelled.pop()
        return needles[: len(spelled)]

    def _end(self) -> int:
        """The token that ends an answer: it is learnt too, or the reader would never stop."""
        end = self.backbone.tokenizer.eos_token_id
        assert isinstance(end, int)
        return end


def asked_behind(plan: list[int], size: int, full: int) -> list[int]:
    """A chunk plan with a question (and its answer) of so many tokens behind it: in the last chunk where it fits."""
    if plan[-1] + size <= full:
        return [*plan[:-1], plan[-1] + size]
    return [*plan, *[full] * (size // full), *[size % full] * (size % full > 0)]


class ReadOnExamples:
    """Running text to be continued: every token is labelled.

    Args:
        chunk_tokens: of a full chunk.
        chunks: full chunks of an example; drawn evenly, one number for a batch.
        rows: rows of a batch.
    """

    def __init__(
        self,
        comet: CoMeT,
        texts: Sequence[str],
        *,
        chunk_tokens: int,
        chunks: Sequence[int],
        rows: int,
        seed: int | str,
    ) -> None:
        self.full = chunk_tokens
        self.haystacks = token_haystacks(comet.backbone, texts)
        self.chunk_counts, self.rows, self.seed = list(chunks), rows, seed

    def __call__(self, index: int) -> list[Example]:
        draw = random.Random(f"{self.seed}/{index}")
        plan = [self.full] * draw.choice(self.chunk_counts)
        rows = [self.haystacks.cut(sum(plan) + 1, draw) for _ in range(self.rows)]
        return [Example(ids[:-1], ids[1:], plan) for ids in rows]


def parameters_of(comet: CoMeT, memory_rate: float) -> dict[str, tuple[list[nn.Parameter], float]]:
    """What is trained, and at which multiple of the learning rate: the memory learns faster than the decoder."""
    soft = [comet.readouts.weight, comet.compression.weight]
    memory = [*comet.memories.parameters(), *(p for p in soft if p.numel())]
    decoder: list[Any] = [] if comet.config.train == "memory" else list(comet.decoder.parameters())
    decoder = [p for p in decoder if p.requires_grad]
    trained = {"decoder": (decoder, 1.0), "memory": (memory, memory_rate)}
    return {name: pair for name, pair in trained.items() if pair[0]}
