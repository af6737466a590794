"""RAM invariant 9: the contrastive loss."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.losses.contrastive import contrastive_loss

TAU = 0.05


def test_one_positive_is_cross_entropy() -> None:
    scores = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 3, 8, 2])
    positive = torch.nn.functional.one_hot(target, 9).bool()
    expected = torch.nn.functional.cross_entropy(scores / TAU, target)
    assert torch.allclose(contrastive_loss(scores, positive, temperature=TAU), expected)


def test_no_positive_gives_zero_and_a_gradient() -> None:
    scores = torch.randn(2, 5, requires_grad=True)
    loss = contrastive_loss(scores, torch.zeros(2, 5, dtype=torch.bool), temperature=TAU)
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.abs().max() == 0.0


def test_all_positive_gives_zero() -> None:
    loss = contrastive_loss(torch.randn(3, 6), torch.ones(3, 6, dtype=torch.bool), temperature=TAU)
    assert abs(loss.item()) < 1e-6


def test_rows_without_positive_do_not_dilute_the_mean() -> None:
    scores = torch.randn(2, 5)
    positive = torch.zeros(2, 5, dtype=torch.bool)
    positive[0, 1] = True
    both = contrastive_loss(scores, positive, temperature=TAU)
    assert torch.allclose(both, contrastive_loss(scores[:1], positive[:1], temperature=TAU))


def test_segments_that_do_not_exist_have_no_say() -> None:
    scores = torch.tensor([[0.5, 0.1, 0.9]])
    positive = torch.tensor([[True, False, True]])
    valid = torch.tensor([[True, True, False]])
    expected = contrastive_loss(scores[:, :2], positive[:, :2], temperature=TAU)
    assert torch.allclose(contrastive_loss(scores, positive, valid, temperature=TAU), expected)


@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=2, max_size=8), st.integers(0, 7))
def test_finite_at_the_ends_of_the_cosine(values: list[float], place: int) -> None:
    scores = torch.tensor([values], requires_grad=True)
    positive = torch.zeros(1, len(values), dtype=torch.bool)
    positive[0, place % len(values)] = True
    loss = contrastive_loss(scores, positive, temperature=0.01)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


@given(st.integers(2, 8), st.data())
def test_raising_a_negative_raises_the_loss(size: int, data: st.DataObject) -> None:
    scores = torch.tensor([data.draw(st.lists(st.floats(-1, 1, width=32), min_size=size, max_size=size))])
    positive = torch.zeros(1, size, dtype=torch.bool)
    positive[0, 0] = True
    raised = scores.clone()
    raised[0, 1] += 0.1
    before = contrastive_loss(scores, positive, temperature=TAU)
    # far below the best score the change drowns in float32, hence not strictly
    assert contrastive_loss(raised, positive, temperature=TAU) >= before
    scores[0, 1] = scores.max()
    raised[0, 1] = scores[0, 1] + 0.1
    assert contrastive_loss(raised, positive, temperature=TAU) > contrastive_loss(scores, positive, temperature=TAU)
