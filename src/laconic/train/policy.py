"""A stage that trains a method on its own answers: TGPO and its rivals (``laconic.methods.tgpo``) behind a recipe."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PrinterCallback, TrainerCallback

from laconic.data.problems import Problem, share_of_steps
from laconic.errors import RecipeError
from laconic.methods.tgpo.config import COMPUTED_AGAIN, TGPOConfig, check_options
from laconic.methods.tgpo.rewards import REWARDS
from laconic.methods.tgpo.student_trainer import Groups, StudentTrainer
from laconic.methods.tgpo.students import Student, check_fit, saying_words_alone
from laconic.methods.tgpo.teacher import TeacherScorer
from laconic.train.loop import LoopConfig, add_line, forget_future

#: what of a step is said aloud; the log has all
SAID = (
    "reward",
    "asked/right",
    "asked/steps",
    "completions/mean_length",
    "teacher/agreement",
    "teacher/weight",
    "loss",
)
#: pictures and side jobs of TRL that a recipe has no use for
QUIET: dict[str, Any] = {"report_to": [], "disable_tqdm": True, COMPUTED_AGAIN: False}


@dataclass(frozen=True)
class PolicyTask:
    """A stage on problems, ready to run.

    Attributes:
        problems: in the order they are asked.
        watched: drawn apart, asked now and then to see how training goes; they may be among the problems.
        teacher: makes it; loaded only when the stage begins.
    """

    student: Student
    stage: dict[str, Any]
    problems: Sequence[Problem]
    watched: Sequence[Problem]
    groups: Groups
    teacher: Callable[[], TeacherScorer | None]

    def __post_init__(self) -> None:
        """Raise ``LaconicError`` for a problem that does not fit, before any stage is trained."""
        own, most = {"the window": self.student.window}, self.stage["limit"]
        check_fit(self.student, self.problems, own, most=most, given=self.stage["given"] > 0)
        check_fit(self.student, self.watched, own, most=most, given=False)

    def run(self, loop: LoopConfig, folder: Path, say: Callable[[str], None]) -> None:
        """Train to the end, from the newest checkpoint in ``folder`` if there is one."""
        stage = self.stage
        args = settings(stage, loop, folder, cpu=self.student.decoder.device.type == "cpu")
        trainer = StudentTrainer(
            self.student,
            args,
            self.problems,
            REWARDS[stage["reward"]],
            self.groups,
            pace=loop.pace,
            given=stage["given"],
            teacher=self.teacher(),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Log(self.student, stage, self.watched, folder / "log.jsonl", say))
        with warnings.catch_warnings():  # what TRL calls by its old name is no business of a recipe's user
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            trainer.train()


def settings(stage: dict[str, Any], loop: LoopConfig, folder: Path, *, cpu: bool) -> TGPOConfig:
    """A stage and its loop as TRL's options."""
    return TGPOConfig(**options(stage, loop), output_dir=str(folder), use_cpu=cpu, **QUIET)


