"""Compressed students under TGPO: scored as they answered, trained with all they have, resumed where they were."""

from __future__ import annotations

import copy
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import thinkers
import torch
import torch.multiprocessing as mp
from thinkers import KINDS, PROBLEMS, teacher_forced, thinker, trace_of
from tiny import tiny_backbone
from torch import Tensor

trl = pytest.importorskip("trl")

from policies import quick  # noqa: E402

from laconic.data.problems import Problem, same_words  # noqa: E402
from laconic.errors import BackboneError, BudgetError, DataError, LaconicError, RewardError  # noqa: E402
from laconic.generation.thinking import think  # noqa: E402
from laconic.methods.tgpo.config import COMPUTED_AGAIN  # noqa: E402
from laconic.methods.tgpo.rewards import Rewarded, answer_reward, math_reward, steps_reward  # noqa: E402
from laconic.methods.tgpo.student_trainer import StudentTrainer  # noqa: E402
from laconic.methods.tgpo.teacher import LocalTeacher  # noqa: E402
from laconic.methods.tgpo.thinking_student import ThinkingStudent  # noqa: E402
from laconic.methods.tgpo.vocabulary import side_of  # noqa: E402
from laconic.methods.thinking.model import Thinker  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

ASKED = [
    Problem(f"p{n}", text, ["Step one.", "The answer is blue."], "blue", same_words) for n, text in enumerate(PROBLEMS)
]


def by_length(problem: Problem, text: str) -> float:
    return float(len(text) % 3)


def trainer_of(model: Thinker, folder: Path, reward: Any = by_length, **changes: Any) -> StudentTrainer:
    given, teacher = changes.pop("given", 0), changes.pop("teacher", None)
    student = ThinkingStudent(model)
    own = [p for name, p in model.decoder.named_parameters() if "lora_" in name]
    soft = [p for part in student.soft for p in part.parameters() if p.numel()]
    groups = [(own, 1.0)] + ([(soft, 2.0)] if soft else [])
    if changes.get("objective") is None and teacher is None:
        changes["objective"] = "grpo"
    return StudentTrainer(student, quick(folder, **changes), ASKED, reward, groups, given=given, teacher=teacher)


def teacher_of(model: Thinker) -> LocalTeacher:
    other = thinker("vanilla")
    tokenizer = model.backbone.tokenizer
    return LocalTeacher(other.decoder, tokenizer, side_of(model.decoder, tokenizer))


def weights(model: Thinker) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.own_parameters().items()}


