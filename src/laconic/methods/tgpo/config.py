"""The options of TGPO and its rivals, beside those of TRL's GRPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args

from trl import GRPOConfig

from laconic.errors import LaconicError
from laconic.losses.schedules import Shape, Weight

Objective = Literal["tgpo", "grpo", "rkl", "kdrl", "adv_match", "adv_state", "gkd", "luffy", "sft"]
Gate = Literal["all", "mismatch", "confident", "incorrect", "first", "entropy"]
#: the option that has layers computed again in the backward pass, which transformers renamed in 5.23
COMPUTED_AGAIN = (
    "activation_checkpointing"
    if "activation_checkpointing" in {one.name for one in fields(GRPOConfig)}
    else "gradient_checkpointing"
)
#: objectives that no teacher is asked for
ALONE = ("grpo", "luffy", "sft")
#: those whose loss knows no advantage, and no weight
REWARDLESS = ("gkd", "sft")
#: those that learn from answers that are given
FROM_GIVEN = ("luffy", "sft")
#: those whose loss is the policy's alone
ONE_TERM = ("grpo", "rkl", "adv_match", "adv_state")
#: those that compare what was drawn, at whatever temperature, with a teacher that knows none
AT_ONE = ("rkl", "kdrl", "gkd")
#: loss types of TRL whose normaliser the teacher's term can share
LOSS_TYPES = ("dapo", "grpo", "bnpo", "dr_grpo")


@dataclass
class TGPOConfig(GRPOConfig):
    """TGPO (arXiv 2605.13230) on TRL's GRPO; see section 2 of its specification.

    Attributes:
        objective: ``tgpo`` adds guidance to GRPO's loss; ``rkl`` replaces the reward by the reverse-KL advantage
            (whatever the weight, which must be constant); ``kdrl`` adds its squared log-ratio;
            ``adv_match`` and ``adv_state`` add to the advantage; ``gkd`` minimises the divergence ``gkd_beta`` of the
            two and ``sft`` the surprise at what was said, without rewards, weight or gate; ``luffy`` learns from
            answers that are given, among the student's own; ``grpo`` asks no teacher, nor do ``sft`` and ``luffy``.
        teacher_weight, teacher_weight_least, teacher_weight_fall, teacher_schedule, teacher_batches: the weight of the
            teacher's part by the batch of roll-outs, see ``losses.schedules``.
        gate: positions that are guided: all; those where the teacher would say something else; those where it is surer
            than ``gate_threshold``; answers that were no better than their group; the first share ``gate_threshold``
            of an answer; the share ``gate_threshold`` of all tokens of a batch where the student is least decided.
        teacher_by_problem: the weight of guidance times ``4 p (1 - p)``, p the mean reward of a problem's answers:
            problems that are always or never solved are not guided.
        log_gradients: note how strongly policy and teacher pull: norms of both terms' gradients on the decoder's last
            states, for which the vocabulary is gone through once more each.
        gkd_beta: 0: forward KL; 1: reverse KL; between: generalised Jensen-Shannon.
    """

    objective: Objective = field(default="tgpo", metadata={"help": f"one of {', '.join(get_args(Objective))}"})
    teacher_weight: float = field(default=0.002, metadata={"help": "weight of the teacher's part in the first batch"})
    teacher_weight_least: float = field(default=0.0, metadata={"help": "what it falls to"})
    teacher_weight_fall: float = field(default=1e-5, metadata={"help": "what each batch of roll-outs takes away"})
    teacher_schedule: Shape = field(default="linear", metadata={"help": "linear, constant or cosine"})
    teacher_batches: int = field(default=200, metadata={"help": "batches over which a cosine falls"})
    gate: Gate = field(default="all", metadata={"help": f"one of {', '.join(get_args(Gate))}"})
    gate_threshold: float = field(default=0.5, metadata={"help": "for the gates confident, first and entropy"})
    teacher_by_problem: bool = field(default=False, metadata={"help": "guide problems that are half solved most"})
    gkd_beta: float = field(default=0.0, metadata={"help": "0: forward KL, 1: reverse KL, between: Jensen-Shannon"})
    log_gradients: bool = field(
        default=False, metadata={"help": "note the norms of both terms' gradients, mean over the parts of an update"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(vars(self))

    @property
    def weight(self) -> Weight:
        return weight_of(vars(self))


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ``LaconicError`` for options of this class, all or some, that mean nothing.

    Making a ``TGPOConfig`` settles which device a process uses; this does not.
    """
    known = _defaults() | dict(options)
    for name, choices in (("objective", get_args(Objective)), ("gate", get_args(Gate))):
        if known[name] not in choices:
            raise LaconicError(f"Unknown {name} {known[name]!r}.", f"Choose one of {', '.join(choices)}.")
    for name, default in _defaults().items():
        if type(default) is float and isinstance(known[name], str):
            raise LaconicError(f"{name} is {known[name]!r}, a text.", "Write 1.0e-3: YAML takes 1e-3 for one.")
        # TRL's own may be null
        if type(default) is float and name in TGPOConfig.__annotations__ and not isinstance(known[name], int | float):
            raise LaconicError(f"{name} is {known[name]!r}, which is no number.", "Leave it out, or give one.")
    for name, default in _defaults().items():
        own = name in TGPOConfig.__annotations__
        if own and type(default) in (bool, int) and type(known[name]) is not type(default):
            kind = "neither true nor false" if type(default) is bool else "no whole number"
            raise LaconicError(f"{name} is {known[name]!r}, which is {kind}.", "Leave it out, or give one.")
    objective = known["objective"]
    if objective in AT_ONE and known["temperature"] != 1:
        raise LaconicError(
            f"{objective} compares words drawn at a temperature of {known['temperature']} with a teacher at 1.",
            "Set temperature: 1.0.",
        )
    if objective != "grpo" and known["loss_type"] not in LOSS_TYPES:
        raise LaconicError(
            f"The loss type {known['loss_type']} has no normaliser to share.", f"Choose one of {', '.join(LOSS_TYPES)}."
        )
    for name in ("gate_threshold", "gkd_beta"):
        if not 0 <= known[name] <= 1:
            raise LaconicError(f"{name} is {known[name]}.", "Choose a share between 0 and 1.")
    if objective != "tgpo" and (known["gate"] != "all" or known["teacher_by_problem"]):
        raise LaconicError(f"{objective} has no guidance to gate.", "Set gate: all, and teacher_by_problem: false.")
    if objective in ONE_TERM and known["log_gradients"]:
        raise LaconicError(f"{objective} has one term, no two to compare.", "Set log_gradients: false.")
    weight = weight_of(known)
    if objective == "rkl" and (weight.shape != "constant" or not weight.start):
        raise LaconicError(
            "rkl replaces the reward, whatever the weight, and would turn into grpo where that falls to 0.",
            "Set teacher_schedule: constant, and a teacher_weight above 0.",
        )


def weight_of(options: Mapping[str, Any]) -> Weight:
    """The teacher's weight by the batch of roll-outs; raises ``LaconicError`` for one that does not fall."""
    names = ("weight", "weight_least", "weight_fall", "schedule", "batches")
    return Weight(*(options[f"teacher_{name}"] for name in names))


def _defaults() -> dict[str, Any]:
    return {one.name: one.default for one in fields(TGPOConfig) if one.default is not MISSING}
