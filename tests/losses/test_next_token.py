"""The loss of the next token is cross-entropy, whatever pieces it is made in."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from laconic.losses import next_token
from laconic.losses.next_token import summed_next_token_loss


def case(tokens: int = 45, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=False).to(dtype)
    outputs = torch.randn(tokens, 8, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 50, (tokens,))
    labels[::3] = head(outputs).argmax(-1)[::3]
    return head, outputs, labels


@pytest.mark.parametrize("chunk", [2048, 20])  # in one piece; in three, each of several that a cache holds
def test_it_is_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_token, "CHUNK", chunk)
    head, outputs, labels = case()
    expected = functional.cross_entropy(head(outputs), labels, reduction="sum")
    wanted = torch.autograd.grad(3 * expected, [outputs, head.weight])
    loss, hits = summed_next_token_loss(head, outputs, labels)
    found = torch.autograd.grad(3 * loss, [outputs, head.weight])
    assert torch.allclose(loss, expected, rtol=1e-5)
    for own, its in zip(found, wanted, strict=True):
        assert torch.allclose(own, its, atol=1e-5)
    assert torch.equal(hits, head(outputs).argmax(-1) == labels)
    assert len(hits) / 3 <= hits.sum() < len(hits)


def test_scores_in_bfloat16_are_summed_in_float32() -> None:
    head, outputs, labels = case(4000, torch.bfloat16)
    loss, _ = summed_next_token_loss(head, outputs, labels)
    scores = head(outputs).detach().float().requires_grad_()
    expected = functional.cross_entropy(scores, labels, reduction="sum")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (by_score,) = torch.autograd.grad(expected, scores)
    (found,) = torch.autograd.grad(loss, outputs)
    assert torch.allclose(found.float(), by_score @ head.weight.float(), atol=2e-2)


def test_a_score_too_large_for_an_exponential_is_no_trouble() -> None:
    head = nn.Identity()
    outputs = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    before = outputs.detach().clone()
    loss, hits = summed_next_token_loss(head, outputs, torch.tensor([1]))
    loss.backward()
    assert loss.item() == 1e4
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[1.0, -1.0, 0.0]]
    assert hits.tolist() == [False]
    assert torch.equal(outputs.detach(), before)  # which were the scores themselves
