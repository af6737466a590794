"""TGPO on TRL's GRPO (invariants 1, 6 to 8, 10, 15 to 17 and 20 of its specification)."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedModel

trl = pytest.importorskip("trl")
from datasets import Dataset  # noqa: E402

from laconic.errors import DataError, LaconicError  # noqa: E402
from laconic.losses.distillation import divergence  # noqa: E402
from laconic.methods.tgpo.cache import CachedTeacher  # noqa: E402
from laconic.methods.tgpo.config import COMPUTED_AGAIN, Gate, TGPOConfig  # noqa: E402
from laconic.methods.tgpo.gates import gated  # noqa: E402
from laconic.methods.tgpo.teacher import LocalTeacher, Scores, Target  # noqa: E402
from laconic.methods.tgpo.trainer import TGPOTrainer  # noqa: E402
from laconic.methods.tgpo.vocabulary import SharedVocabulary, shared_vocabulary, side_of  # noqa: E402

# TRL names what transformers renames
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

TOKENIZER = tiny_tokenizer()
PROMPTS = ["What is the passkey?", "The weather", "First we add", "The sky is"]


def student(seed: int = 0, **overrides: Any) -> PreTrainedModel:
    model = tiny_model("llama", vocab_size=len(TOKENIZER), **overrides)
    if seed:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


class Fake:
    """Says the token behind the last one, and counts its calls."""

    version = "fake"

    def __init__(self) -> None:
        self.calls: list[Tensor] = []

    def score(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Scores:
        self.calls.append(answer)
        before = torch.cat([prompt[:, -1:], answer[:, :-1]], dim=1)
        real = answer_mask.bool()
        ids = ((before + 1) % len(TOKENIZER)) * real
        return Scores(ids, torch.full(ids.shape, -0.5) * real, torch.full(ids.shape, -1.0) * real)


def by_length(completions: Sequence[str], **_: Any) -> list[float]:
    return [float(len(text) % 3) for text in completions]


def equal(completions: Sequence[str], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 6,
        "max_steps": 2, "learning_rate": 1e-2, "report_to": [], "use_cpu": True, "logging_steps": 1, "seed": 1,
        "save_strategy": "no", "temperature": 1.0, "disable_tqdm": True,
        "bf16": False, COMPUTED_AGAIN: False,
    }  # fmt: skip
    return known | changes


def trained(folder: Path, model: PreTrainedModel, reward: Any = by_length, **changes: Any) -> Any:
    teacher = changes.pop("teacher", None)
    plain = changes.pop("plain", False)
    data = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS] * 4)
    common = {"reward_funcs": reward, "train_dataset": data, "processing_class": TOKENIZER}
    if plain:
        trainer = trl.GRPOTrainer(model, args=trl.GRPOConfig(**options(folder, **changes)), **common)
    else:
        trainer = TGPOTrainer(model, args=TGPOConfig(**options(folder, **changes)), teacher=teacher, **common)
    trainer.train()
    return trainer


def weights(trainer: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def test_without_a_weight_it_is_grpo_bit_by_bit_and_no_teacher_is_asked(tmp_path: Path) -> None:
    plain = weights(trained(tmp_path / "a", student(), plain=True))
    assert any(not torch.equal(p, plain[name]) for name, p in student().named_parameters())
    for changes in ({"teacher_weight": 0.0}, {"objective": "grpo"}):
        fake = Fake()
        found = weights(trained(tmp_path / "b", student(), teacher=fake, **changes))
        assert not fake.calls
        assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_with_equal_rewards_grpo_stands_still_and_guidance_moves(tmp_path: Path) -> None:
    start = dict(student().named_parameters())
    still = weights(trained(tmp_path / "a", student(), equal, plain=True))
    assert all(torch.equal(still[name], p) for name, p in start.items())
    fake = Fake()
    trainer = trained(tmp_path / "b", student(), equal, teacher=fake, teacher_weight=0.5)
    assert any(not torch.equal(p, start[name]) for name, p in weights(trainer).items())
    assert len(fake.calls) == 2
    logged = [line for line in trainer.state.log_history if "teacher/weight" in line]
    for name in ("weight", "loss", "student_probability", "agreement", "log_prob", "log_prob_of_said"):
        assert f"teacher/{name}" in logged[0]
    assert logged[0]["teacher/weight"] == 0.5
    assert logged[1]["teacher/weight"] == pytest.approx(0.5 - 1e-5)
    assert logged[0]["teacher/log_prob_of_said"] == pytest.approx(-1.0)


@pytest.mark.parametrize(("loss_type", "aims"), [("dapo", 1), ("dapo", 3), ("grpo", 1), ("bnpo", 1), ("dr_grpo", 1)])
def test_the_teachers_term_is_what_it_says_and_shares_the_policys_count(
    tmp_path: Path, loss_type: str, aims: int
) -> None:
    trainer = trained(tmp_path, student(), teacher=Fake(), teacher_weight=0.3, loss_type=loss_type, max_steps=1)
    trainer.model.train()
    torch.manual_seed(0)
    prompt, mask = torch.randint(3, 90, (3, 4)), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]])
    said, real = torch.randint(3, 90, (3, 5)), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    theirs, shares = torch.randint(3, 90, (3, 5, aims)), torch.randn(3, 5, aims).softmax(-1)
    inputs = {
        "prompt_ids": prompt, "prompt_mask": mask, "completion_ids": said, "completion_mask": real,
        "advantages": torch.zeros(3), "num_items_in_batch": torch.tensor(10.0), "teacher_ids": theirs,
        "teacher_shares": shares, "teacher_said": torch.zeros(3, 5), "teacher_gate": real.float(),
    }  # fmt: skip
    trainer._weight_now = 0.3
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(trainer.model, inputs)
    whole, attention = torch.cat([prompt, said], 1), torch.cat([mask, real], 1)
    logits = trainer.model(whole, attention_mask=attention).logits[:, 3:-1]
    surprise = -(logits.log_softmax(-1).gather(-1, theirs) * shares).sum(-1) * real
    wanted = {
        "dapo": surprise.sum() / 10,
        "grpo": (surprise.sum(1) / real.sum(1)).mean(),
        "bnpo": surprise.sum() / real.sum(),
        "dr_grpo": surprise.sum() / (3 * 6),
    }[loss_type]
    assert loss.item() == pytest.approx(0.3 * wanted.item(), rel=1e-5)
    grads = torch.autograd.grad(loss, list(trainer.model.parameters()), retain_graph=True, allow_unused=True)
    expected = torch.autograd.grad(0.3 * wanted, list(trainer.model.parameters()), allow_unused=True)
    for one, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    garbage = inputs | {
        "completion_ids": torch.where(real.bool(), said, 5),
        "teacher_ids": torch.where(real.bool()[..., None], theirs, 7),
    }
    assert trainer._compute_loss(trainer.model, garbage).item() == pytest.approx(loss.item(), abs=1e-6)


def example(trainer: Any) -> tuple[dict[str, Any], Tensor]:
    """Inputs of a loss, and the student's log-probabilities at each position of the answers, ``[B, T, V]``."""
    trainer.model.train()
    trainer._weight_now, trainer.current_gradient_accumulation_steps = 0.3, 1
    prompt, mask, said, real = ragged()
    with torch.no_grad():
        logits = trainer.model(torch.cat([prompt, said], 1), attention_mask=torch.cat([mask, real], 1)).logits[:, 3:-1]
    inputs = {
        "prompt_ids": prompt, "prompt_mask": mask, "completion_ids": said, "completion_mask": real,
        "advantages": torch.zeros(3), "num_items_in_batch": torch.tensor(9.0),
        "teacher_ids": ((said + 1) % 90)[..., None], "teacher_shares": torch.ones(3, 5, 1),
        "teacher_said": torch.full((3, 5), -2.0), "teacher_gate": real.float(),
    }  # fmt: skip
    return inputs, logits.log_softmax(-1)


