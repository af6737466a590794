"""The predictor that reads the text (PoC, arXiv 2603.19733; section 2.3 of its specification).

The first layers of the backbone read a chunk of the text once; what they keep of it serves every ratio that is asked
about. A ratio is one soft token behind the chunk that reads the chunk and itself, never another ratio, so what is
predicted for one does not depend on which others are asked about, or in which order.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from transformers import Cache

from laconic.backbone import Backbone
from laconic.core.layout import Kind, Layout, batch, concatenate, run
from laconic.core.lora import add_lora
from laconic.core.memory_tokens import MemoryTokens
from laconic.core.method import TrainedMethod
from laconic.core.segments import require_question, require_text
from laconic.core.sharing import first_layers
from laconic.core.visibility import attention_mask, isolated_groups
from laconic.errors import LaconicError, QuestionError
from laconic.methods.poc.config import PoCConfig
from laconic.methods.poc.last_layer import cache_for, keys_alone
from laconic.methods.poc.promises import FILE as PROMISES
from laconic.methods.poc.promises import Promises
from laconic.methods.poc.selection import Curve
from laconic.methods.pruning.summary import SIZE

#: chunks that are read in one pass
ROWS = 32


@dataclass(frozen=True)
class Reading:
    """Chunks that the layers have read, for ratios to be asked about.

    Attributes:
        layout: ``[B, S]``, padded on the right.
        cache: keys and values of them.
        features: what the compressor found in the text that each is of, ``[B, F]``; None where that is not weighed.
    """

    layout: Layout
    cache: Cache
    features: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        return self.layout.real.sum(-1)


class CurvePredictor(TrainedMethod):
    """Retention of a text by ratio.

    Attributes:
        reader: the first layers of the backbone, with LoRA.
        query: the soft token that a ratio is added to.
        promises: how it did on held-out texts, once it is trained.
    """

    name = "poc"
    options = PoCConfig
    config: PoCConfig

    def __init__(self, backbone: Backbone, config: PoCConfig | None = None) -> None:
        super().__init__()
        self.config = config or PoCConfig()
        self.backbone = backbone
        self.reader = first_layers(backbone.base, self.config.layers)
        add_lora(self.reader, self.config.lora_rank, alpha=2 * self.config.lora_rank)
        start = backbone.token_ids("\n")[-1:]
        self.query = MemoryTokens(backbone.embed(torch.tensor(start, device=backbone.device)), 1, noise=0.0)
        monotone = self.config.head == "monotone"
        self.head = nn.Linear(backbone.width, self.config.knots + 1 if monotone else 1)
        nn.init.zeros_(self.head.weight)  # till it is trained, all texts are one to it
        if self.config.features:
            self.found = nn.Linear(SIZE, self.head.out_features, bias=False)
            nn.init.zeros_(self.found.weight)
        if not monotone:
            features = 2 * self.config.bands
            self.ratio = nn.Sequential(
                nn.Linear(features, backbone.width), nn.SiLU(), nn.Linear(backbone.width, backbone.width)
            )
            self._scale = float(self.query.weight.detach().std())
        self.promises: Promises | None = None
        self.to(backbone.device)

    @property
    def begun(self) -> bool:
        """Whether it has learnt to tell texts apart."""
        return bool(self.head.weight.any())

    def begin_with(self, curve: Curve) -> None:
        """Predict this curve for every text; what is learnt from there on is how texts differ.

        A sigmoid head has no curve to begin with, and is left as it is.
        """
        if self.config.head != "monotone":
            return
        pieces = self.config.knots
        values, before = [*curve([max(k / pieces, 1e-6) ** 2 for k in range(pieces)]), 1.0], 0.0
        steps = []
        for value in values:
            steps.append(max(value - before, 1e-3))
            before = max(value, before)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor(steps).log())

    def adapted(self) -> list[nn.Module]:
        return [self.reader]

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], backbone: Backbone) -> Self:
        predictor = super().from_pretrained(folder, backbone)
        for parameter in predictor.own_parameters().values():  # it may be saved in bfloat16
            parameter.data = parameter.data.float()
        return predictor

    def beside(self) -> dict[str, str]:
        """What may be promised, once that is known."""
        return {} if self.promises is None else {PROMISES: self.promises.to_text()}

    # --- texts ---------------------------------------------------------------------------------------------------

    def curve(self, context: str, query: str | None = None, features: Sequence[float] | None = None) -> TextCurve:
        """The curve of one text: the mean of its chunks' curves, weighted by their tokens.

        Args:
            features: what the compressor found in it (``roles.Telling``), where that is weighed.

        Raises:
            DocumentError: the text is empty.
            QuestionError: the predictor reads questions, and there is none, or it alone fills the window.
        """
        require_text(context)
        return TextCurve(self, self.chunks(context, query), features)

    def chunks(self, context: str, query: str | None = None) -> list[tuple[list[int], int]]:
        """Token ids of each chunk, behind the question where it is read, and how many are the text's own."""
        ahead = self.backbone.token_ids(require_question(query) + "\n") if self.config.query else []
        width = self.config.chunk_tokens
        if len(ahead) + width + 1 > self.backbone.window:
            raise QuestionError(
                f"A question of {len(ahead)} tokens leaves no room for {width} in the window of "
                f"{self.backbone.window}.",
                "Shorten the question.",
            )
        ids = self.backbone.token_ids(context)
        pieces = [ids[start : start + width] for start in range(0, len(ids), width)]
        return [(ahead + piece, len(piece)) for piece in pieces]

    # --- chunks --------------------------------------------------------------------------------------------------

    def read(self, rows: Sequence[Sequence[int]], features: Sequence[Sequence[float]] | None = None) -> Reading:
        """Read chunks side by side; none of them sees another.

        Args:
            features: of the text that each is of.

        Raises:
            LaconicError: they are weighed, and missing.
        """
        if self.config.features and (features is None or not all(len(own) == SIZE for own in features)):
            raise LaconicError(
                "This predictor weighs what its compressor found in a text, and was not told.",
                "Give features, from the compressor it was made with.",
            )
        device = self.backbone.device
        layouts = [run(Kind.TEXT, torch.arange(len(row))) for row in rows]
        layout = batch(layouts, "right").map(lambda field: field.to(device))
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
        cache = cache_for(self.config.layers)
        with keys_alone(cache):
            self._forward(self.reader.get_input_embeddings()(ids), layout, layout, cache)
        weighed = torch.tensor(features, dtype=torch.float32, device=device) if self.config.features else None
        return Reading(layout, cache, weighed)

    def retention(self, reading: Reading, ratios: Tensor) -> Tensor:
        """What is predicted of each chunk at ratios ``[B, n]`` in (0, 1], as ``[B, n]`` in [0, 1]."""
        found = 0.0 if reading.features is None else self.found(reading.features)
        if self.config.head == "monotone":
            hidden = self._asked(reading, self.query.weight.expand(len(ratios), 1, -1))
            return between_knots((self.head(hidden[:, 0]) + found).softmax(-1).cumsum(-1), ratios)
        soft = self.query.weight + self._scale * self.ratio(waves(ratios, self.config.bands))
        return (self.head(self._asked(reading, soft)).squeeze(-1) + found).sigmoid()

    def _asked(self, reading: Reading, soft: Tensor) -> Tensor:
        """Last states of soft tokens ``[B, n, D]`` behind the chunks, each by itself, in float32."""
        rows, count, _ = soft.shape
        device = soft.device
        position = reading.lengths[:, None].expand(rows, count)
        each = torch.arange(1, count + 1, device=device).expand(rows, count)
        asked = run(Kind.FORESIGHT, position)
        asked = Layout(asked.kind, each, asked.position, asked.label)
        hidden = self._forward(soft, concatenate([reading.layout, asked]), asked, reading.cache)
        reading.cache.crop(-count)
        return hidden.float()

    def _forward(self, embedded: Tensor, keys: Layout, queries: Layout, cache: Cache) -> Tensor:
        return self.reader(
            inputs_embeds=embedded.to(self.backbone.dtype),
            attention_mask=attention_mask(self.reader, isolated_groups, keys, len(queries)),
            position_ids=queries.position,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state


class TextCurve:
    """Retention of one text at any ratios; the text is read once."""

    def __init__(
        self,
        predictor: CurvePredictor,
        chunks: Sequence[tuple[list[int], int]],
        features: Sequence[float] | None = None,
    ) -> None:
        self.predictor = predictor
        parts = [[ids for ids, _ in chunks[first : first + ROWS]] for first in range(0, len(chunks), ROWS)]
        with torch.inference_mode():
            self.readings = [
                predictor.read(part, None if features is None else [features] * len(part)) for part in parts
            ]
        self.weights = torch.tensor([float(own) for _, own in chunks])

    @torch.inference_mode()
    def by_chunk(self, ratios: Sequence[float]) -> Tensor:
        """Of each chunk at each ratio, ``[chunks, n]``."""
        asked = torch.tensor(ratios, device=self.predictor.backbone.device, dtype=torch.float32)
        found = [
            self.predictor.retention(reading, asked.expand(len(reading.layout.kind), -1)) for reading in self.readings
        ]
        return torch.cat(found).cpu()

    def __call__(self, ratios: Sequence[float]) -> list[float]:
        weights = self.weights / self.weights.sum()
        return (weights[:, None] * self.by_chunk(ratios)).sum(0).tolist()


def waves(ratios: Tensor, bands: int) -> Tensor:
    """Sines and cosines of ratios ``[...]`` at doubling frequencies, ``[..., 2 * bands]``."""
    angles = ratios.unsqueeze(-1) * math.pi * 2.0 ** torch.arange(bands, device=ratios.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def between_knots(values: Tensor, ratios: Tensor) -> Tensor:
    """Straight lines between values ``[B, K + 1]`` at the ratios ``(k / K) ** 2``, at ratios ``[B, n]``.

    Knots are close together where compression is strong and curves are steep.
    """
    pieces = values.shape[-1] - 1
    at = ratios.clamp(0, 1)
    below = (at.sqrt() * pieces).floor().long().clamp(max=pieces - 1)
    low, high = (below / pieces) ** 2, ((below + 1) / pieces) ** 2
    share = ((at - low) / (high - low)).clamp(0, 1)
    first, last = values.gather(-1, below), values.gather(-1, below + 1)
    return first + share * (last - first)
