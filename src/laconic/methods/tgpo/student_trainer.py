"""TGPO of compressed students: roll-outs by their own decoder, scores under the same visibility."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from trl.models.utils import disable_gradient_checkpointing

from laconic.core.compat import require_plain_head
from laconic.data.problems import Problem
from laconic.errors import DataError, LaconicError, RecipeError
from laconic.methods.tgpo.config import COMPUTED_AGAIN, TGPOConfig
from laconic.methods.tgpo.rewards import Reward, Rewarded
from laconic.methods.tgpo.students import Answer, Student, check_fit, saying_words_alone
from laconic.methods.tgpo.teacher import TeacherScorer
from laconic.methods.tgpo.trainer import TGPOTrainer, asked_of

#: parameters that are trained, by name, and the multiple of the learning rate they get
Groups = Sequence[tuple[list[nn.Parameter], float]]
WEIGHTS = "trained.safetensors"


class StudentTrainer(TGPOTrainer):
    """Trains a ``Student`` on problems with answers that can be checked.

    Args:
        problems: asked in this order, as many in a batch of roll-outs as its answers allow, from the first again after
            the last; an epoch's last batch is filled up with the first ones.
        reward: of an answer's text to a problem.
        groups: what is trained of the student.
        pace: the learning rate's factor by the number of the update, from 0; None leaves the schedule to TRL.
        given: of a group's answers, so many are not rolled out but the problem's worked solution (``luffy``: 1;
            ``sft``: all of them; ``gkd``: those not on-policy).

    Raises:
        DataError: there is no problem, or one has no worked solution where that is to be given.
        BackboneError: the student's logits are more than its head's product.
    """

    gives_answers = True

    def __init__(
        self,
        student: Student,
        args: TGPOConfig,
        problems: Sequence[Problem],
        reward: Reward,
        groups: Groups,
        *,
        pace: Callable[[int], float] | None = None,
        given: int = 0,
        teacher: TeacherScorer | None = None,
        **named: Any,
    ) -> None:
        if not problems:
            raise DataError("There is no problem to train on.", "Name tasks, or files that have some.")
        if not 0 <= given <= args.num_generations:
            raise LaconicError(f"{given} answers of {args.num_generations} cannot be given.", "Give fewer.")
        _check(args)
        require_plain_head(student.decoder)
        if student.feeds_cache and getattr(args, COMPUTED_AGAIN):
            raise LaconicError(
                "Layers that are computed again in the backward pass do not see a memory.",
                f"Set {COMPUTED_AGAIN} to False.",
            )
        windows = {"the window": student.window, "the teacher's window": getattr(teacher, "window", None)}
        check_fit(student, problems, windows, most=args.max_completion_length, given=given > 0)
        self.student, self.problems, self.groups, self.given_of_group = student, list(problems), groups, given
        self.pace, self.words = pace, len(student.tokenizer)
        self._given_now: list[bool] = []
        self._speakers = torch.empty(0)
        self._asked: Tensor | None = None  # [B, T, K], in the loss of an update
        self._found: Tensor | None = None  # of these, the log-probabilities
        each = args.generation_batch_size // args.num_generations  # TRL would drop what fills no batch
        numbers = range(len(problems) + -len(problems) % each)
        args.disable_dropout = True  # what answers must be what is scored
        rewarded = Rewarded(self.problems, reward)
        if args.ddp_find_unused_parameters is None:  # answers of a process may have no finished step, and so no memory
            args.ddp_find_unused_parameters = True
        with warnings.catch_warnings():  # it may change: TRL's versions are bounded for that
            warnings.filterwarnings("ignore", message=".*rollout_func")
            super().__init__(
                student.decoder,
                reward_funcs=rewarded,
                args=args,
                train_dataset=Dataset.from_list([{"prompt": str(number % len(problems))} for number in numbers]),
                processing_class=student.tokenizer,
                rollout_func=self._roll_out,
                teacher=teacher,
                **named,
            )

    # --- roll-outs ------------------------------------------------------------------------------------------------

    def _roll_out(self, numbers: list[str], _: Any) -> dict[str, Any]:
        """Answers to problems by their number, each asked as often as it has answers."""
        asked = [self.problems[int(number)] for number in numbers]
        prompts = [self.student.prompt(problem) for problem in asked]
        group = self.num_generations if self.model.training else self.num_generations_eval
        first = self.accelerator.process_index * len(numbers)
        self._given_now = [
            self.model.training and (first + place) % group < self.given_of_group for place in range(len(numbers))
        ]
        free = [place for place, given in enumerate(self._given_now) if not given]
        answers: list[Answer] = [
            self.student.given(problem) if given else Answer([], [])
            for problem, given in zip(asked, self._given_now, strict=True)
        ]
        if free:
            with (
                disable_gradient_checkpointing(self.student.decoder, self.args.gradient_checkpointing_kwargs),
                saying_words_alone(self.student),
            ):
                rolled = self.student.answers(
                    [prompts[place] for place in free],
                    most=self.max_completion_length,
                    temperature=self.temperature,
                    seed=int(torch.randint(2**31, ())),
                )
            for place, answer in zip(free, rolled, strict=True):
                answers[place] = answer
            self._log_metric("student/peak_tokens", sum(answer.held for answer in rolled) / len(rolled))
        return {
            "prompt_ids": prompts,
            "completion_ids": [answer.words for answer in answers],
            "logprobs": None,
            "env_mask": [answer.own for answer in answers],
        }

    def _given(self) -> Tensor | None:
        if not self.given_of_group:  # the same for all processes, whoever has those answers
            return None
        return torch.tensor(self._given_now, device=self.accelerator.device)

    # --- scores ---------------------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        """TRL's, with what the student would read; ``[B, T]`` each."""
        size, asked = batch_size or len(input_ids), self._asked
        if asked is None:
            asked = input_ids[:, -logits_to_keep:, None]
        parts = [
            self._scored(model, *rows)
            for rows in zip(input_ids.split(size), attention_mask.split(size), asked.split(size), strict=True)
        ]
        found, entropies = (torch.cat(some) for some in zip(*parts, strict=True))
        if self._asked is not None:
            self._found = found
        return found[..., 0], entropies if compute_entropy else None, None

    def _scored(self, model: Any, ids: Tensor, mask: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of what is asked at each token of the answers, ``[B, T, K]``, and entropies.

        The head is computed where answers are, and once for all that is asked there.
        """
        count = asked.shape[1]
        answer, real = ids[:, -count:], mask[:, -count:]
        fed = self.student.fed(ids[:, :-count], mask[:, :-count], answer, real)
        self._speakers = fed.speakers
        with self.accelerator.autocast(), self.last.seen(model) as seen:
            model(**fed.inputs, use_cache=False, logits_to_keep=1)
            return self.last.looked_up(model, self._spoken(seen), asked, real)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._asked = asked_of(inputs)
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._asked = self._found = None

    def _looked_up(self, model: Any, states: Tensor, inputs: dict[str, Any]) -> Tensor:
        """What the policy's loss was just made of has them; no gradient goes where a word was put in."""
        assert self._found is not None
        return torch.where(self._mask(inputs).bool()[..., None], self._found, 0.0)

    def _before(self, seen: list[Tensor], inputs: dict[str, Any]) -> Tensor:
        return self._spoken(seen)

    def _spoken(self, seen: list[Tensor]) -> Tensor:
        """The states that the answers' tokens were said from, ``[B, T, D]``, of what was fed last."""
        states = seen[-1]
        return states.gather(1, self._speakers[..., None].expand(-1, -1, states.shape[-1]))

    # --- the loop -------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: Any = None, **named: Any) -> Any:
        """As ``TGPOTrainer``'s, from the newest whole checkpoint in ``output_dir`` if there is one.

        Args:
            resume_from_checkpoint: another one, or False to begin anew.
        """
        resume = self._newest() if resume_from_checkpoint in (None, True) else resume_from_checkpoint
        with self._whole_model():
            return super().train(resume_from_checkpoint=resume, **named)

    def _newest(self) -> str | None:
        """The newest checkpoint that was written to its end.

        Raises:
            RecipeError: it is of another number of processes, which would see other batches.
        """
        folders = Path(self.args.output_dir).glob("checkpoint-*")
        whole = [folder for folder in folders if _is_whole(folder)]
        if not whole:
            return None
        newest = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))
        was = max(1, len(list(newest.glob("rng_state_*.pth"))))
        if was != self.accelerator.num_processes:
            raise RecipeError(
                f"{newest} is of a run of {was} processes, not {self.accelerator.num_processes}.",
                "Start as many, or delete it.",
            )
        return str(newest)

    @contextmanager
    def _whole_model(self) -> Iterator[None]:
        """Soft tokens are part of the decoder while it is trained: what joins gradients and cuts them must see them."""
        self.student.decoder.add_module("soft", nn.ModuleList(self.student.soft))
        try:
            yield
        finally:
            del self.student.decoder.soft

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        self.student.decoder.requires_grad_(False)
        for parameters, _ in self.groups:
            for parameter in parameters:
                parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [{"params": list(own), "lr": self.args.learning_rate * times} for own, times in self.groups],
            lr=self.args.learning_rate,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
            weight_decay=self.args.weight_decay,
        )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.pace is None:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, self.pace)
        return self.lr_scheduler

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: a student is saved as the method it is."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: own.detach().contiguous() for name, own in self._trained().items()}, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved, own = load_file(Path(resume_from_checkpoint) / WEIGHTS), self._trained()
        if {name: t.shape for name, t in saved.items()} != {name: t.shape for name, t in own.items()}:
            raise RecipeError(
                f"{resume_from_checkpoint} belongs to another configuration.", "Choose another output folder."
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(saved[name])

    def _trained(self) -> dict[str, nn.Parameter]:
        return {f"{g}.{i}": p for g, (own, _) in enumerate(self.groups) for i, p in enumerate(own)}


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint was written to its end, which is the state of the trainer."""
    try:
        json.loads((folder / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return all((folder / name).exists() for name in (WEIGHTS, "optimizer.pt"))


def _check(args: TGPOConfig) -> None:
    """Raise ``LaconicError`` for options of TRL that a student's own roll-outs and scores would pass over."""
    plain = {"beta": 0, "use_vllm": False, "top_p": 1, "top_k": 0, "min_p": None, "repetition_penalty": 1}
    plain |= {"generation_kwargs": None, "use_transformers_continuous_batching": False}
    plain |= {"mask_truncated_completions": False}  # it would take an answer that ends with its line for cut off
    plain |= {"save_only_model": False}  # nothing could be gone on from
    plain |= {"cast_lm_head_to_fp32": False}  # what the head makes is summed in float32, and made as autocast says
    for name, value in plain.items():
        if getattr(args, name) not in (value, value or None):
            raise LaconicError(f"{name} is {getattr(args, name)}, which students do not have.", f"Leave {name} out.")
    # after so many updates one ends where a batch of roll-outs does
    parts = args.steps_per_generation * args.num_iterations
    updates = math.lcm(parts, args.gradient_accumulation_steps) // args.gradient_accumulation_steps
    if args.save_strategy == "steps" and args.save_steps % updates:
        raise LaconicError(
            f"A checkpoint after {args.save_steps} updates lies inside a batch of roll-outs, of {updates}, and could "
            "not be gone on from.",
            f"Save after a multiple of {updates} steps.",
        )