def test_tokens_of_tools_are_neither_guided_nor_counted(tmp_path: Path) -> None:
    trainer = trained(tmp_path, student(), teacher=Fake(), loss_type="bnpo", max_steps=1)
    inputs, log_probs = example(trainer)
    own = torch.tensor([[1, 0, 0, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    counted = inputs["completion_mask"] * own
    inputs |= {"tool_mask": own, "teacher_gate": counted.float()}
    surprise = -log_probs.gather(-1, inputs["teacher_ids"])[..., 0]
    wanted = 0.3 * (surprise * counted).sum() / counted.sum()
    assert trainer._compute_loss(trainer.model, inputs).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.equal(trainer._mask(inputs), counted)


def test_how_strongly_policy_and_teacher_pull_is_noted(tmp_path: Path) -> None:
    model = student()
    settings: dict[str, Any] = {"teacher_weight": 0.5, "log_gradients": True, "max_steps": 1}
    found = weights(trainer := trained(tmp_path / "a", model, teacher=Fake(), **settings))
    logged = trainer.state.log_history[0]
    assert logged["policy/gradient"] > 0
    assert logged["teacher/gradient"] > 0
    plain = weights(trained(tmp_path / "b", student(), teacher=Fake(), **settings | {"log_gradients": False}))
    assert all(torch.equal(p, plain[name]) for name, p in found.items())
    still = trained(tmp_path / "c", student(), equal, teacher=Fake(), **settings).state.log_history[0]
    assert still["policy/gradient"] == 0
    assert still["teacher/gradient"] > 0


def test_kdrl_leaves_alone_what_is_right_already(tmp_path: Path) -> None:
    trainer = trained(tmp_path, student(), teacher=Fake(), objective="kdrl", loss_type="dapo", max_steps=1)
    inputs, log_probs = example(trainer)
    inputs["advantages"] = torch.tensor([1.0, -1.0, 1e-3])  # the last no better than its group, but for rounding
    apart = -2.0 - log_probs.gather(-1, inputs["completion_ids"][..., None])[..., 0]
    wrong = inputs["completion_mask"] * torch.tensor([[0], [1], [1]])
    plain = {name: value for name, value in inputs.items() if not name.startswith("teacher")}
    policy = trainer._compute_loss(trainer.model, plain).item()
    wanted = policy + 0.3 * (apart.square() / 2 * wrong).sum().item() / 9
    assert trainer._compute_loss(trainer.model, inputs).item() == pytest.approx(wanted, rel=1e-5)


def test_advantages_are_of_the_tokens_they_name(tmp_path: Path) -> None:
    trainer = trained(tmp_path, student(), teacher=Fake(), max_steps=1)
    inputs, log_probs = example(trainer)
    real = inputs["completion_mask"]
    inputs["advantages"] = torch.tensor([1.0, 0.5, -1.0])
    theirs = inputs["teacher_ids"][..., 0].clone()
    theirs[0, :2] = inputs["completion_ids"][0, :2]  # here the teacher would say the same
    scores = Scores(theirs, torch.zeros(3, 5), torch.full((3, 5), -2.0))
    agreed = torch.zeros(3, 5)
    agreed[0, :2] = 1
    said, teachers = (log_probs.gather(-1, ids[..., None])[..., 0] for ids in (inputs["completion_ids"], theirs))
    wanted = {
        "rkl": -2.0 - said,
        "adv_state": inputs["advantages"][:, None] + 0.3 * teachers.exp(),
        "adv_match": inputs["advantages"][:, None] + 0.3 * agreed,
    }
    for objective, advantages in wanted.items():
        trainer.args.objective = objective
        found = trainer._advantages(scores, inputs, 0.3)
        torch.testing.assert_close((found * real), (advantages * real), atol=1e-4, rtol=1e-4)
    # reverse KL scores nothing that was scored before, where a batch makes several updates
    trainer.args.objective = "rkl"
    known = inputs | {"old_per_token_logps": torch.full((3, 5), -0.5)}
    assert (trainer._advantages(scores, known, 0.3) == -1.5).all()


@pytest.mark.parametrize("objective", ["rkl", "kdrl", "adv_match", "adv_state"])
def test_every_rival_trains(tmp_path: Path, objective: str) -> None:
    start = dict(student().named_parameters())
    fake = Fake()
    settings = {"objective": objective, "teacher_weight": 0.5, "teacher_schedule": "constant"}
    found = weights(trained(tmp_path, student(), teacher=fake, **settings))
    assert fake.calls
    assert any(not torch.equal(p, start[name]) for name, p in found.items())
    assert all(bool(torch.isfinite(p).all()) for p in found.values())


def test_gates() -> None:
    said = torch.tensor([[5, 6, 7, 8]])
    real = torch.tensor([[1, 1, 1, 0]])
    scores = Scores(torch.tensor([[5, 9, 7, 0]]), torch.log(torch.tensor([[0.9, 0.4, 0.6, 1.0]])), torch.zeros(1, 4))
    wanted: dict[Gate, list[int]] = {
        "all": [1, 1, 1, 0],
        "mismatch": [0, 1, 0, 0],
        "confident": [1, 0, 1, 0],
        "incorrect": [1, 1, 1, 0],
        "first": [1, 1, 0, 0],
    }
    for gate, kept in wanted.items():
        assert gated(gate, 0.5, scores, said, torch.tensor([-1.0]), real)[0].tolist() == kept
    assert gated("incorrect", 0.5, scores, said, torch.tensor([1.0]), real).sum() == 0
    # eight answers that are all right by a sixth are no better than their mean, which rounding puts a little lower
    for advantage, guided in ((1e-3, 3), (0.05, 0)):
        assert gated("incorrect", 0.5, scores, said, torch.tensor([advantage]), real).sum() == guided
    # what is not the student's own is no part of its answer's beginning
    assert gated("first", 0.5, scores, said, torch.tensor([1.0]), torch.tensor([[0, 1, 0, 1]]))[0].tolist() == [
        0,
        1,
        0,
        0,
    ]


def test_the_least_decided_tokens_of_a_batch_are_guided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    trainer = trained(tmp_path, student(), teacher=fake, gate="entropy", gate_threshold=0.25, max_steps=1)
    assert fake.calls, "and it trains"
    prompt, prompt_mask, said, real = ragged()
    output = {"prompt_ids": prompt, "prompt_mask": prompt_mask, "completion_ids": said, "completion_mask": real}
    with torch.no_grad():
        rows = [torch.cat([p[m.bool()], a[n.bool()]]) for p, m, a, n in zip(*ragged(), strict=True)]
        logits = [
            trainer.model(row[None]).logits[0, int(m.sum()) - 1 : -1] for row, m in zip(rows, prompt_mask, strict=True)
        ]
    own = [-(one.softmax(-1) * one.log_softmax(-1)).sum(-1) for one in logits]
    for row, entropies in zip(trainer._entropies(output), own, strict=True):
        torch.testing.assert_close(row[: len(entropies)], entropies, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(
        trainer, "_entropies", lambda _: torch.tensor([[1.0, 5, 2, 3, 4], [9, 99, 99, 99, 99], [8, 0, 7, 99, 99]])
    )
    gate = trainer._gate(fake.score(prompt, prompt_mask, said, real), output, real)
    assert gate.nonzero().tolist() == [[1, 0], [2, 0], [2, 2]], "of nine real tokens the upper quarter"


def test_problems_that_are_half_solved_are_guided_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    trainer = trained(tmp_path / "a", student(), teacher=fake, teacher_by_problem=True, max_steps=1)
    trainer._rewards = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    assert trainer._undecided().tolist() == [0.0] * 4 + [0.75] * 4
    with monkeypatch.context() as several:  # each process weighs its own answers by the rewards of all
        several.setattr(trainer, "accelerator", SimpleNamespace(num_processes=2, process_index=1))
        assert trainer._undecided().tolist() == [0.75] * 4
    start = dict(student().named_parameters())
    settings: dict[str, Any] = {"teacher_weight": 0.5, "max_steps": 1}
    solved = weights(trained(tmp_path / "b", student(), equal, teacher=Fake(), teacher_by_problem=True, **settings))
    assert all(torch.equal(solved[name], p) for name, p in start.items()), "all solved: neither reward nor guidance"
    guided = weights(trained(tmp_path / "c", student(), equal, teacher=Fake(), **settings))
    assert any(not torch.equal(guided[name], p) for name, p in start.items())


def ragged() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    prompt, prompt_mask = torch.randint(3, 90, (3, 4)), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]])
    answer, answer_mask = (
        torch.randint(3, 90, (3, 5)),
        torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]),
    )
    return prompt, prompt_mask, answer, answer_mask


