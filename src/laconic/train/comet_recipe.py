"""CoMeT's stages, as recipes name them."""

from __future__ import annotations

from typing import Any

import yaml
from accelerate import PartialState

from laconic.backbone import Backbone
from laconic.data.schema import QAItem
from laconic.errors import RecipeError
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.model import CoMeT
from laconic.train import documents, reading_data
from laconic.train.checks import above_zero, positive
from laconic.train.comet import ReadingStage, SharedReadingStage, parameters_of
from laconic.train.documents import check_documents, load_documents
from laconic.train.gates import GateLesson, GateTask
from laconic.train.reading_data import ReadingData, check_reading, hides, load_reading, reading_examples
from laconic.train.stages import OnDecoder, Stage, StageTask, check_precision, on_own_answers, policy
from laconic.train.targets import labels_in

#: what a stage on written text says besides the memory's rate
WRITTEN = (
    *reading_data.KEYS, "asides", "interludes", "fifo_slots", "truncate", "save_activations", "share_text", "gates",
)  # fmt: skip


class CoMeTTrainer(OnDecoder):
    """A stage mixes tasks, each step one: needles in books, questions about documents, and reading on.

    Its name is free, so that a curriculum can have as many as it takes. With ``share_text``, the processes of a
    distributed run take parts of one text each, instead of texts of their own. A stage with an ``objective`` asks
    questions about documents, and trains on what is answered.
    """

    options = CoMeTConfig
    look = "See recipes/comet/cpu.yaml."

    def keys(self, stage: dict[str, Any]) -> tuple[str, ...]:
        return ("memory_rate", *((*documents.KEYS, *policy().KEYS) if on_own_answers(stage) else WRITTEN))

    def check(self, stage: dict[str, Any], where: str) -> None:
        if not above_zero(stage["memory_rate"]):
            raise RecipeError(f"{where}: memory_rate must be a number above 0.", self.look)
        if on_own_answers(stage):
            policy().check_policy(stage, where)
            check_documents(stage, where, self.look)
        else:
            self._check_written(stage, where)

    def _check_written(self, stage: dict[str, Any], where: str) -> None:
        check_reading(stage, where, self.look)
        slots = stage["fifo_slots"]
        if slots is not None and not (isinstance(slots, list) and slots and all(n == 0 or positive(n) for n in slots)):
            raise RecipeError(f"{where}: fifo_slots must be null, or a list of whole numbers.", self.look)
        lengths = stage["interludes"]
        if not isinstance(lengths, list) or not lengths or not all(n == 0 or positive(n) for n in lengths):
            raise RecipeError(f"{where}: interludes must be a list of whole numbers.", self.look)
        truncate = stage["truncate"]
        if truncate is not None and not positive(truncate):
            raise RecipeError(f"{where}: truncate must be null, or a whole number of chunks.", self.look)
        for key in ("asides", "save_activations", "share_text"):
            if not isinstance(stage[key], bool):
                raise RecipeError(f"{where}: {key} must be true or false.", self.look)
        if stage["asides"] and not any(map(hides, stage["task"])):
            raise RecipeError(
                f"{where}: asides ask for needles and stories, and no task has any.", "Set asides: false."
            )
        if any(lengths) and not any(map(hides, stage["task"])):
            raise RecipeError(
                f"{where}: interludes part needles and stories from their questions, and no task has any.",
                "Set interludes: [0].",
            )
        if stage["share_text"] and any(lengths):
            raise RecipeError(f"{where}: a text that is shared has no interludes.", "Set interludes: [0].")
        if stage["share_text"] and stage["asides"]:
            raise RecipeError(f"{where}: of a text that is shared nothing is asked aside.", "Set asides: false.")
        if stage["share_text"] and truncate is not None:
            raise RecipeError(
                f"{where}: a text that is shared carries its gradient all the way.", "Set truncate: null."
            )
        if stage["gates"] is not None:
            self._check_gates(stage, where)

    def _check_gates(self, stage: dict[str, Any], where: str) -> None:
        gates = stage["gates"]
        how = set(gates) - {"layers"} if isinstance(gates, dict) and positive(gates.get("layers")) else set()
        taught = how == {"batches"} and positive(gates["batches"])
        weight = gates["told"] if how == {"told"} else None
        told = above_zero(weight) or (weight == 0 and weight is not False)
        if not (taught or told):
            raise RecipeError(
                f"{where}: gates must be null, or say of how many layers they are, and how they learn.",
                "Write gates: {layers: 7, batches: 40} to teach them alone, {layers: 7, told: 0.1} to train all else "
                "while they are told what to do, and taught at that weight.",
            )
        needed: dict[str, object]
        if told:
            needed, why = {"save_activations": True, "share_text": False}, "gates are told"
            if not any(map(hides, stage["task"])):
                raise RecipeError(
                    f"{where}: gates are told where needles and stories lie, and no task has any.", "Set gates: null."
                )
        else:
            needed = {"asides": False, "interludes": [0], "truncate": None, "share_text": False, "memory_rate": 1.0}
            why = "gates are taught"
            if not all(map(hides, stage["task"])):
                raise RecipeError(
                    f"{where}: gates are taught by needles and stories alone: of other text it is not known what to "
                    "keep.",
                    "Leave other tasks to a stage with gates: null.",
                )
            if min(stage["chunks"]) < 2:
                raise RecipeError(
                    f"{where}: the first chunk of a text passes no gate, so gates are taught by texts of two and more.",
                    "Set chunks to numbers above 1.",
                )
        for key, value in needed.items():
            if stage[key] != value:
                written = yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
                raise RecipeError(f"{where}: where {why}, {key} must be {written}.", f"Set {key}: {written}.")

    def data(self, stage: dict[str, Any]) -> ReadingData | list[QAItem]:
        return load_documents(stage) if on_own_answers(stage) else load_reading(stage)

    def make(self, backbone: Backbone, config: CoMeTConfig) -> CoMeT:
        """Raises ``RecipeError`` where there is no memory, or the optimiser's small steps would be rounded away."""
        if not (config.global_slots or config.fifo_slots):
            raise RecipeError(
                "A CoMeT without slots and without a queue has no memory to train.",
                "Set comet.global_slots or comet.fifo_slots; recipes/sft trains a decoder without a memory.",
            )
        check_precision(config, backbone)
        return CoMeT(backbone, config)

    def task(self, method: CoMeT, stage: dict[str, Any], data: Any, seed: int) -> Stage:
        """Raises ``RecipeError`` for a stage that does not go with the method's sizes."""
        parameters = parameters_of(method, stage["memory_rate"])
        if on_own_answers(stage):
            return policy().comet_task(method, stage, data, list(parameters.values()), seed)
        full, slots, save = stage["chunk_tokens"], stage["fifo_slots"], stage["save_activations"]
        if full > method.config.chunk_tokens:
            raise RecipeError(
                f"The stage {stage['name']} has chunks of {full} tokens, and a full one has "
                f"{method.config.chunk_tokens}.",
                "Raise comet.chunk_tokens.",
            )
        if slots and max(slots) > method.config.fifo_slots:
            raise RecipeError(
                f"The stage {stage['name']} has {max(slots)} fifo_slots, the method {method.config.fifo_slots}.",
                "Raise comet.fifo_slots.",
            )
        examples = reading_examples(method.backbone, stage, data, seed, stage["asides"], stage["interludes"])
        gates = {"layers": 0, "told": 0.0, "batches": 0} | (stage["gates"] or {})
        told, taught = gates["layers"], gates["batches"]
        has = len(method.cells) if method.config.gate and method.config.global_slots else 0
        if told > has:
            raise RecipeError(
                f"The stage {stage['name']} is about the gates of {told} layers, and the method has {has}.",
                "Set gates: null, or fewer layers.",
            )
        if taught:
            return GateTask(GateLesson(method, told, map(examples, range(taught)), slots))
        processes = PartialState(cpu=method.backbone.device.type == "cpu").num_processes
        if stage["share_text"] and processes > 1:  # one process has nobody to share with
            shared = SharedReadingStage(method, fifo_slots=slots, save_activations=save)
            return StageTask(shared, examples, parameters, shared.synchronise, labels_in)
        alone = ReadingStage(
            method,
            fifo_slots=slots,
            truncate=stage["truncate"],
            save_activations=save,
            told=told,
            lesson=float(gates["told"]),
        )
        return StageTask(alone, examples, parameters, weight=labels_in)
