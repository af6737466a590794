"""Training PoC's predictor: squared error of predicted retention, over texts and their labelled ratios."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from laconic.methods.poc.labels import Labelled, Labels
from laconic.methods.poc.predictor import CurvePredictor


class LabelledTexts:
    """Texts of a step; every text comes once before any comes again."""

    def __init__(self, texts: Sequence[Labelled], rows: int, seed: int | str) -> None:
        self.texts, self.rows, self.seed = list(texts), rows, seed

    def __call__(self, step: int) -> list[Labelled]:
        found = []
        for number in range(step * self.rows, (step + 1) * self.rows):
            epoch, place = divmod(number, len(self.texts))
            order = list(range(len(self.texts)))
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
            found.append(self.texts[order[place]])
        return found


class PredictorStage(nn.Module):
    """The mean of ``(predicted - true) ** 2`` over all ratios of all texts; what is true is clipped to [0, 1]."""

    def __init__(self, predictor: CurvePredictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, texts: Sequence[Labelled]) -> tuple[Tensor, dict[str, float]]:
        predicted, true, known = predicted_and_true(self.predictor, texts)
        errors = (predicted - true)[known]
        return errors.square().mean(), {"mae": errors.abs().mean().item()}


def predicted_and_true(predictor: CurvePredictor, texts: Sequence[Labelled]) -> tuple[Tensor, Tensor, Tensor]:
    """Retention of each text at each of its ratios, predicted and true ``[B, n]``, and which of them there are."""
    chunks = [predictor.chunks(one.context, one.question) for one in texts]
    owner = torch.tensor([place for place, own in enumerate(chunks) for _ in own])
    weight = torch.tensor([float(tokens) for own in chunks for _, tokens in own])
    labels = [_labels(one) for one in texts]
    most = max(len(one.scores) for one in labels)
    ratios, true = torch.ones(len(texts), most), torch.ones(len(texts), most)
    known = torch.zeros(len(texts), most, dtype=torch.bool)
    for place, one in enumerate(labels):
        for column, ratio in enumerate(sorted(one.scores)):
            ratios[place, column], known[place, column] = ratio, True
            true[place, column] = min(max(one.retention(ratio), 0.0), 1.0)
    device = predictor.backbone.device
    features = [one.features for one, own in zip(texts, chunks, strict=True) for _ in own]
    reading = predictor.read([ids for own in chunks for ids, _ in own], features)
    by_chunk = predictor.retention(reading, ratios[owner].to(device)).float()
    share = (weight / torch.zeros(len(texts)).index_add(0, owner, weight)[owner]).to(device)
    predicted = by_chunk.new_zeros(len(texts), most).index_add(0, owner.to(device), by_chunk * share[:, None])
    return predicted, true.to(device), known.to(device)


def _labels(one: Labelled) -> Labels:
    assert one.labels is not None, "texts that score nothing when whole are left out"
    return one.labels


def labels_in(texts: Sequence[Labelled]) -> float:
    return float(sum(len(_labels(one).scores) for one in texts))
