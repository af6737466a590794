"""The word classifier's stage, as recipes name it."""

from __future__ import annotations

from typing import Any

from laconic.core.options import Options
from laconic.data.schema import QAItem
from laconic.encoder import Encoder, load_encoder
from laconic.errors import RecipeError
from laconic.methods.pruning.classifier import ClassifierConfig, WordClassifier
from laconic.train.checks import positive
from laconic.train.classifier import ClassifierStage, Excerpts, Shares, labels_in
from laconic.train.documents import check_data, load_documents
from laconic.train.stages import StageTask, Usual


class ClassifierTrainer(Usual):
    """On excerpts of documents whose questions have their evidence marked."""

    options: type[Options] = ClassifierConfig
    look = "See recipes/classifier/cpu.yaml."

    def keys(self, stage: dict[str, Any]) -> tuple[str, ...]:
        return ("data", "rows", "characters", "answered", "unanswered")

    def open(self, recipe: dict[str, Any]) -> Encoder:
        return load_encoder(recipe["backbone"], device=recipe["device"])

    def check(self, stage: dict[str, Any], where: str) -> None:
        characters = stage["characters"]
        check_data(stage["data"], where, self.look)
        if not positive(stage["rows"]):
            raise RecipeError(f"{where}: rows must be a whole number above 0.", self.look)
        pair = isinstance(characters, list) and len(characters) == 2 and all(map(positive, characters))
        if not pair or characters[0] > characters[1]:
            raise RecipeError(f"{where}: characters must be two numbers, from and to.", self.look)
        shares = [stage["answered"], stage["unanswered"]]
        if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares) or sum(shares) > 1:
            raise RecipeError(f"{where}: answered and unanswered must be shares, 1 together at the most.", self.look)

    def data(self, stage: dict[str, Any]) -> list[QAItem]:
        return load_documents(stage)

    def make(self, backbone: Encoder, config: Any) -> WordClassifier:
        return WordClassifier(backbone, config)

    def task(self, method: WordClassifier, stage: dict[str, Any], data: list[QAItem], seed: int) -> StageTask:
        shares = Shares(stage["answered"], stage["unanswered"])
        characters = tuple(stage["characters"])
        excerpts = Excerpts(data, stage["rows"], characters, shares, f"{seed}/{stage['name']}")
        lora = [p for name, p in method.body.named_parameters() if "lora_" in name]
        heads = [p for part in (method.alone, method.asked) for p in part.parameters()]
        parameters = {"encoder": (lora, 1.0), "heads": (heads, 1.0), "weigh": (list(method.weigh.parameters()), 5.0)}
        return StageTask(ClassifierStage(method), excerpts, parameters, weight=labels_in)
