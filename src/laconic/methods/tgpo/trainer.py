"""TRL's GRPO with a teacher that says what it would have said at every prefix the student visited (arXiv 2605.13230).

GRPO's own path is left untouched: with nothing to weigh, loss and gradients are its own, bit by bit, and no teacher is
asked. With a teacher, its scores are taken once for a batch of roll-outs; the student's log-probabilities of the
teacher's tokens come from the very states that the policy's loss is made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from trl import GRPOTrainer

from laconic.core.compat import require_plain_head
from laconic.errors import LaconicError
from laconic.losses.distillation import (
    guidance,
    match_bonus,
    reverse_kl_advantage,
    soft_guidance,
    squared_log_ratio,
    state_bonus,
)
from laconic.losses.policy import shaped_off_policy
from laconic.methods.tgpo.config import ALONE, FROM_GIVEN, REWARDLESS, TGPOConfig
from laconic.methods.tgpo.gates import gated, no_better
from laconic.methods.tgpo.states import LastStates
from laconic.methods.tgpo.teacher import LocalTeacher, Scores, TeacherScorer

#: objectives that change the advantage
OF_ADVANTAGE = ("rkl", "adv_match", "adv_state")


class TGPOTrainer(GRPOTrainer):
    """``GRPOTrainer`` and a ``TeacherScorer``.

    Args:
        teacher: needed by objectives that ask one, unless the weight is 0 throughout.

    Raises:
        LaconicError: there is no teacher where one is needed, it is not of the kind that is, or there are no answers
            that are given.
        BackboneError: the student's logits are more than its head's product.
    """

    args: TGPOConfig
    #: whether roll-outs may hold answers that are given (``_given``)
    gives_answers = False
    #: tokens that the student can say, the first of its head; None: all of them
    words: int | None = None

    def __init__(self, *positional: Any, teacher: TeacherScorer | None = None, **named: Any) -> None:
        super().__init__(*positional, **named)
        objective = self.args.objective
        if teacher is None and objective not in ALONE and (self.args.teacher_weight > 0 or objective == "gkd"):
            raise LaconicError(f"The objective {objective} needs a teacher.", "Name one, or choose grpo.")
        if objective == "gkd" and not isinstance(teacher, LocalTeacher):
            raise LaconicError("gkd needs all a teacher's logits: one in this process.", "Choose a LocalTeacher.")
        if objective in FROM_GIVEN and not self.gives_answers:
            raise LaconicError(f"{objective} learns from answers that are given.", "Train a Student on problems.")
        if teacher is not None or objective in FROM_GIVEN:
            require_plain_head(self.accelerator.unwrap_model(self.model))
        self.teacher = teacher
        self.last = LastStates(self.accelerator, self.temperature, self.words)
        self._weight_now = 0.0
        self._chance: tuple[Tensor, list[Tensor]] | None = None  # on the CPU, and on each GPU
        self._rewards = torch.zeros(0)  # of all processes' answers of the batch just rolled out

    def train(self, *positional: Any, **named: Any) -> Any:
        """TRL's; what a user can mend (a reward that raises, a server that is gone) leaves a checkpoint behind.

        With several processes it does not: one of them knows, and the others are waiting for it elsewhere.

        Raises:
            LaconicError: such a thing happened.
        """
        try:
            return super().train(*positional, **named)
        except LaconicError:
            there = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}").exists()
            if self.state.global_step and self.accelerator.num_processes == 1 and not there:
                with self._as_before():
                    self._save_checkpoint(self.model, None)
            raise

    def _maybe_log_save_evaluate(self, *positional: Any, **named: Any) -> None:
        super()._maybe_log_save_evaluate(*positional, **named)
        self._chance = torch.get_rng_state(), torch.cuda.get_rng_state_all()

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        """Chance as it was behind the last update, so that what an error broke off since is drawn again."""
        with torch.random.fork_rng():
            if self._chance is not None:
                torch.set_rng_state(self._chance[0])
                torch.cuda.set_rng_state_all(self._chance[1])
            yield

    # --- roll-outs ------------------------------------------------------------------------------------------------

    @property
    def rollout_batch(self) -> int:
        """Number of the batch of roll-outs that is made now, from 1, after resuming too: the state counts updates."""
        each = self.args.gradient_accumulation_steps
        parts = (
            self.state.global_step * each + self._step % each
        )  # an update may begin with one batch and end with another
        return 1 + parts // (self.args.steps_per_generation * self.num_iterations)

    def _given(self) -> Tensor | None:
        """Which answers of the batch just rolled out were given, bool ``[B]``; None: none of them."""
        return None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        objective = self.args.objective
        if not self.model.training or objective == "grpo":
            return output
        given = self._given()
        if objective == "luffy":
            if given is not None:
                output["given_advantages"] = output["advantages"] * given
                output["advantages"] = output["advantages"] * ~given
            return output
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        answers = [output[name] for name in names]
        if objective in REWARDLESS:
            output["advantages"] = torch.zeros_like(output["advantages"])
            if objective == "gkd":
                output["teacher_states"] = cast(LocalTeacher, self.teacher).states(*answers)
            return output
        weight = self.args.weight.at(self.rollout_batch)
        self._weight_now = weight
        self._metrics["train"]["teacher/weight"].append(weight)
        if weight <= 0 or self.teacher is None:
            return output
        scores = self.teacher.score(*answers)
        mask = self._mask(output)
        self._check(scores, mask)
        self._note(scores, output, mask)
        if objective in OF_ADVANTAGE:
            output["advantages"] = self._advantages(scores, output, weight)
        else:
            output["teacher_ids"], output["teacher_shares"] = scores.aims
            output["teacher_said"], output["teacher_gate"] = scores.said, self._gate(scores, output, mask)
        return output

    def _gate(self, scores: Scores, output: dict[str, Any], mask: Tensor) -> Tensor:
        """How strongly each token is guided, ``[B, T]``: by the gate, and by how undecided its problem is."""
        if self.args.gate == "entropy":
            surest = 1 - self.args.gate_threshold
            gate = mask * self.get_high_entropy_mask(self._entropies(output), mask, surest)
        else:
            said, advantages = output["completion_ids"], output["advantages"]
            gate = gated(self.args.gate, self.args.gate_threshold, scores, said, advantages, mask)
        return gate * self._undecided()[:, None] if self.args.teacher_by_problem else gate

    def _calculate_rewards(self, *positional: Any, **named: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(*positional, **named)
        self._rewards = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        return rewards

    def _undecided(self) -> Tensor:
        """``4 p (1 - p)`` of each answer's problem, ``[B]``, where p is the mean reward of its answers."""
        solved = self._rewards.view(-1, self.num_generations).mean(1).clamp(0, 1)
        own = (4 * solved * (1 - solved)).repeat_interleave(self.num_generations)
        return own.chunk(self.accelerator.num_processes)[self.accelerator.process_index]

    def _advantages(self, scores: Scores, output: dict[str, Any], weight: float) -> Tensor:
        """Of each token, ``[B, T]``."""
        own: Tensor = output["advantages"][:, None]
        said = output["completion_ids"]
        if self.args.objective == "adv_match":
            return own + weight * match_bonus(said, scores.ids)
        with torch.no_grad():
            if self.args.objective == "rkl":  # no reward
                return reverse_kl_advantage(scores.said, self._old(output))
            return own + weight * state_bonus(self._student(output, scores.ids[..., None])[..., 0])

    def _old(self, output: dict[str, Any]) -> Tensor:
        """Log-probabilities of what was said when it was, ``[B, T]``: TRL has them where a batch makes several
        updates."""
        known: Tensor | None = output.get("old_per_token_logps")
        return torch.cat([self._read(part)[0] for part in self._by_update(output)]) if known is None else known

    # --- loss ------------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        added = {"teacher_ids", "teacher_states", "given_advantages"} & inputs.keys()
        if not added and self.args.objective != "sft":
            loss: Tensor = super()._compute_loss(model, inputs)
            return loss
        with self.last.seen(model) as seen:
            loss = super()._compute_loss(model, inputs)
        weight, term, gate = self._term(model, self._before(seen, inputs), inputs)
        shared = self._aggregated(term, gate, inputs)
        # a micro-batch has its part of the update's loss, and the log the mean of what the micro-batches say
        self._record("teacher/loss", shared.detach() * self.current_gradient_accumulation_steps)
        if self.args.log_gradients:
            for name, part in (("policy", loss), ("teacher", weight * shared)):
                (pull,) = torch.autograd.grad(part, seen[-1], retain_graph=True)
                self._record(f"{name}/gradient", pull.norm())
        return loss + weight * shared

    def _term(self, model: Any, states: Tensor, inputs: dict[str, Any]) -> tuple[float, Tensor, Tensor]:
        """What the objective adds to the policy's loss: its weight, and ``[B, T]`` the term of each token and whether
        it counts."""
        objective, mask = self.args.objective, self._mask(inputs)
        if objective == "gkd":
            teacher, teachers = cast(LocalTeacher, self.teacher), inputs["teacher_states"]
            return 1.0, self.last.divergence(model, states, teacher, teachers, mask, self.args.gkd_beta), mask
        looked_up = self._looked_up(model, states, inputs)
        if objective in FROM_GIVEN:
            own = looked_up[..., 0]
            if objective == "sft":
                return 1.0, guidance(own), mask
            given = inputs["given_advantages"][:, None]
            return 1.0, shaped_off_policy(own, given), mask * (given != 0)
        self._record("teacher/student_probability", _mean(looked_up[..., 1].detach().exp(), mask))
        if objective == "kdrl":  # answers that are right already are left alone
            gate = mask * no_better(inputs["advantages"])[:, None]
            return self._weight_now, squared_log_ratio(inputs["teacher_said"], looked_up[..., 0]), gate
        return self._weight_now, soft_guidance(looked_up[..., 1:], inputs["teacher_shares"]), inputs["teacher_gate"]

    def _looked_up(self, model: Any, states: Tensor, inputs: dict[str, Any]) -> Tensor:
        """The student's log-probabilities of what ``asked_of`` asks, ``[B, T, 1 + K]``."""
        return self.last.log_probs(model, states, asked_of(inputs), self._mask(inputs))

    def _aggregated(self, per_token: Tensor, gate: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Per-token terms as TRL aggregates the policy's, over the policy's own count of tokens."""
        mask = self._mask(inputs)
        kept = torch.where(gate.bool(), per_token * gate, 0.0)
        accumulated = self.current_gradient_accumulation_steps
        if self.loss_type == "dapo":
            total = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
            return kept.sum() / (total * accumulated / self.args.steps_per_generation)
        if self.loss_type == "grpo":
            return (kept.sum(-1) / mask.sum(-1).clamp(min=1.0)).mean() / accumulated
        if self.loss_type == "bnpo":
            return kept.sum() / mask.sum().clamp(min=1.0) / accumulated
        return kept.sum() / (len(kept) * self.max_completion_length) / accumulated

    def _student(self, inputs: dict[str, Any], ids: Tensor) -> Tensor:
        """The student's log-probabilities of several tokens at each position, ``[B, T, K]``.

        As many rows are read together as in an update.
        """
        found = []
        for answers, chosen in zip(self._by_update(inputs), ids.split(self._together), strict=True):
            with self.last.seen(self.model) as seen:
                self._read(answers)
            states = self._before(seen, answers)
            found.append(self.last.log_probs(self.model, states, chosen, self._mask(answers)))
        return torch.cat(found)

    @torch.no_grad()
    def _entropies(self, inputs: dict[str, Any]) -> Tensor:
        """Of what the student might have said, in nats, ``[B, T]``."""
        return torch.cat([self._read(answers, compute_entropy=True)[1] for answers in self._by_update(inputs)])

    def _by_update(self, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Answers of a batch of roll-outs, as many as are read together in an update."""
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask")
        known = {name: inputs[name].split(self._together) for name in names if name in inputs}
        return (dict(zip(known, parts, strict=True)) for parts in zip(*known.values(), strict=True))

    @property
    def _together(self) -> int:
        return int(self.args.per_device_train_batch_size)

    def _read(self, inputs: dict[str, Any], **named: Any) -> Any:
        """TRL's log-probabilities and entropies, ``[B, T]``, of answers as the student reads them."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        count = inputs["completion_ids"].shape[1]
        return self._get_per_token_logps_and_entropies(self.model, ids, mask, count, **named)

    def _before(self, seen: list[Tensor], inputs: dict[str, Any]) -> Tensor:
        """The states before each token of the answers, ``[B, T, D]``, from what the body returned last."""
        return seen[-1][:, -inputs["completion_ids"].shape[1] - 1 : -1]

    # --- checks and numbers -------------------------------------------------------------------------------------

    def _mask(self, inputs: dict[str, Any]) -> Tensor:
        """1 on tokens the student said itself, ``[B, T]``."""
        mask: Tensor = inputs["completion_mask"]
        return mask * inputs["tool_mask"] if "tool_mask" in inputs else mask

    def _check(self, scores: Scores, mask: Tensor) -> None:
        real = mask.bool()
        for name in ("log_probs", "said"):
            missing = int((~torch.isfinite(getattr(scores, name)[real])).sum())
            if missing:
                raise LaconicError(
                    f"The teacher has no {name} for {missing} of {int(real.sum())} tokens.",
                    "Does it know all the student's tokens?",
                )

    def _note(self, scores: Scores, output: dict[str, Any], mask: Tensor) -> None:
        self._record("teacher/agreement", _mean((scores.ids == output["completion_ids"]).float(), mask))
        self._record("teacher/log_prob", _mean(scores.log_probs, mask))
        self._record("teacher/log_prob_of_said", _mean(scores.said, mask))

    def _record(self, name: str, value: Tensor) -> None:
        """A number to log: the mean of all processes'."""
        self._metrics["train"][name].append(float(self.accelerator.gather(value.reshape(1)).mean()))


def asked_of(inputs: dict[str, Any]) -> Tensor:
    """Tokens that a student is asked about: what was said, and what its teacher would have said, ``[B, T, 1 + K]``."""
    said: Tensor = inputs["completion_ids"][..., None]
    return torch.cat([said, inputs["teacher_ids"]], dim=-1) if "teacher_ids" in inputs else said


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.bool(), values, 0.0).sum() / mask.sum().clamp(min=1)