def options(stage: dict[str, Any], loop: LoopConfig) -> dict[str, Any]:
    """What a stage and its loop say of TRL's options, checked without making any: that would settle the device.

    Raises:
        RecipeError: an option that TRL does not know, or one that the recipe sets elsewhere.
        LaconicError: one that means nothing.
    """
    answers = stage["rows"] * stage["answers"]
    if answers % stage["together"]:
        raise RecipeError(
            f"{answers} answers of a batch cannot be taken {stage['together']} together.",
            "Choose rows, answers and together so that they divide.",
        )
    parts, updates = answers // stage["together"], stage["updates"]
    if parts % updates:
        raise RecipeError(
            f"{parts} parts of a batch cannot make {updates} updates alike.",
            "Choose rows, answers, together and updates so that they divide.",
        )
    # a line of the log, and a checkpoint, is of whole batches of roll-outs
    for name in ("steps", "checkpoint_every", "log_every"):
        if getattr(loop, name) % updates:
            raise RecipeError(
                f"{name} must be a multiple of updates, which are {updates}.", "See recipes/tgpo/cpu.yaml."
            )
    if loop.checkpoint_every % loop.log_every:
        raise RecipeError(
            f"checkpoint_every must be a multiple of log_every, which is {loop.log_every}: what was not yet logged is "
            "not in a checkpoint.",
            "See recipes/tgpo/cpu.yaml.",
        )
    if loop.accumulation != 1:
        raise RecipeError("A stage on own answers has no accumulation.", "Set together instead.")
    known: dict[str, Any] = {
        "objective": stage["objective"],
        "per_device_train_batch_size": stage["together"],
        "steps_per_generation": parts,
        "gradient_accumulation_steps": parts // updates,
        "num_generations": stage["answers"],
        "max_completion_length": stage["limit"],
        "temperature": float(stage["temperature"]),
        "shuffle_dataset": False,
        "max_steps": loop.steps,
        "learning_rate": loop.learning_rate,
        "weight_decay": loop.weight_decay,
        "max_grad_norm": loop.max_grad_norm,
        "bf16": loop.autocast,
        "seed": loop.seed,
        "logging_steps": loop.log_every,
        "save_strategy": "steps",
        "save_steps": loop.checkpoint_every,
        "save_total_limit": 1,
    }
    # a log counts answers, and asks, by updates: each answer is learnt from once
    elsewhere: set[str] = known.keys() | QUIET.keys() | {"output_dir", "use_cpu"}
    elsewhere |= {"num_iterations", "generation_batch_size"}
    elsewhere |= {"warmup_steps", "warmup_ratio", "lr_scheduler_type"}  # the loop's pace
    named = {one.name for one in fields(TGPOConfig)}
    for name in stage["tgpo"]:
        if name not in named:
            raise RecipeError(
                f"tgpo has no option {name}.", "Its options are those of TGPOConfig, and of TRL's GRPOConfig."
            )
        if name in elsewhere:
            raise RecipeError(f"tgpo: {name} follows from the rest of the stage.", "See recipes/tgpo/cpu.yaml.")
    found = known | stage["tgpo"]
    check_options(found)
    return found


class _Log(TrainerCallback):
    """A line for each logged step, with how many answers that took; now and then problems are asked greedily."""

    def __init__(
        self,
        student: Student,
        stage: dict[str, Any],
        watched: Sequence[Problem],
        path: Path,
        say: Callable[[str], None],
    ) -> None:
        self.student, self.stage, self.watched, self.path, self.say = student, stage, watched, path, say
        self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        forget_future(self.path, state.global_step or -1)  # begun anew, problems are asked anew
        lines = self.path.read_text().splitlines()
        before = json.loads(lines[-1])["seconds"] if lines else 0.0
        self.started = time.monotonic() - before
        if state.global_step:
            self.say(f"resuming at step {state.global_step} of {state.max_steps}")
        elif self.watched:
            self._write(state, self._ask())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or logs is None or "reward" not in logs:
            return
        every = self.stage["ask_every"]
        due = self.watched and (state.global_step % every == 0 or state.global_step == state.max_steps)
        self._write(state, logs | (self._ask() if due else {}))

    def _write(self, state: Any, numbers: dict[str, Any]) -> None:
        batch = self.stage["rows"] * self.stage["answers"] * PartialState().num_processes
        line = {
            "step": state.global_step,
            "samples": state.global_step // self.stage["updates"] * batch,
            "seconds": round(time.monotonic() - self.started, 1),
            **{name: value for name, value in numbers.items() if isinstance(value, int | float)},
        }
        add_line(self.path, line)
        said = [f"{name} {line[name]:.4g}" for name in ("step", "samples", "seconds", *SAID) if name in line]
        self.say("  ".join(said))

    def _ask(self) -> dict[str, float]:
        prompts = [self.student.prompt(problem) for problem in self.watched]
        with saying_words_alone(self.student):
            found = self.student.answers(prompts, most=self.stage["limit"], temperature=0.0, seed=0)
        texts = self.student.tokenizer.batch_decode([answer.words for answer in found], skip_special_tokens=True)
        pairs = list(zip(self.watched, texts, strict=True))
        shares = [share_of_steps(text.splitlines(), problem.steps) or 0.0 for problem, text in pairs]
        right = [problem.solved_by(text) for problem, text in pairs]
        return {"asked/right": sum(right) / len(pairs), "asked/steps": sum(shares) / len(pairs)}
