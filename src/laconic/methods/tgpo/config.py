"""The options of TGPO and its rivals, beside those of TRL's GRPO."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from trl import GRPOConfig

from laconic.errors import LaconicError
from laconic.losses.schedules import Shape, Weight

Objective = Literal["tgpo", "grpo", "rkl", "kdrl", "adv_match", "adv_state", "gkd", "luffy", "sft"]
Gate = Literal["all", "mismatch", "confident", "incorrect", "first"]
#: objectives that no teacher is asked for
ALONE = ("grpo", "luffy", "sft")
#: those whose loss is no reward's
REWARDLESS = ("rkl", "gkd", "sft")
#: those that learn from answers that are given
FROM_GIVEN = ("luffy", "sft")
#: loss types of TRL whose normaliser the teacher's term can share
LOSS_TYPES = ("dapo", "grpo", "bnpo", "dr_grpo")


@dataclass
class TGPOConfig(GRPOConfig):
    """TGPO (arXiv 2605.13230) on TRL's GRPO; see section 2 of its specification.

    Attributes:
        objective: ``tgpo`` adds guidance to GRPO's loss; ``rkl`` replaces the reward by the reverse-KL advantage
            (whatever the weight, while there is any: make its schedule constant); ``kdrl`` adds its squared log-ratio;
            ``adv_match`` and ``adv_state`` add to the advantage; ``gkd`` minimises the divergence ``gkd_beta`` of the
            two and ``sft`` the surprise at what was said, without rewards; ``luffy`` learns from answers that are
            given, among the student's own; ``grpo`` asks no teacher, nor do ``sft`` and ``luffy``.
        teacher_weight, teacher_weight_least, teacher_weight_fall, teacher_schedule, teacher_batches: the weight of the
            teacher's part by the batch of roll-outs, see ``losses.schedules``.
        gate: positions that are guided: all; those where the teacher would say something else; those where it is surer
            than ``gate_threshold``; answers that were no better than their group; the first share ``gate_threshold``
            of an answer.
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
    gate: Gate = field(default="all", metadata={"help": "all, mismatch, confident, incorrect or first"})
    gate_threshold: float = field(default=0.5, metadata={"help": "for the gates confident and first"})

    gkd_beta: float = field(default=0.0, metadata={"help": "0: forward KL, 1: reverse KL, between: Jensen-Shannon"})

    log_gradients: bool = field(default=False, metadata={"help": "note the norms of both terms' gradients"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (("objective", get_args(Objective)), ("gate", get_args(Gate))):
            if getattr(self, name) not in choices:
                raise LaconicError(f"Unknown {name} {getattr(self, name)!r}.", f"Choose one of {', '.join(choices)}.")
        if self.objective != "grpo" and self.loss_type not in LOSS_TYPES:
            raise LaconicError(
                f"The loss type {self.loss_type} has no normaliser to share.", f"Choose one of {', '.join(LOSS_TYPES)}."
            )
        if not 0 <= self.gate_threshold <= 1:
            raise LaconicError(f"gate_threshold is {self.gate_threshold}.", "Choose a share between 0 and 1.")
        if not 0 <= self.gkd_beta <= 1:
            raise LaconicError(f"gkd_beta is {self.gkd_beta}.", "Choose a share between 0 and 1.")
        self.weight  # noqa: B018 (a wrong schedule is found now)

    @property
    def weight(self) -> Weight:
        return Weight(
            self.teacher_weight,
            self.teacher_weight_least,
            self.teacher_weight_fall,
            self.teacher_schedule,
            self.teacher_batches,
        )
