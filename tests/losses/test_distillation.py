"""Losses of TGPO and its rivals (invariants 2 to 5, 10 to 15 and 19 of its specification)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from laconic.errors import LaconicError
from laconic.losses.chosen import chosen_log_probs
from laconic.losses.distillation import (
    divergence,
    divergence_of_states,
    guidance,
    match_bonus,
    reverse_kl_advantage,
    soft_guidance,
    squared_log_ratio,
    state_bonus,
)
from laconic.losses.policy import clipped_surrogate, group_advantages, masked_mean, shaped_off_policy
from laconic.losses.schedules import Weight

V = 7


def logits(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return (torch.randn(*shape, V, generator=torch.Generator().manual_seed(seed)) * scale).requires_grad_()


def gather(z: Tensor, ids: Tensor) -> Tensor:
    return z.log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def test_guidance_pulls_by_softmax_minus_the_teachers_token() -> None:
    z, ids = logits(2, 5), torch.randint(V, (2, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    weight, total = 0.3, 8
    (weight * masked_mean(guidance(gather(z, ids)), mask, total)).backward()
    wanted = weight * mask[..., None] / total * (z.softmax(-1) - nn.functional.one_hot(ids, V))
    torch.testing.assert_close(z.grad, wanted.detach())
    assert (z.grad[0, 3:] == 0).all()


def test_guidance_is_not_clamped_where_the_student_is_far_away() -> None:
    z = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    guidance(gather(z, torch.tensor([1]))).sum().backward()
    assert z.grad is not None
    assert z.grad[0, 1].item() == pytest.approx(-1.0, abs=1e-6)


def test_a_small_step_of_guidance_raises_the_teachers_tokens() -> None:
    z, ids = logits(20), torch.randint(V, (20,), generator=torch.Generator().manual_seed(1))
    before = gather(z, ids)
    before.neg().mean().backward()
    with torch.no_grad():
        after = gather(z - 0.1 * z.grad, ids)
    assert after.mean() > before.mean()


def test_a_teacher_that_is_the_student_teaches_nothing_but_its_mode() -> None:
    for beta in (0.0, 0.3, 1.0):
        z = logits(4)
        found = divergence(z, z.detach().clone(), beta)
        torch.testing.assert_close(found, torch.zeros(4), atol=1e-6, rtol=0)
        found.sum().backward()
        torch.testing.assert_close(z.grad, torch.zeros_like(z), atol=1e-6, rtol=0)
    z = logits(4)
    said = torch.tensor([0, 1, 2, 3])
    own = gather(z, said)
    assert (reverse_kl_advantage(own.detach(), own) == 0).all()
    squared_log_ratio(own.detach(), own).sum().backward()
    assert (z.grad == 0).all()
    mode = z.argmax(-1)
    term = guidance(gather(z, mode))
    assert (term > 0).all()
    z.grad = None
    term.sum().backward()
    with torch.no_grad():
        after = (z - 0.1 * z.grad).log_softmax(-1)
        before = z.log_softmax(-1)
    assert (-(after.exp() * after).sum(-1) < -(before.exp() * before).sum(-1)).all()  # it sharpens


def test_sampled_guidance_is_forward_kl_on_average() -> None:
    z, teacher = logits(1, seed=0), logits(1, seed=5).detach()
    divergence(z, teacher, 0.0).sum().backward()
    forward = z.grad.clone()
    draws = 40_000
    ids = torch.multinomial(teacher.softmax(-1), draws, replacement=True, generator=torch.Generator().manual_seed(0))[0]
    each = z.detach().softmax(-1) - nn.functional.one_hot(ids, V)
    apart = (each.mean(0) - forward[0]).abs()
    assert (apart < 3 * each.std(0) / math.sqrt(draws) + 1e-4).all()


def test_soft_guidance_is_forward_kl_over_the_teachers_tokens() -> None:
    z, teacher = logits(4, 5), torch.randn(4, 5, V, generator=torch.Generator().manual_seed(3))
    top = teacher.softmax(-1).topk(3)
    shares = top.values / top.values.sum(-1, keepdim=True)
    soft_guidance(z.log_softmax(-1).gather(-1, top.indices), shares).sum().backward()
    q = torch.zeros(4, 5, V).scatter(-1, top.indices, shares)
    torch.testing.assert_close(z.grad, (z.softmax(-1) - q).detach())
    whole, everything = z.detach().log_softmax(-1), teacher.softmax(-1)
    kl = soft_guidance(whole, everything) + (everything * everything.log()).sum(-1)
    torch.testing.assert_close(kl, divergence(z.detach(), teacher, 0.0))
    ids = top.indices[..., :1]
    own = whole.gather(-1, ids)
    assert torch.equal(soft_guidance(own, torch.ones_like(own)), guidance(own[..., 0]))


def test_forward_and_reverse_kl_are_what_they_say_and_jsd_lies_between() -> None:
    z, teacher = logits(3), logits(3, seed=5).detach()
    p, q = z.log_softmax(-1), teacher.log_softmax(-1)
    torch.testing.assert_close(divergence(z, teacher, 0.0), (q.exp() * (q - p)).sum(-1))
    torch.testing.assert_close(divergence(z, teacher, 1.0), (p.exp() * (p - q)).sum(-1))
    small, large = divergence(z, teacher, 1e-4) / 1e-4, divergence(z, teacher, 1 - 1e-4) / 1e-4
    torch.testing.assert_close(small, divergence(z, teacher, 0.0), rtol=0.02, atol=1e-3)
    torch.testing.assert_close(large, divergence(z, teacher, 1.0), rtol=0.02, atol=1e-3)
    assert torch.isfinite(divergence(z, torch.tensor([[0.0] + [float("-inf")] * (V - 1)] * 3), 0.0)).all()


def test_the_exact_gradient_of_reverse_kl_carries_the_students_own_mass() -> None:
    z, teacher = logits(1), logits(1, seed=5).detach()
    p, q = z.softmax(-1).detach(), teacher.softmax(-1)
    kl = divergence(z, teacher, 1.0)
    (-kl).sum().backward()
    wanted = p * ((q / p).log() + kl.detach()[:, None])
    torch.testing.assert_close(z.grad, wanted, atol=1e-6, rtol=1e-4)
    # and so does the policy gradient, on average over all that could be said
    policy = torch.zeros(V)
    for said in range(V):
        advantage = reverse_kl_advantage(q.log()[0, said], p.log()[0, said])
        policy += p[0, said] * advantage * (nn.functional.one_hot(torch.tensor(said), V) - p[0])
    torch.testing.assert_close(policy, wanted[0], atol=1e-6, rtol=1e-4)


def test_a_bonus_of_the_state_teaches_nothing_and_one_for_a_match_does() -> None:
    z, teacher = logits(1).detach(), 3
    p = z.softmax(-1)[0]
    onehot = nn.functional.one_hot(torch.arange(V), V)
    state = sum(p[y] * state_bonus(p[teacher].log()) * (onehot[y] - p) for y in range(V))
    match = sum(p[y] * match_bonus(torch.tensor(y), torch.tensor(teacher)) * (onehot[y] - p) for y in range(V))
    torch.testing.assert_close(state, torch.zeros(V), atol=1e-6, rtol=0)
    assert isinstance(match, Tensor)
    assert match[teacher].item() == pytest.approx(float(p[teacher] * (1 - p[teacher])), abs=1e-6)


def test_kdrl_feels_the_teacher_and_comes_nearer_to_it() -> None:
    said = torch.tensor([0, 1, 2])
    grads = []
    for shift in (0.0, 0.5):
        z = logits(3)
        teacher = gather(logits(3, seed=5), said).detach() + shift
        squared_log_ratio(teacher, gather(z, said)).mean().backward()
        grads.append(z.grad.clone())
        with torch.no_grad():
            apart = (teacher - gather(z - 0.1 * z.grad, said)).abs().mean()
            assert apart < (teacher - gather(z, said)).abs().mean()
    assert (grads[0] - grads[1]).abs().max() > 1e-3


def test_groups_and_clipping() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    found = group_advantages(rewards)
    assert found[0].tolist() == pytest.approx([0.866, -0.866, -0.866, 0.866], abs=1e-3)
    assert (found[1] == 0).all()
    assert group_advantages(rewards, by_deviation=False)[0].tolist() == [0.5, -0.5, -0.5, 0.5]
    assert group_advantages(torch.tensor([[0.7]])).item() == pytest.approx(0.7)  # mean 0, deviation 1
    old = torch.log(torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    new = torch.log(torch.tensor([[0.9, 0.3, 0.9, 0.3]])).requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    loss = clipped_surrogate(new, old, advantages)
    assert loss[0].tolist() == pytest.approx([-1.2, -0.6, 1.8, 0.8])
    loss.sum().backward()
    assert [grad == 0 for grad in new.grad[0].tolist()] == [True, False, False, True]
    uneven = clipped_surrogate(new.detach(), old, advantages, low=0.1, high=0.3)
    assert uneven[0].tolist() == pytest.approx([-1.3, -0.6, 1.8, 0.9])


def test_a_group_of_equal_rewards_teaches_nothing_but_by_its_teacher() -> None:
    z, said, teacher = logits(4, 3), torch.zeros(4, 3, dtype=torch.long), torch.ones(4, 3, dtype=torch.long)
    advantages = group_advantages(torch.ones(1, 4)).reshape(4, 1)
    own = gather(z, said)
    mask = torch.ones(4, 3)
    masked_mean(clipped_surrogate(own, own.detach(), advantages), mask, 12).backward()
    assert (z.grad == 0).all()
    masked_mean(guidance(gather(z, teacher)), mask, 12).backward()
    assert (z.grad != 0).any()


def test_a_batch_cut_in_parts_is_the_same_batch() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]])
    ids = torch.randint(V, (3, 4), generator=torch.Generator().manual_seed(2))
    whole, parts = logits(3, 4), logits(3, 4)
    masked_mean(guidance(gather(whole, ids)), mask, 7).backward()
    for row in range(3):
        masked_mean(guidance(gather(parts[row : row + 1], ids[row : row + 1])), mask[row : row + 1], 7).backward()
    torch.testing.assert_close(whole.grad, parts.grad)
    with torch.no_grad():  # what is masked may be anything
        values = torch.where(mask.bool(), 1.0, float("nan"))
    assert masked_mean(values, mask, 7).item() == 1.0


def test_luffy_learns_more_from_what_the_student_hardly_says() -> None:
    z = torch.tensor([[-4.0, 0.0]], requires_grad=True)
    rare = shaped_off_policy(gather(z, torch.tensor([0])), torch.ones(1))
    rare.sum().backward()
    p = z.detach().softmax(-1)[0, 0]
    # d/dp p / (p + g) = g / (p + g) ** 2, and dp/dz = p (1 - p)
    assert z.grad[0, 0].item() == pytest.approx(float(-0.1 / (p + 0.1) ** 2 * p * (1 - p)), rel=1e-4)


def test_the_weight_falls_by_the_batch_and_is_exactly_nothing_in_the_end() -> None:
    weight = Weight()
    assert [weight.at(k) for k in (1, 2, 200)] == pytest.approx([0.002, 0.00199, 1e-5])
    assert weight.at(201) == weight.at(300) == 0
    assert Weight(least=2e-4, fall=9e-6).at(300) == 2e-4
    assert Weight(shape="constant").at(900) == 0.002
    cosine = Weight(shape="cosine", batches=10)
    assert cosine.at(1) == 0.002
    assert cosine.at(6) == pytest.approx(0.001)
    assert cosine.at(11) == pytest.approx(0.0)
    for wrong in ({"start": -1.0}, {"start": 0.001, "least": 0.01}, {"fall": -1.0}, {"shape": "square"}):
        with pytest.raises(LaconicError):
            Weight(**wrong)  # type: ignore[arg-type]


def test_a_far_student_comes_over_by_guidance_and_hardly_by_reverse_kl() -> None:
    """Two tokens, the teacher 0.99 on the one the student gives epsilon; steps of 0.5 until it is the likelier."""

    def updates(epsilon: float, loss: str) -> int:
        z = torch.tensor([math.log(epsilon), math.log1p(-epsilon)], dtype=torch.float64)
        teacher = torch.tensor([0.99, 0.01], dtype=torch.float64).log()
        for count in range(1, 20_000):
            z.requires_grad_()
            term = guidance(z.log_softmax(-1)[0]) if loss == "guidance" else divergence(z[None], teacher[None], 1.0)[0]
            (grad,) = torch.autograd.grad(term, z)
            z = (z - 0.5 * grad).detach()
            if z.softmax(-1)[0] > 0.5:
                return count
        raise AssertionError("it never came over")

    assert [updates(10.0**-k, "guidance") for k in range(1, 6)] == [3, 6, 8, 10, 13]
    assert updates(1e-3, "reverse") == pytest.approx(101, abs=2)
    assert updates(1e-4, "reverse") > 50 * updates(1e-4, "guidance")


@pytest.mark.parametrize("together", [1, 3, 100])
def test_chosen_log_probs_are_those_of_all_logits_for_any_piece(together: int) -> None:
    torch.manual_seed(0)
    head, hidden = nn.Linear(6, V), torch.randn(8, 6, requires_grad=True)
    ids = torch.randint(V, (8, 2))
    found, entropy = chosen_log_probs(head, hidden, ids, temperature=0.7, together=together)
    full = (head(hidden) / 0.7).log_softmax(-1)
    torch.testing.assert_close(found, full.gather(-1, ids))
    torch.testing.assert_close(entropy, -(full.exp() * full).sum(-1))
    (found.sum() + entropy.sum()).backward()
    grad, weight = hidden.grad.clone(), head.weight.grad.clone()
    hidden.grad = head.weight.grad = None
    (full.gather(-1, ids).sum() - (full.exp() * full).sum()).backward()
    torch.testing.assert_close(grad, hidden.grad)
    torch.testing.assert_close(weight, head.weight.grad)
    for part in (0, 1):  # either alone
        (one,) = torch.autograd.grad(chosen_log_probs(head, hidden, ids, temperature=0.7)[part].sum(), hidden)
        full = (head(hidden) / 0.7).log_softmax(-1)
        wanted = full.gather(-1, ids) if part == 0 else -(full.exp() * full).sum(-1)
        torch.testing.assert_close(one, torch.autograd.grad(wanted.sum(), hidden)[0])
    nothing, none = chosen_log_probs(head, hidden[:0], ids[:0])
    assert nothing.shape == (0, 2)
    assert none.shape == (0,)


@pytest.mark.parametrize("together", [2, 100])
def test_the_divergence_of_states_is_that_of_their_logits_at_the_students_temperature(together: int) -> None:
    torch.manual_seed(0)
    own, theirs = torch.nn.Linear(4, 7), torch.nn.Linear(5, 7)
    states, targets = torch.randn(3, 4, requires_grad=True), torch.randn(3, 5)
    found = divergence_of_states((own, states), (theirs, targets), 0.3, temperature=0.7, together=together)
    wanted = divergence(own(states) / 0.7, theirs(targets), 0.3)
    torch.testing.assert_close(found, wanted)
    one, other = (torch.autograd.grad(value.sum(), states)[0] for value in (found, wanted))
    torch.testing.assert_close(one, other)
    assert theirs.weight.grad is None