def same(one: Scores, other: Scores) -> bool:
    pairs = zip(one.columns, other.columns, strict=True)
    return all(torch.allclose(a, b, atol=1e-5) if a.is_floating_point() else torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])  # gpt2 has positions that padding must not shift
def test_a_local_teacher_reads_what_stands_before_each_token_whatever_the_padding(arch: str) -> None:
    model = tiny_model(arch, vocab_size=len(TOKENIZER))
    teacher = LocalTeacher(model, TOKENIZER, side_of(student(), TOKENIZER))
    prompt, prompt_mask, answer, answer_mask = ragged()
    found = teacher.score(prompt, prompt_mask, answer, answer_mask)
    for row in range(3):
        own, said = prompt[row][prompt_mask[row].bool()], answer[row][answer_mask[row].bool()]
        with torch.no_grad():
            log_probs = model(torch.cat([own, said])[None]).logits[0].log_softmax(-1)[len(own) - 1 : -1]
        count = len(said)
        assert found.ids[row, :count].tolist() == log_probs.argmax(-1).tolist()
        torch.testing.assert_close(found.log_probs[row, :count], log_probs.amax(-1), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            found.said[row, :count], log_probs.gather(-1, said[:, None])[:, 0], atol=1e-4, rtol=1e-4
        )
        assert (found.ids[row, count:] == 0).all()
    wider = [
        torch.cat([torch.full((3, 2), 77), prompt], 1),
        torch.cat([torch.zeros(3, 2, dtype=torch.long), prompt_mask], 1),
    ]
    longer = [
        torch.cat([answer, torch.full((3, 3), 88)], 1),
        torch.cat([answer_mask, torch.zeros(3, 3, dtype=torch.long)], 1),
    ]
    again = teacher.score(*wider, *longer)
    assert same(Scores(*(column[:, :5] for column in again.columns)), found)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_a_soft_target_is_what_the_teacher_finds_likeliest() -> None:
    model, side = student(3), side_of(student(), TOKENIZER)
    plain, soft = (LocalTeacher(model, TOKENIZER, side, target=t, top=4).score(*ragged()) for t in ("argmax", "soft"))
    assert same(Scores(*soft.columns[:3]), plain)
    (ids, shares), (own, all_of_it) = soft.aims, plain.aims
    assert torch.equal(own[..., 0], plain.ids)
    assert torch.equal(all_of_it, torch.ones(3, 5, 1))
    prompt, mask, answer, real = ragged()
    for row in range(3):
        with torch.no_grad():
            read = torch.cat([prompt[row][mask[row].bool()], answer[row][real[row].bool()]])
            q = model(read[None]).logits[0, int(mask[row].sum()) - 1 : -1].softmax(-1)
        top = q.topk(4)
        count = len(q)
        assert torch.equal(ids[row, :count], top.indices)
        torch.testing.assert_close(shares[row, :count], top.values / top.values.sum(-1, keepdim=True))
        assert (ids[row, count:] == 0).all()
    for sizes in ({"rows": 1, "positions": 1}, {"rows": 2, "positions": 3}):
        assert same(LocalTeacher(model, TOKENIZER, side, target="soft", top=4, **sizes).score(*ragged()), soft)
    with pytest.raises(LaconicError, match="of 0 tokens"):
        LocalTeacher(model, TOKENIZER, side, target="soft", top=0)