def padded(rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows)) + 1  # one more than needed: padding must not matter
    ids, mask = torch.full((len(rows), width), 77), torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        where = slice(width - len(row), None) if side == "left" else slice(0, len(row))
        ids[place, where], mask[place, where] = torch.tensor(row), 1
    return ids, mask


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_scored_with_what_was_read_when_they_were_said(kind: str, tmp_path: Path) -> None:
    model = thinker(kind)
    seen: list[list[Tensor]] = [[] for _ in PROBLEMS]
    prompts = [model.prompt_ids(problem) for problem in PROBLEMS]

    def remember(words: Tensor, scores: Tensor) -> Tensor:
        row = next(n for n, prompt in enumerate(prompts) if words[0, : len(prompt)].tolist() == prompt)
        seen[row].append(scores[0].log_softmax(-1))
        return scores

    # greedy, with a processor that looks on: of guesses only those are looked at that could stand
    found = think(model, prompts, max_new_tokens=30, processors=[remember] if not model.guesses else [])
    answers = [[*one.words, *([] if one.end is None else [one.end])] for one in found]
    assert any(one.forced for one in found)
    trainer = trainer_of(model, tmp_path)
    prompt, prompt_mask = padded(prompts, "left")
    answer, answer_mask = padded(answers, "right")
    with torch.no_grad():
        log_probs, entropies, _ = trainer._get_per_token_logps_and_entropies(
            model.decoder, torch.cat([prompt, answer], 1), torch.cat([prompt_mask, answer_mask], 1),
            answer.shape[1], batch_size=2, compute_entropy=True,
        )  # fmt: skip
    for row, (one, words) in enumerate(zip(found, answers, strict=True)):
        # the dense reference: one pass under the mask of training
        wanted = teacher_forced(model, trace_of(model, PROBLEMS[row], one.words))[: len(words)].log_softmax(-1)
        chosen = wanted.gather(-1, torch.tensor(words)[:, None])[:, 0]
        torch.testing.assert_close(log_probs[row, : len(words)], chosen, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(entropies[row, : len(words)], -(wanted.exp() * wanted).sum(-1), atol=1e-4, rtol=1e-4)
        assert (log_probs[row, len(words) :] == 0).all()
        if not model.guesses:  # and the loop that evicts, word by word; it is not asked where a step's end is forced
            free = [place for place in range(len(words)) if place not in one.forced]
            said = torch.stack(seen[row])[: len(free), :]
            own = said.gather(-1, torch.tensor([words[place] for place in free])[:, None])[:, 0]
            torch.testing.assert_close(log_probs[row, free], own, atol=1e-4, rtol=1e-4)


def test_full_attention_would_score_another_policy(tmp_path: Path) -> None:
    model = thinker("lightthinker")
    prompts = [model.prompt_ids(problem) for problem in PROBLEMS]
    words = [one.words for one in think(model, prompts, max_new_tokens=20)]
    prompt, prompt_mask = padded(prompts, "left")
    answer, answer_mask = padded(words, "right")
    whole, mask = torch.cat([prompt, answer], 1), torch.cat([prompt_mask, answer_mask], 1)
    with torch.no_grad():
        scored = trainer_of(model, tmp_path)._get_per_token_logps_and_entropies(
            model.decoder, whole, mask, answer.shape[1]
        )
        logits = model.decoder(whole, attention_mask=mask).logits[:, prompt.shape[1] - 1 : -1]
    dense = logits.log_softmax(-1).gather(-1, answer[..., None])[..., 0] * answer_mask
    assert float((scored[0] - dense).abs().max()) > 0.1


def test_rows_of_padding_of_a_head_are_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinkers, "backbone_of", lambda arch: tiny_backbone(arch, vocab_size=4000))
    model = thinker("lightthinker")
    known = len(model.backbone.tokenizer)
    assert known < 2000  # so that by chance half of what is said would be padding
    trainer = trainer_of(model, tmp_path, objective="grpo")
    trainer.model.train()
    made = trainer._generate_and_score_completions([{"prompt": str(n // 2)} for n in range(4)])
    assert int(made["completion_ids"].max()) < known
    said = trainer.student.answers([model.prompt_ids(PROBLEMS[0])] * 4, most=20, temperature=1.0, seed=0)
    assert max(max(answer.words) for answer in said) >= known  # nothing is left of it behind a roll-out
    # and what cannot be said has no part of the sum that words are scored by
    words = made["completion_ids"][0][made["completion_mask"][0].bool()].tolist()
    with torch.no_grad():
        scored, *_ = trainer._read(made)
    wanted = teacher_forced(model, trace_of(model, PROBLEMS[0], words))[: len(words), :known].log_softmax(-1)
    own = wanted.gather(-1, torch.tensor(words)[:, None])[:, 0]
    torch.testing.assert_close(scored[0, : len(words)], own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("objective", ["kdrl", "tgpo"])
def test_a_score_of_what_was_put_in_moves_nothing(objective: str, tmp_path: Path) -> None:
    """Whatever it is: a teacher need not find a word possible that nobody chose."""
    model = thinker("lightthinker")
    trainer = trainer_of(model, tmp_path, objective=objective, teacher=teacher_of(model), teacher_weight=0.5)
    trainer.create_optimizer()
    trainer.model.train()
    made = trainer._generate_and_score_completions([{"prompt": str(n // 2)} for n in range(4)])
    put_in = made["completion_mask"].bool() & ~made["tool_mask"].bool()
    assert bool(put_in.any())
    made["teacher_said"][put_in], made["teacher_shares"][put_in] = -torch.inf, torch.nan
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(model.decoder, made).backward()
    pulls = [p.grad for p in trainer._trained().values() if p.grad is not None]
    assert any(bool(pull.any()) for pull in pulls)
    assert all(bool(pull.isfinite().all()) for pull in pulls)


@pytest.mark.parametrize("kind", ["vanilla", "hybridthinker"])
def test_guidance_is_by_the_students_own_visibility_and_the_head_computed_once(kind: str, tmp_path: Path) -> None:
    model = thinker(kind)
    trainer = trainer_of(model, tmp_path, teacher=teacher_of(model), teacher_weight=0.5)
    trainer.model.train()
    made = trainer._generate_and_score_completions([{"prompt": str(n // 2)} for n in range(4)])
    trainer.current_gradient_accumulation_steps = 1
    states: list[int] = []
    head = model.decoder.get_output_embeddings()
    with torch.no_grad():
        said = trainer._read(made)[0]
    counting = head.register_forward_pre_hook(lambda _, given: states.append(given[0].shape[:-1].numel()))
    model.decoder.config.use_cache, kept = True, list[Any]()  # whatever the configuration says
    model.decoder.register_forward_hook(lambda _, __, made: kept.append(made.past_key_values))
    trainer._compute_loss(model.decoder, made)
    counting.remove()
    words = int(made["completion_mask"].sum())
    assert sum(states) == words + len(made["completion_ids"]), "one of each row is the decoder's own"
    assert kept == [None], "nobody goes on from what was scored"
    with torch.no_grad():
        first = {name: part[:1] for name, part in made.items() if name.endswith(("ids", "mask"))}
        torch.testing.assert_close(trainer._read(first)[0], said[:1])  # a loss leaves nothing of what it asked
    surprise = 0.0
    for row in range(4):
        real = made["completion_mask"][row].bool()
        dense = teacher_forced(model, trace_of(model, PROBLEMS[row // 2], made["completion_ids"][row][real].tolist()))
        own = dense[: int(real.sum())].log_softmax(-1).gather(-1, made["teacher_ids"][row][real])[:, 0]
        surprise -= float((own * made["teacher_gate"][row][real]).sum())
    assert trainer._metrics["train"]["teacher/loss"][-1] == pytest.approx(
        surprise / int(made["num_items_in_batch"]), rel=1e-4
    )


def test_what_was_put_in_is_neither_rewarded_nor_guided(tmp_path: Path) -> None:
    model = thinker("lightthinker")
    trainer = trainer_of(model, tmp_path, teacher=teacher_of(model), teacher_weight=0.5)
    trainer.model.train()
    made = trainer._generate_and_score_completions([{"prompt": str(n // 2)} for n in range(4)])
    put_in = made["tool_mask"] == 0
    assert bool((put_in & (made["completion_mask"] == 1)).any())
    assert (made["completion_ids"][put_in & (made["completion_mask"] == 1)] == model.step_end).all()
    assert (made["teacher_gate"][put_in] == 0).all()
    assert made["num_items_in_batch"] == (made["completion_mask"] * made["tool_mask"]).sum()


@pytest.mark.parametrize(
    ("kind", "objective", "given"),
    [
        ("vanilla", "tgpo", 0), ("lightthinker", "tgpo", 0), ("hybridthinker", "rkl", 0), ("memosight", "tgpo", 0),
        ("lightthinker", "gkd", 0), ("lightthinker", "gkd", 1), ("lightthinker", "luffy", 1),
        ("lightthinker", "sft", 2), ("lightthinker", "kdrl", 0), ("anchors", "grpo", 0),
    ],
)  # fmt: skip
def test_every_student_and_every_objective_trains_all_it_has(
    kind: str, objective: str, given: int, tmp_path: Path
) -> None:
    model = thinker(kind)
    before = weights(model)
    frozen = {n: p.detach().clone() for n, p in model.backbone.model.named_parameters()}
    teacher = None if objective in ("luffy", "sft", "grpo") else teacher_of(model)
    trainer = trainer_of(
        model, tmp_path, objective=objective, given=given, teacher=teacher, teacher_weight=0.5, learning_rate=1e-3
    )
    trainer.train()
    moved = {name for name, p in weights(model).items() if not torch.equal(p, before[name])}
    assert {name for name in before if "lora_B" in name} <= moved
    if model.memory_rows:
        assert {"memory.weight", "restart.weight"} <= moved
    assert all(bool(torch.isfinite(p).all()) for p in model.own_parameters().values())
    assert all(torch.equal(p, frozen[n]) for n, p in model.backbone.model.named_parameters())
    assert set(model.own_parameters()) == set(before)  # nothing is left in the decoder that was put there to train
    logged = trainer.state.log_history[0]
    assert ("student/peak_tokens" in logged) == (given < 2)


def test_a_given_answer_is_the_worked_solution_and_shaped_as_luffy_says(tmp_path: Path) -> None:
    model = thinker("lightthinker")
    trainer = trainer_of(model, tmp_path, answer_reward, objective="luffy", given=1, loss_type="bnpo")
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    made = trainer._generate_and_score_completions([{"prompt": str(n // 2)} for n in range(4)])
    tokenizer = model.backbone.tokenizer
    texts = tokenizer.batch_decode(
        [ids[m.bool()] for ids, m in zip(made["completion_ids"], made["completion_mask"], strict=True)],
        skip_special_tokens=True,
    )
    # steps of more than six tokens are cut in two, as a decoder would
    assert texts[0].replace("\n", "") == texts[2].replace("\n", "") == "Step one.The answer is blue."
    assert (made["given_advantages"] != 0).tolist() == [True, False, True, False]
    assert (made["advantages"] == 0).tolist() == [True, False, True, False]
    whole = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
    mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
    with torch.no_grad():
        own, _, _ = trainer._get_per_token_logps_and_entropies(
            model.decoder, whole, mask, made["completion_ids"].shape[1]
        )
    counted = made["completion_mask"] * made["tool_mask"]
    shaped = -made["given_advantages"][:, None] * own.exp() / (own.exp() + 0.1) - made["advantages"][:, None]
    wanted = (shaped * counted).sum() / counted.sum()
    assert trainer._compute_loss(model.decoder, made).item() == pytest.approx(wanted.item(), rel=1e-4)


def test_gkds_divergence_is_of_whole_distributions(tmp_path: Path) -> None:
    model = thinker("vanilla")
    teacher = thinker("vanilla", lora_rank=3)
    tokenizer = model.backbone.tokenizer
    for beta in (0.0, 0.3, 1.0):
        trainer = trainer_of(
            model, tmp_path, objective="gkd", gkd_beta=beta, loss_type="bnpo",
            teacher=LocalTeacher(teacher.decoder, tokenizer, side_of(model.decoder, tokenizer)),
        )  # fmt: skip
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        made = trainer._generate_and_score_completions([{"prompt": str(n // 2)} for n in range(4)])
        whole = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
        mask = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
        counted = made["completion_mask"] * made["tool_mask"]
        start = made["prompt_ids"].shape[1] - 1
        with torch.no_grad():
            places = (mask.cumsum(1) - 1).clamp(min=0)
            p, q = (
                one.decoder(whole, attention_mask=mask, position_ids=places).logits[:, start:-1].log_softmax(-1)
                for one in (model, teacher)
            )
        if beta in (0.0, 1.0):
            one, other = (q, p) if beta == 0 else (p, q)
            apart = (one.exp() * (one - other)).sum(-1)
        else:
            mixed = (beta * q.exp() + (1 - beta) * p.exp()).log()
            apart = beta * (q.exp() * (q - mixed)).sum(-1) + (1 - beta) * (p.exp() * (p - mixed)).sum(-1)
        wanted = (apart * counted).sum() / counted.sum()
        assert trainer._compute_loss(model.decoder, made).item() == pytest.approx(wanted.item(), rel=1e-3)


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole = thinker("lightthinker")
    settings: dict[str, Any] = {"teacher_weight": 0.5, "teacher_weight_fall": 0.1, "max_steps": 4}
    trainer_of(whole, tmp_path / "a", teacher=teacher_of(whole), **settings).train()

    broken = thinker("lightthinker")
    saved = settings | {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    first = trainer_of(broken, tmp_path / "b", teacher=teacher_of(broken), **saved)
    first.args.max_steps = 4
    first.add_callback(_StopAfter(2))
    first.train()
    torn = tmp_path / "b" / "checkpoint-3"  # a kill in the middle of a save
    torn.mkdir()
    shutil.copy(tmp_path / "b" / "checkpoint-2" / "trained.safetensors", torn)
    shutil.copytree(tmp_path / "b" / "checkpoint-2", tmp_path / "b" / "checkpoint-4")
    last = tmp_path / "b" / "checkpoint-4" / "trainer_state.json"  # or of what is written last
    last.write_text(last.read_text()[:200])
    again = thinker("lightthinker")
    second = trainer_of(again, tmp_path / "b", teacher=teacher_of(again), **saved)
    second.train()
    assert second.state.global_step == 4
    logged = [line["teacher/weight"] for line in second.state.log_history if "teacher/weight" in line]
    assert logged == pytest.approx([0.5, 0.4, 0.3, 0.2])
    for name, p in weights(whole).items():
        torch.testing.assert_close(weights(again)[name], p, atol=1e-6, rtol=1e-5)


class _StopAfter(trl.trainer.grpo_trainer.TrainerCallback):  # type: ignore[misc, name-defined]
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_training_stop = state.global_step >= self.steps
        return control


def test_rewards_are_total_or_named(tmp_path: Path) -> None:
    problem = ASKED[0]
    assert answer_reward(problem, "Step one.\nThe answer is blue.") == 1
    assert steps_reward(problem, "Step one.\nThe answer is blue.") == 1
    assert steps_reward(problem, "Step one.\nThe answer is red.") == 0.25
    assert steps_reward(problem, "") == answer_reward(problem, "") == 0

    def raises(problem: Problem, text: str) -> float:
        raise KeyError("x")

    with pytest.raises(RewardError, match="p1 raised KeyError"):
        Rewarded(ASKED, raises)(["1"], ["a"])

    def cannot(problem: Problem, text: str) -> float:
        raise RewardError("The checker does not start.", "Install it.")

    with pytest.raises(RewardError, match=r"^The checker does not start\. Install it\.$"):
        Rewarded(ASKED, cannot)(["1"], ["a"])
    # each answer has that long, not all of them together
    slow = Rewarded(ASKED, lambda problem, text: time.sleep(0.2) or 0.5, patience=0.6)
    assert slow(["0"] * 5, ["a"] * 5) == [0.5] * 5
    with pytest.raises(RewardError, match="longer than"):
        Rewarded(ASKED, lambda problem, text: time.sleep(5) or 0.0, patience=0.1)(["1"], ["a"])
    with pytest.raises(RewardError, match="finite"):
        Rewarded(ASKED, lambda problem, text: float("nan"))(["1"], ["a"])


def test_the_same_number_or_formula_is_right_however_it_is_written() -> None:
    pytest.importorskip("math_verify")
    pairs = [("1/2", "0.5"), ("12", "12 litres"), ("x+1", "1 + x"), ("1000", "1,000"), ("18", "$18")]
    for answer, said in pairs:
        problem = Problem("m", "Why?", [], answer, same_words)
        # from a thread, as rewards are asked, where signals may not be set
        assert Rewarded([problem], math_reward)(["0"], [f"So it is.\nThe answer is {said}."]) == [1.0]
        assert math_reward(problem, "The answer is 99.") == math_reward(problem, said) == 0.0
    # a tower of powers would keep the interpreter busy for ever
    assert math_reward(Problem("m", "Why?", [], "12", same_words), "The answer is 9**9**9**9.") == 0.0
    assert math_reward(Problem("m", "Why?", [], "12", same_words), "The answer is 12.") == 1.0
    for junk in ("", "The answer is", "The answer is \\frac{", "The answer is $$$.", "\\boxed{}", "The answer is 1/0."):
        assert math_reward(Problem("m", "Why?", [], "12", same_words), junk) == 0.0


def test_a_reward_that_raises_in_mid_run_leaves_a_checkpoint(tmp_path: Path) -> None:
    calls = []

    def later(problem: Problem, text: str) -> float:
        calls.append(text)
        if len(calls) > 8:
            raise RuntimeError("gone")
        return by_length(problem, text)

    model = thinker("lightthinker")
    with pytest.raises(RewardError, match="gone"):
        trainer_of(model, tmp_path, later, max_steps=4).train()
    assert (tmp_path / "checkpoint-2" / "trained.safetensors").exists()
    again = thinker("lightthinker")
    trainer = trainer_of(again, tmp_path, max_steps=4)
    trainer.train()
    assert trainer.state.global_step == 4
    assert not hasattr(model.decoder, "soft")


@pytest.mark.parametrize("saved", [{}, {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}])
def test_behind_an_error_it_goes_on_as_if_nothing_had_been(saved: dict[str, Any], tmp_path: Path) -> None:
    """The roll-outs that it broke off are drawn again."""
    calls = []

    def once(problem: Problem, text: str) -> float:
        calls.append(text)
        if len(calls) == 9:
            raise RuntimeError("gone")
        return by_length(problem, text)

    whole = thinker("lightthinker")
    trainer_of(whole, tmp_path / "a", max_steps=4).train()
    with pytest.raises(RewardError, match="gone"):
        trainer_of(thinker("lightthinker"), tmp_path / "b", once, max_steps=4, **saved).train()
    again = thinker("lightthinker")
    trainer_of(again, tmp_path / "b", once, max_steps=4, **saved).train()
    for name, p in weights(whole).items():
        torch.testing.assert_close(weights(again)[name], p, atol=1e-6, rtol=1e-5)


def test_a_run_can_begin_anew_beside_its_checkpoints(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    trainer_of(thinker("lightthinker"), tmp_path, **saved).train()
    anew = trainer_of(thinker("lightthinker"), tmp_path, **saved)
    anew.train(resume_from_checkpoint=False)
    assert len(anew.state.log_history) > 2, "both steps were made"


def test_the_same_weights_with_other_positions_or_another_dtype_are_another_teacher() -> None:
    """Its version is what scores are cached under."""
    model = thinker("vanilla")
    known, plain = set(), teacher_of(model)
    plain.model = copy.deepcopy(plain.model)  # other tests have the same weights
    config = plain.model.config
    for change in ("nothing", "positions", "dtype"):
        if change == "positions":
            config.rope_parameters = config.rope_parameters | {"rope_theta": 77.0}
        if change == "dtype":
            plain.model.to(torch.bfloat16)
        known.add(plain.version)
    assert len(known) == 3


def test_what_exceeds_the_teachers_window_is_found_before(tmp_path: Path) -> None:
    model = thinker("vanilla")
    teacher = teacher_of(model)
    teacher.model = copy.deepcopy(teacher.model)
    teacher.model.config.max_position_embeddings = 12
    with pytest.raises(BudgetError, match="teacher's window of 12"):
        trainer_of(model, tmp_path, teacher=teacher)


def test_what_cannot_be_trained_is_refused_before(tmp_path: Path) -> None:
    model = thinker("vanilla")
    student = ThinkingStudent(model)
    with pytest.raises(DataError, match="no problem"):
        StudentTrainer(student, quick(tmp_path, objective="grpo"), [], by_length, [])
    unsolved = [Problem("u", "Why?", [], "blue", same_words)]
    with pytest.raises(DataError, match="no steps"):
        StudentTrainer(student, quick(tmp_path, objective="luffy"), unsolved, by_length, [], given=1)
    with pytest.raises(LaconicError, match="given"):
        StudentTrainer(student, quick(tmp_path, objective="luffy"), ASKED, by_length, [], given=3)
    scaled = ThinkingStudent(thinker("vanilla"))
    scaled.decoder.config.logit_scale = 0.5  # as Cohere's have it; without a teacher too
    with pytest.raises(BackboneError, match="logit_scale"):
        StudentTrainer(scaled, quick(tmp_path, objective="grpo"), ASKED, by_length, [])
    for name, value in (
        ("beta", 0.1),
        ("cast_lm_head_to_fp32", True),
        ("top_p", 0.9),
        ("top_k", 5),
        ("repetition_penalty", 1.2),
    ):
        with pytest.raises(LaconicError, match=name):
            StudentTrainer(student, quick(tmp_path, objective="grpo", **{name: value}), ASKED, by_length, [])
    with pytest.raises(LaconicError, match="window"):
        StudentTrainer(student, quick(tmp_path, objective="grpo", max_completion_length=600), ASKED, by_length, [])
    with pytest.raises(LaconicError, match="mask_truncated"):
        StudentTrainer(
            student, quick(tmp_path, objective="grpo", mask_truncated_completions=True), ASKED, by_length, []
        )
    long = [Problem("l", "Why?", ["word " * 600, "The answer is blue."], "blue", same_words)]
    with pytest.raises(LaconicError, match="window"):
        StudentTrainer(student, quick(tmp_path, objective="luffy"), long, by_length, [], given=1)
    halved = {"steps_per_generation": 2, "save_strategy": "steps", "save_steps": 3}
    odd = {"steps_per_generation": 3, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 1}
    odd |= {"per_device_train_batch_size": 2}
    for inside in (halved, odd):
        with pytest.raises(LaconicError, match="inside a batch"):
            StudentTrainer(student, quick(tmp_path, objective="grpo", **inside), ASKED, by_length, [])
    with pytest.raises(LaconicError, match="save_only_model"):
        StudentTrainer(student, quick(tmp_path, objective="grpo", save_only_model=True), ASKED, by_length, [])
    for objective in ("rkl", "kdrl", "gkd"):
        with pytest.raises(LaconicError, match="temperature"):
            quick(tmp_path, objective=objective, temperature=0.7)
    for name, value in (("teacher_batches", None), ("teacher_by_problem", "no"), ("log_gradients", 1)):
        with pytest.raises(LaconicError, match=name):
            quick(tmp_path, objective="tgpo", **{name: value})


def test_luffy_with_nothing_given_is_grpo(tmp_path: Path) -> None:
    one, other = thinker("lightthinker"), thinker("lightthinker")
    trainer_of(one, tmp_path / "a", objective="luffy", given=0).train()
    trainer_of(other, tmp_path / "b", objective="grpo").train()
    assert all(torch.equal(p, weights(other)[name]) for name, p in weights(one).items())


def test_students_answer_alike_whatever_training_saves(tmp_path: Path) -> None:
    """Activation checkpointing, which TRL has on unless told otherwise, must not reach into roll-outs."""
    found = []
    for saving in (False, True):
        model = thinker("lightthinker")
        trainer_of(model, tmp_path / str(saving), **{COMPUTED_AGAIN: saving}).train()
        found.append(weights(model))
    for name, p in found[0].items():
        torch.testing.assert_close(found[1][name], p, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("objective", ["tgpo", "luffy"])
def test_how_a_batch_is_cut_changes_nothing(objective: str, tmp_path: Path) -> None:
    found, logged = [], []
    for together in (4, 2, 1):
        model = thinker("lightthinker")
        teacher = teacher_of(model) if objective == "tgpo" else None
        trainer = trainer_of(
            model, tmp_path / str(together), objective=objective, given=int(objective == "luffy"), teacher=teacher,
            teacher_weight=0.5, per_device_train_batch_size=together, gradient_accumulation_steps=4 // together,
            learning_rate=0.1, adam_epsilon=1.0,  # else AdamW makes as much of a rounding as of a gradient
        )  # fmt: skip
        trainer.train()
        found.append(weights(model))
        logged.append(next(line["teacher/loss"] for line in trainer.state.log_history if "teacher/loss" in line))
    assert logged == pytest.approx([logged[0]] * 3, rel=1e-4), "what is logged is the whole batch's"
    start = weights(thinker("lightthinker"))
    assert max(float((p - start[name]).norm()) for name, p in found[0].items()) > 1e-2
    for other in found[1:]:
        for name, p in found[0].items():
            torch.testing.assert_close(other[name], p, atol=1e-6, rtol=1e-5)


def work(rank: int, world: int, port: int, folder: str, objective: str) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
    }  # fmt: skip
    torch.set_num_threads(1)
    model = thinker("lightthinker")
    trainer = trainer_of(
        model,
        Path(folder),
        objective=objective,
        given=2,
        teacher=teacher_of(model) if objective == "tgpo" else None,
        teacher_weight=0.5,
        per_device_train_batch_size=4 // world,
        learning_rate=0.1,
        adam_epsilon=1.0,
    )
    trainer.train()
    assert trainer.accelerator.num_processes == world
    torch.save(weights(model), Path(folder) / f"{world}-{rank}.pt")


@pytest.mark.parametrize("objective", ["sft", "tgpo"])
def test_two_processes_learn_what_one_does(objective: str, tmp_path: Path) -> None:
    """From given answers; of these a group's rewards are equal, so that it is the teacher alone that moves tgpo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for world in (1, 2):
        mp.spawn(work, (world, port + world, str(tmp_path), objective), nprocs=world)
    alone = torch.load(tmp_path / "1-0.pt")
    start = weights(thinker("lightthinker"))
    assert max(float((p - start[name]).norm()) for name, p in alone.items()) > 1e-2
    for rank in range(2):
        for name, p in torch.load(tmp_path / f"2-{rank}.pt").items():
            torch.testing.assert_close(p, alone[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_every_problem_is_asked_whether_or_not_they_fill_a_batch(count: int, tmp_path: Path) -> None:
    """Two problems make a batch here; TRL would drop the third, and of one make no batch at all."""
    asked: list[str] = []

    def noted(problem: Problem, text: str) -> float:
        asked.append(problem.id)
        return float(len(text) % 3)

    model = thinker("vanilla")
    own = [p for name, p in model.decoder.named_parameters() if "lora_" in name]
    options = quick(tmp_path, objective="grpo", max_steps=-1, num_train_epochs=1)
    StudentTrainer(ThinkingStudent(model), options, ASKED[:count], noted, [(own, 1.0)]).train()
    wanted = {1: ["p0"] * 4, 3: ["p0", "p0", "p1", "p1", "p2", "p2", "p0", "p0"]}[count]
    assert asked == wanted
