"""RAM's stages, as recipes name them."""

from __future__ import annotations

from typing import Any

from torch import nn

from laconic.backbone import Backbone
from laconic.data.schema import QAItem
from laconic.errors import RecipeError
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.model import RAM
from laconic.train import documents
from laconic.train.checks import above_zero, positive
from laconic.train.documents import DocumentGroups, check_documents, load_documents
from laconic.train.ram import ReaderStage, RelevanceStage
from laconic.train.stages import OnDecoder, Stage, StageTask, on_own_answers, policy

STAGES = ("relevance", "head", "reader")


class RAMTrainer(OnDecoder):
    """Relevance (encoder and score), the score's head alone, or the reader."""

    options = RAMConfig
    look = "See recipes/ram/cpu.yaml."

    def keys(self, stage: dict[str, Any]) -> tuple[str, ...]:
        return (*documents.KEYS, *(("factor", *policy().KEYS) if on_own_answers(stage) else ("questions",)))

    def check(self, stage: dict[str, Any], where: str) -> None:
        if on_own_answers(stage):
            policy().check_policy(stage, where)
            if not above_zero(stage["factor"]) or stage["factor"] < 1:
                raise RecipeError(f"{where}: factor must be a number, 1 or more.", self.look)
        else:
            if stage["name"] not in STAGES:
                raise RecipeError(f"{where} is called {stage['name']!r}.", f"RAM has the stages {', '.join(STAGES)}.")
            if not positive(stage["questions"]):
                raise RecipeError(f"{where}: questions must be a whole number above 0.", self.look)
        check_documents(stage, where, self.look)

    def data(self, stage: dict[str, Any]) -> list[QAItem]:
        return load_documents(stage)

    def make(self, backbone: Backbone, config: RAMConfig) -> RAM:
        return RAM(backbone, config)

    def task(self, method: RAM, stage: dict[str, Any], data: list[QAItem], seed: int) -> Stage:
        if on_own_answers(stage):
            return policy().ram_task(method, stage, data, self._reader(method), seed)
        excerpt = tuple(stage["excerpt"]) if stage["excerpt"] else None
        groups = DocumentGroups(data, stage["questions"], excerpt, seed)
        if stage["name"] in ("relevance", "head"):
            scalars = method.relevance.weights
            head = [p for p in method.relevance.parameters() if all(p is not s for s in scalars)]
            parameters = {"head": (head, 1.0), "weights": (scalars, 10.0)}
            if stage["name"] == "relevance":  # a head alone leaves the encoder, and so the skim vectors, as they are
                encoder = method.encoder.named_parameters()
                adapted = [p for n, p in encoder if method.config.encoder_rank == 0 or "lora_" in n]
                parameters = {"encoder": (adapted, 1.0), **parameters}
            parameters = {name: trained for name, trained in parameters.items() if trained[0]}
            if not parameters:
                raise RecipeError("The score has no head and no weights to train.", "Leave the stage out.")
            return StageTask(RelevanceStage(method), groups, parameters)
        lora = self._reader(method)
        own = {id(p) for p in method.own_parameters().values()}
        align = [p for p in method.align.parameters() if id(p) in own]  # a fusion layer shares the backbone's norm
        return StageTask(ReaderStage(method), groups, {"decoder": (lora, 1.0), "align": (align, 1.0)})

    def _reader(self, method: RAM) -> list[nn.Parameter]:
        """What of the decoder is trained."""
        lora = [p for n, p in method.decoder.named_parameters() if "lora_" in n]
        if not lora:
            raise RecipeError("decoder_rank is 0: there is no reader to train.", "Set ram.decoder_rank.")
        return lora