@pytest.mark.parametrize(("rows", "positions"), [(1, 1), (2, 3), (100, 100)])
def test_pieces_change_nothing(rows: int, positions: int) -> None:
    make = lambda **sizes: LocalTeacher(student(3), TOKENIZER, side_of(student(), TOKENIZER), **sizes)  # noqa: E731
    assert same(make(rows=rows, positions=positions).score(*ragged()), make().score(*ragged()))


@pytest.mark.parametrize("target", ["argmax", "soft"])
def test_a_cache_gives_what_it_was_given_and_asks_only_for_the_rest(tmp_path: Path, target: Target) -> None:
    local = LocalTeacher(student(3), TOKENIZER, side_of(student(), TOKENIZER), target=target, top=3)
    cached = CachedTeacher(local, tmp_path / "deep" / "scores.sqlite")
    assert cached.window == local.window is not None, "what it can read is asked of the cache too"
    prompt, prompt_mask, answer, answer_mask = ragged()
    asked: list[int] = []
    score = local.score
    local.score = lambda *parts: (asked.append(len(parts[0])), score(*parts))[1]  # type: ignore[method-assign]
    first = cached.score(prompt[:2], prompt_mask[:2], answer[:2], answer_mask[:2])
    again = CachedTeacher(local, tmp_path / "deep" / "scores.sqlite").score(prompt, prompt_mask, answer, answer_mask)
    assert asked == [2, 1]
    assert same(again, score(prompt, prompt_mask, answer, answer_mask))
    assert len(again.columns) == {"argmax": 3, "soft": 5}[target]
    assert same(Scores(*(column[:2] for column in again.columns)), first)
    silent = torch.zeros_like(answer_mask)
    assert not cached.score(prompt, prompt_mask, answer, silent).said.any(), "answers without a word"
    wider = LocalTeacher(student(3), TOKENIZER, side_of(student(), TOKENIZER), target="soft", top=2)
    assert CachedTeacher(wider, tmp_path / "deep" / "scores.sqlite").score(*ragged()).aims[0].shape[-1] == 2
    other = LocalTeacher(student(4), TOKENIZER, side_of(student(), TOKENIZER))
    assert not same(CachedTeacher(other, tmp_path / "deep" / "scores.sqlite").score(*ragged()), again)
    with sqlite3.connect(tmp_path / "deep" / "scores.sqlite") as gone:
        gone.execute("drop table scores")
    with pytest.raises(DataError, match=r"scores\.sqlite failed: no such table"):
        cached.score(prompt, prompt_mask, answer, answer_mask)
    (tmp_path / "text.sqlite").write_text("no database at all, and long enough to be none" * 10)
    with pytest.raises(DataError, match="cache"):
        CachedTeacher(local, tmp_path / "text.sqlite")
    with sqlite3.connect(tmp_path / "games.sqlite") as games:
        games.execute("create table scores (player text, points integer)")
    with pytest.raises(DataError, match="cache"):
        CachedTeacher(local, tmp_path / "games.sqlite")


