"""Memory tokens: their own parameters, started from given embeddings."""

from __future__ import annotations

import pytest
import torch
from tiny import ARCHITECTURES, tiny_backbone

from laconic.core.memory_tokens import MemoryTokens


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rows_are_taken_in_turn() -> None:
    rows = torch.randn(2, 5)
    tokens = MemoryTokens(rows, 5, noise=0.0)
    assert len(tokens) == 5
    assert torch.equal(tokens.weight, rows[torch.tensor([0, 1, 0, 1, 0])])


def test_noise_is_relative_to_the_rows_and_seeded() -> None:
    rows = 50 * torch.randn(1, 4096, generator=seeded())
    first, second = (MemoryTokens(rows, 3, noise=0.1, generator=seeded(1)) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    off = (first.weight - rows).std() / rows.std()
    assert 0.09 < off < 0.11
    assert not torch.equal(first.weight[0], first.weight[1])


def test_any_shape_of_numbers_gives_rows_in_the_dtype_asked_for() -> None:
    tokens = MemoryTokens(torch.randn(1, 6), 4)
    picked = tokens(torch.tensor([[0, 3], [2, 2]]), torch.bfloat16)
    assert picked.shape == (2, 2, 6)
    assert picked.dtype == torch.bfloat16
    assert torch.equal(tokens(torch.tensor([1])), tokens.weight[1:2])


def test_small_updates_survive_a_bfloat16_backbone() -> None:
    tokens = MemoryTokens(torch.ones(1, 4, dtype=torch.bfloat16), 1, noise=0.0)
    with torch.no_grad():
        tokens.weight += 1e-4
    assert torch.allclose(tokens.weight, torch.full((1, 4), 1.0001))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_token_started_from_a_word_reads_like_that_word(arch: str) -> None:
    backbone = tiny_backbone(arch)
    ids = torch.tensor([[5, 9, 11]])
    tokens = MemoryTokens(backbone.embed(ids[0]), 3, noise=0.0)
    with torch.no_grad():
        by_row = backbone.model(inputs_embeds=tokens(torch.arange(3))[None]).logits
        by_word = backbone.model(input_ids=ids).logits
    assert torch.allclose(by_row, by_word, atol=1e-5)


def test_gradients_reach_only_the_memory_tokens() -> None:
    backbone = tiny_backbone()
    backbone.model.requires_grad_(False)
    vocabulary = backbone.embed.weight.clone()
    tokens = MemoryTokens(backbone.embed(torch.tensor([3])), 2)
    backbone.model(inputs_embeds=tokens(torch.arange(2))[None]).logits.sum().backward()
    assert tokens.weight.grad is not None
    assert tokens.weight.grad.abs().max() > 0
    assert [name for name, _ in tokens.named_parameters()] == ["weight"]
    assert torch.equal(backbone.embed.weight, vocabulary)
