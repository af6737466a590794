"""TRL's GRPO with a teacher that says what it would have said at every prefix the student visited (arXiv 2605.13230).

GRPO's own path is left untouched: with nothing to weigh, loss and gradients are its own, bit by bit, and no teacher is
asked. With a teacher, its scores are taken once for a batch of roll-outs; the student's log-probabilities of the
teacher's tokens come from the very states that the policy's loss is made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from laconic.core.compat import require_plain_head
from laconic.errors import LaconicError
from laconic.losses.chosen import chosen_log_probs
from laconic.losses.distillation import guidance, match_bonus, reverse_kl_advantage, squared_log_ratio, state_bonus
from laconic.methods.tgpo.config import TGPOConfig
from laconic.methods.tgpo.teacher import Scores, TeacherScorer

#: objectives that change the advantage, and those that add a term to the loss
OF_ADVANTAGE = ("rkl", "adv_match", "adv_state")
OF_LOSS = ("tgpo", "kdrl")


class TGPOTrainer(GRPOTrainer):
    """``GRPOTrainer`` and a ``TeacherScorer``.

    Args:
        teacher: needed unless the objective is ``grpo`` or the weight is 0 throughout.

    Raises:
        LaconicError: there is no teacher where one is needed, or the loss cannot be shared with one.
        BackboneError: the student's logits are more than its head's product.
    """

    args: TGPOConfig

    def __init__(self, *positional: Any, teacher: TeacherScorer | None = None, **named: Any) -> None:
        super().__init__(*positional, **named)
        if teacher is None and self.args.objective != "grpo" and self.args.teacher_weight > 0:
            raise LaconicError(f"The objective {self.args.objective} needs a teacher.", "Name one, or choose grpo.")
        if teacher is not None:
            require_plain_head(self.accelerator.unwrap_model(self.model))
        self.teacher = teacher
        self._weight_now = 0.0

    # --- roll-outs ------------------------------------------------------------------------------------------------

    @property
    def rollout_batch(self) -> int:
        """Number of the batch of roll-outs that is made now, from 1, after resuming too: the state counts updates."""
        updates = max(1, self.args.steps_per_generation * self.num_iterations // self.args.gradient_accumulation_steps)
        return 1 + self.state.global_step // updates

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self.model.training or self.args.objective == "grpo":
            return output
        weight = self.args.weight.at(self.rollout_batch)
        self._weight_now = weight
        self._metrics["train"]["teacher/weight"].append(weight)
        if weight <= 0 or self.teacher is None:
            return output
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        scores = self.teacher.score(*(output[name] for name in names))
        mask = self._mask(output)
        self._check(scores, mask)
        self._note(scores, output, mask)
        if self.args.objective in OF_ADVANTAGE:
            output["advantages"] = self._advantages(scores, output, weight)
        else:
            output["teacher_ids"], output["teacher_said"] = scores.ids, scores.said
            output["teacher_gate"] = self._gate(scores, output, mask)
        return output

    def _advantages(self, scores: Scores, output: dict[str, Any], weight: float) -> Tensor:
        """Of each token, ``[B, T]``."""
        own: Tensor = output["advantages"][:, None]
        said = output["completion_ids"]
        if self.args.objective == "adv_match":
            return own + weight * match_bonus(said, scores.ids)
        with torch.no_grad():
            old = self._student(output, torch.stack([said, scores.ids], dim=-1))
        if self.args.objective == "rkl":  # no reward
            return reverse_kl_advantage(scores.said, old[..., 0])
        return own + weight * state_bonus(old[..., 1])

    def _gate(self, scores: Scores, output: dict[str, Any], mask: Tensor) -> Tensor:
        """1 where an answer is guided, ``[B, T]``."""
        gate, threshold = self.args.gate, self.args.gate_threshold
        if gate == "mismatch":
            mask = mask * (scores.ids != output["completion_ids"])
        elif gate == "confident":
            mask = mask * (scores.log_probs.exp() > threshold)
        elif gate == "incorrect":
            mask = mask * (output["advantages"][:, None] <= 0)
        elif gate == "first":
            length = output["completion_mask"].sum(1, keepdim=True)
            mask = mask * (torch.arange(mask.shape[1], device=mask.device) < (threshold * length).ceil())
        return mask.float()

    # --- loss ------------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if "teacher_ids" not in inputs:
            loss: Tensor = super()._compute_loss(model, inputs)
            return loss
        with self._last_states(model) as states:
            loss = super()._compute_loss(model, inputs)
        said, teachers = inputs["completion_ids"], inputs["teacher_ids"]
        looked_up = self._looked_up(model, states[-1], torch.stack([said, teachers], dim=-1), self._mask(inputs))
        if self.args.objective == "kdrl":  # answers that are right already are left alone
            gate = self._mask(inputs) * (inputs["advantages"][:, None] <= 0)
            term = squared_log_ratio(inputs["teacher_said"], looked_up[..., 0])
        else:
            gate, term = inputs["teacher_gate"], guidance(looked_up[..., 1])
        shared = self._aggregated(term, gate, inputs)
        self._metrics["train"]["teacher/loss"].append(float(shared.detach()))
        self._metrics["train"]["teacher/student_probability"].append(
            float(_mean(looked_up[..., 1].detach().exp(), self._mask(inputs)))
        )
        return loss + self._weight_now * shared

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
        """The student's log-probabilities of several tokens at each position, ``[B, T, K]``."""
        with self._last_states(self.model) as states:
            self._get_per_token_logps_and_entropies(
                self.model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                ids.shape[1],
            )
        return self._looked_up(self.model, states[-1], ids, self._mask(inputs))

    def _looked_up(self, model: Any, hidden: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities ``[B, T, K]`` from the decoder's last states; 0 where nothing is real."""
        before = hidden[:, -ids.shape[1] - 1 : -1]
        real = mask.bool()
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        found, _ = chosen_log_probs(head, before[real], ids[real], temperature=self.temperature)
        return torch.zeros(ids.shape, device=found.device).masked_scatter(real[..., None], found)

    @contextmanager
    def _last_states(self, model: Any) -> Iterator[list[Tensor]]:
        """What the decoder's body returns while this lasts, with its graph."""
        bare = self.accelerator.unwrap_model(model)
        bare = bare.get_base_model() if hasattr(bare, "get_base_model") else bare
        seen: list[Tensor] = []
        handle = bare.base_model.register_forward_hook(lambda _, __, made: seen.append(made.last_hidden_state))
        try:
            yield seen
        finally:
            handle.remove()

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
        noted = self._metrics["train"]
        agree = (scores.ids == output["completion_ids"]).float()
        noted["teacher/agreement"].append(float(_mean(agree, mask)))
        noted["teacher/log_prob"].append(float(_mean(scores.log_probs, mask)))
        noted["teacher/log_prob_of_said"].append(float(_mean(scores.said, mask)))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.bool(), values, 0.0).sum() / mask.sum().clamp(min=1)