def test_ends_are_aliased_and_nothing_beyond_the_shared_is_said() -> None:
    own, theirs = student(), student(3)
    large = copy.deepcopy(theirs)
    large.resize_token_embeddings(len(TOKENIZER) + 30)
    large.generation_config.eos_token_id = 50
    vocabulary = shared_vocabulary(side_of(own, TOKENIZER), side_of(large, TOKENIZER))
    assert vocabulary == SharedVocabulary(len(TOKENIZER), {50: 2})
    assert vocabulary.to_teacher(torch.tensor([2, 7])).tolist() == [50, 7]
    with torch.no_grad():  # a head that always wants a token that the student does not have
        large.get_output_embeddings().weight[len(TOKENIZER) :] = 100.0
    found = LocalTeacher(large, TOKENIZER, side_of(own, TOKENIZER)).score(*ragged())
    assert int(found.ids.max()) < len(TOKENIZER)
    assert bool(torch.isfinite(found.log_probs).all())


def test_what_a_teacher_gives_to_its_own_end_it_gives_to_the_students() -> None:
    """Of the answers alone: what ends a turn inside a prompt stays what it is."""
    own, theirs = student(), student(3)
    theirs.generation_config.eos_token_id = 50
    vocabulary = shared_vocabulary(side_of(own, TOKENIZER), side_of(theirs, TOKENIZER))
    assert dict(vocabulary.aliases) == {50: 2}
    logits = torch.randn(4, len(TOKENIZER))
    folded = vocabulary.folded(logits).log_softmax(-1)
    plain = logits.log_softmax(-1)
    torch.testing.assert_close(folded[:, 2].exp(), plain[:, 2].exp() + plain[:, 50].exp())
    assert bool((folded[:, 50] == -torch.inf).all())
    prompt, prompt_mask, answer, answer_mask = ragged()
    prompt[1, 2], answer[0, 4] = 2, 2
    teacher = LocalTeacher(theirs, TOKENIZER, side_of(own, TOKENIZER))
    found = teacher.score(prompt, prompt_mask, answer, answer_mask)
    as_word = answer.clone()
    as_word[0, 4] = 50  # the teacher's end as a word of the student's: it is worth what the student's own end is
    torch.testing.assert_close(teacher.score(prompt, prompt_mask, as_word, answer_mask).said[0, 4], found.said[0, 4])
    with torch.no_grad():
        read = torch.cat([prompt[1], answer[1][answer_mask[1].bool()]])[None]
        wanted = vocabulary.folded(theirs(read).logits[0, 3:-1]).log_softmax(-1)
        ended = theirs(torch.cat([prompt[0][prompt_mask[0].bool()], answer[0, :4]])[None]).logits[0, -1]
    torch.testing.assert_close(found.log_probs[1, 0], wanted.amax(-1)[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.said[0, 4], vocabulary.folded(ended).log_softmax(-1)[2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_divergences_over_vocabularies_with_aliases_have_gradients(beta: float) -> None:
    vocabulary = SharedVocabulary(6, {5: 2, 8: 2})
    torch.manual_seed(0)
    own, theirs = torch.randn(3, 7, requires_grad=True), torch.randn(3, 9)
    q = vocabulary.compared(vocabulary.folded(theirs))
    divergence(vocabulary.compared(own), q, beta).sum().backward()
    assert own.grad is not None
    assert bool(torch.isfinite(own.grad).all())
    assert bool((own.grad[:, :5] != 0).all())
    assert q.shape == (3, 5)


def test_vocabularies_that_are_not_one_are_refused_before_training(tmp_path: Path) -> None:
    other = copy.deepcopy(TOKENIZER)
    other.add_tokens(["<think>"])
    shuffled = tiny_tokenizer()
    shuffled.convert_ids_to_tokens = lambda ids: [f"x{i}" for i in ids]  # type: ignore[method-assign]
    assert shared_vocabulary(side_of(student(), TOKENIZER), side_of(student(), other)).size == len(TOKENIZER)
    with pytest.raises(LaconicError, match="cannot read 1"):
        shared_vocabulary(side_of(student(), other), side_of(student(), TOKENIZER))
    with pytest.raises(LaconicError, match="vocabularies are not one"):
        LocalTeacher(student(), shuffled, side_of(student(), TOKENIZER))
    with pytest.raises(LaconicError, match="alias"):
        LocalTeacher(student(), TOKENIZER, side_of(student(), TOKENIZER), aliases={3: 10_000})
    for aliases in ({50: 50}, {7: 2, 2: 1}):
        with pytest.raises(LaconicError, match="stands for another"):
            LocalTeacher(student(), TOKENIZER, side_of(student(), TOKENIZER), aliases=aliases)
    with pytest.raises(LaconicError, match="needs a teacher"):
        trained(tmp_path, student())
    for wrong in (
        {"objective": "dpo"},
        {"gkd_beta": 1.5},
        {"objective": "rkl"},  # whose weight would fall to 0
        {"gate": "none"},
        {"objective": "kdrl", "gate": "first"},
        {"objective": "grpo", "teacher_by_problem": True},
        {"gate_threshold": 2.0},
        {"teacher_weight": -1.0},
        {"loss_type": "sapo"},
    ):
        with pytest.raises(LaconicError):
            TGPOConfig(**options(tmp_path, **wrong))


def test_a_score_that_is_missing_stops_training(tmp_path: Path) -> None:
    class Holes(Fake):
        def score(self, *parts: Tensor) -> Scores:
            found = super().score(*parts)
            return Scores(found.ids, found.log_probs, found.said - float("inf"))

    with pytest.raises(LaconicError, match="no said"):
        trained(tmp_path, student(), teacher=Holes())


def test_a_teacher_may_be_sampled() -> None:
    undecided = student(3)
    with torch.no_grad():
        undecided.get_output_embeddings().weight.mul_(0.1)
    drawn = LocalTeacher(undecided, TOKENIZER, side_of(student(), TOKENIZER), target="sample")
    parts = ragged()
    several = torch.stack([drawn.score(*parts).ids for _ in range(5)])
    assert (several != several[0]).any()
    with pytest.raises(LaconicError, match="target"):
        LocalTeacher(student(3), TOKENIZER, side_of(student(), TOKENIZER), target="beam")  # type: ignore[arg-type]


def test_the_batch_is_counted_by_roll_outs_and_not_by_updates(tmp_path: Path) -> None:
    fake = Fake()
    trainer = trained(
        tmp_path, student(), teacher=fake, teacher_weight=0.4, teacher_weight_fall=0.1, max_steps=4,
        steps_per_generation=2, per_device_train_batch_size=4, gradient_accumulation_steps=1,
    )  # fmt: skip
    logged = [line["teacher/weight"] for line in trainer.state.log_history if "teacher/weight" in line]
    assert logged == pytest.approx([0.4, 0.3])
    assert len(fake.calls) == 2
    trainer.state.global_step = 6
    assert trainer.rollout_batch == 4


def test_the_batch_is_counted_by_roll_outs_within_an_update_too(tmp_path: Path) -> None:
    """An update of two batches of roll-outs; then batches and updates of which neither spans the other."""
    common = {"teacher_weight": 0.4, "teacher_weight_fall": 0.1, "per_device_train_batch_size": 4}
    for parts, updates, wanted in ((1, 2, [(0.4 + 0.3) / 2, (0.2 + 0.1) / 2]), (3, 4, [0.4, 0.3, 0.2])):
        trainer = trained(
            tmp_path, student(), teacher=Fake(), steps_per_generation=parts, gradient_accumulation_steps=2,
            max_steps=updates, **common,
        )  # fmt: skip
        logged = [line["teacher/weight"] for line in trainer.state.log_history if "teacher/weight" in line]
        assert logged == pytest.approx(wanted)


def test_a_weight_that_falls_to_nothing_in_a_run_ends_the_asking(tmp_path: Path) -> None:
    fake = Fake()
    trainer = trained(
        tmp_path, student(), teacher=fake, teacher_weight=0.2, teacher_weight_fall=0.1, max_steps=4, save_strategy="no"
    )
    logged = [line["teacher/weight"] for line in trainer.state.log_history if "teacher/weight" in line]
    assert logged == pytest.approx([0.2, 0.1, 0.0, 0.0])
    assert len(fake.calls) == 2


def test_training_leaves_a_teacher_as_it_was(tmp_path: Path) -> None:
    model = student(3)
    teacher = LocalTeacher(model, TOKENIZER, side_of(student(), TOKENIZER))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    moved = trained(tmp_path, student(), teacher=teacher, teacher_weight=0.5)
    assert any(not torch.equal(p, dict(student().named_parameters())[name]) for name, p in weights(moved).items())
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())


def test_a_tokenizer_whose_padding_is_its_end_loses_no_end(tmp_path: Path) -> None:
    """What was said is known by the mask, not by the id: an answer's own end is guided, what pads it is not."""
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.pad_token = tokenizer.eos_token
    seen: list[tuple[Tensor, Tensor]] = []

    class Noting(Fake):
        def score(self, prompt: Tensor, prompt_mask: Tensor, answer: Tensor, answer_mask: Tensor) -> Scores:
            seen.append((answer, answer_mask))
            return super().score(prompt, prompt_mask, answer, answer_mask)

    data = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS] * 4)
    few = {"suppress_tokens": list(range(30, len(tokenizer)))}  # of few words the end is soon one
    changes = {"max_completion_length": 40, "teacher_weight": 0.5, "generation_kwargs": few}
    args = TGPOConfig(**options(tmp_path, **changes))
    TGPOTrainer(
        student(), args=args, teacher=Noting(), reward_funcs=by_length, train_dataset=data, processing_class=tokenizer
    ).train()
    end, ended = tokenizer.eos_token_id, 0
    for answer, mask in seen:
        for row, own in zip(answer.tolist(), mask.tolist(), strict=True):
            said = row[: sum(own)]
            assert own == [1] * len(said) + [0] * (len(row) - len(said))
            assert end not in said[:-1]
            ended += said[-1] == end and len(said) < len(row)
    assert ended
