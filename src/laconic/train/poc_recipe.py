"""The stages of PoC's predictor, as recipes name them, and what may be promised once it is trained."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from laconic.backbone import Backbone
from laconic.core.options import Options
from laconic.errors import DataError, RecipeError
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.config import PoCConfig
from laconic.methods.poc.labels import Labelled, Made, read_labels, source_of
from laconic.methods.poc.predictor import CurvePredictor
from laconic.methods.poc.promises import Promises, common_ratios, outcomes_of, split
from laconic.methods.poc.steering import served
from laconic.train.checks import positive
from laconic.train.poc import LabelledTexts, PredictorStage, labels_in
from laconic.train.stages import OnDecoder, StageTask

#: multiples of the learning rate: what the compressor found is ten numbers, of which little can be learnt that is wrong
RATES = {"reader": 1.0, "head": 5.0, "found": 100.0}


@dataclass(frozen=True)
class Source:
    """What a stage's files of labels hold."""

    made: Made
    texts: list[Labelled]


class PoCTrainer(OnDecoder):
    """On files that ``laconic label`` made, documents split into training, validation and calibration."""

    options: type[Options] = PoCConfig
    look = "See recipes/poc/cpu.yaml."

    def keys(self, stage: dict[str, Any]) -> tuple[str, ...]:
        return ("labels", "rows")

    def check(self, stage: dict[str, Any], where: str) -> None:
        labels = stage["labels"]
        if not isinstance(labels, list) or not labels or not all(isinstance(one, str) for one in labels):
            raise RecipeError(f"{where}: labels must be a list of files.", self.look)
        if not positive(stage["rows"]):
            raise RecipeError(f"{where}: rows must be a whole number above 0.", self.look)

    def data(self, stage: dict[str, Any]) -> Source:
        source = Source(*read_labels(stage["labels"]))
        if not split(source.texts, "train") or not split(source.texts, "calibration"):
            raise DataError("Too few documents are labelled to train on some and hold others out.", "Label more.")
        if not common_ratios(split(source.texts, "calibration")):
            raise DataError(
                "The texts held out for promises are labelled at no ratio in common.",
                "Label them at one list: `laconic label TASK --split calibration --ratios 0.1,0.2,0.3,...`.",
            )
        return source

    def make(self, backbone: Backbone, config: PoCConfig) -> CurvePredictor:
        return CurvePredictor(backbone, config)

    def task(self, method: CurvePredictor, stage: dict[str, Any], data: Source, seed: int) -> StageTask:
        _with_backbone(data.made, method).require(data.made, "The file of labels")
        if method.config.features and not all(one.features for one in data.texts):
            raise DataError(
                "The recipe weighs what the compressor found in a text, and the labels do not say.",
                "Set features: false, or label anew, with the classifier.",
            )
        trained = [one.labels for one in split(data.texts, "train") if one.labels is not None]
        if not method.begun:  # by another training that this goes on from
            method.begin_with(AverageCurve.of(trained))
        texts = LabelledTexts(split(data.texts, "train"), stage["rows"], f"{seed}/{stage['name']}")
        parts: dict[str, tuple[list[Any], float]] = {part: ([], rate) for part, rate in RATES.items()}
        for name, parameter in method.own_parameters().items():
            part = name.partition(".")[0]
            if part != "reader" or "lora_" in name:
                parts[part if part in RATES else "head"][0].append(parameter)
        parts = {part: one for part, one in parts.items() if one[0]}
        return StageTask(PredictorStage(method), texts, parts, weight=labels_in)

    def marks(self, data: Sequence[Source]) -> dict[str, Any]:
        """A digest of the labels: a file may be made anew under its name."""
        content = json.dumps([[asdict(one.made), [asdict(text) for text in one.texts]] for one in data])
        return {"labels": hashlib.sha256(content.encode()).hexdigest()[:16]} if data else {}

    def finish(self, method: CurvePredictor, data: Sequence[Source]) -> None:
        """Run selection on the held-out texts, for every target."""
        if not data:  # an average of others, which nothing is known of yet
            return
        predictor = _as_served(method)
        last = data[-1]
        trained, held = (split(last.texts, name) for name in ("train", "calibration"))
        ratios = common_ratios(held)
        outcomes = [
            outcomes_of(predictor.curve(one.context, one.question, one.features), one.labels, ratios)
            for one in held
            if one.labels is not None
        ]
        known = [one.labels for one in trained if one.labels is not None]
        documents = [hashlib.sha256(source_of(one.document).encode()).hexdigest()[:12] for one in held]
        method.promises = Promises(
            last.made, outcomes, documents, ratios, AverageCurve.of(known), AverageCurve.by_task(known)
        )


def _as_served(method: CurvePredictor) -> CurvePredictor:
    """What a user will load: rounded as it is saved, and merged. Promises are about that."""
    with tempfile.TemporaryDirectory() as folder:
        method.save_pretrained(folder, dtype=torch.bfloat16)
        return served(method.backbone, folder)


def _with_backbone(made: Made, method: CurvePredictor) -> Made:
    return Made(method.backbone.content_hash, made.reader, made.compressor, made.prompt, made.metrics)
