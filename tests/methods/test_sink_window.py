"""The sink-and-window baseline: what it keeps, and that it reads as one token at a time would."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from comets import ROTARY
from tiny import ARCHITECTURES, tiny_backbone

from laconic.core.layers import LayerStack
from laconic.core.layout import Kind, run
from laconic.core.visibility import Tokens, additive, attention_mask, causal, visible
from laconic.errors import BudgetError, DocumentError
from laconic.generation.greedy import greedy_decode
from laconic.methods.baselines import sink_window
from laconic.methods.baselines.sink_window import SinkWindow, sinks_and_recent
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.model import RAM
from laconic.methods.registry import load_methods
from laconic.methods.roles import Compressor

DOCUMENT = " ".join(f"The number of ships on day {day} was {day * 7 % 23}." for day in range(12))
LONG = DOCUMENT * 3


def test_it_is_a_compressor() -> None:
    assert isinstance(SinkWindow(tiny_backbone()), Compressor)


@pytest.mark.parametrize("budget", [5, 20, 64])
def test_it_keeps_the_first_and_the_last_tokens(budget: int) -> None:
    backbone = tiny_backbone()
    got = SinkWindow(backbone).compress(DOCUMENT, budget=budget)
    length = backbone.count_tokens(DOCUMENT)
    assert got.cache is not None
    assert got.cache.layout.position[0].tolist() == [0, 1, 2, 3, *range(length - budget + 4, length)]
    assert (got.document_tokens, got.context_tokens, got.next_position) == (length, budget, length)
    assert got.requested_ratio == got.delivered_ratio
    for span in got.evidence:
        assert DOCUMENT[span.start : span.end] == span.text
    kept = backbone.token_ids(DOCUMENT)
    assert "".join(span.text for span in got.evidence) == backbone.tokenizer.decode(kept[:4] + kept[4 - budget :])


def test_a_ratio_is_a_share_of_the_document() -> None:
    got = SinkWindow(tiny_backbone()).compress(DOCUMENT, ratio=0.25)
    assert got.context_tokens == got.document_tokens // 4


@pytest.mark.parametrize("budget", [9, 40])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_reading_in_pieces_equals_the_window_rule_over_the_whole(
    arch: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = tiny_backbone(arch)
    ids = torch.tensor([backbone.token_ids(DOCUMENT)])
    length = ids.shape[1]
    layout = run(Kind.TEXT, torch.arange(length)).map(lambda field: field[None])
    rule = sinks_and_recent(4, budget - 4)
    with torch.no_grad():
        expected = backbone.model(ids, attention_mask=attention_mask(backbone.model, rule, layout)).logits[:, -1]
        for piece in (1, 7, 50, 1000):
            monkeypatch.setattr(sink_window, "READ_TOKENS", piece)
            cache = SinkWindow(backbone).compress(DOCUMENT, budget=budget).cache
            assert cache is not None
            # read the last token again, in its place
            again = copy.deepcopy(cache)
            again.crop(-1)
            keys = again.announce(layout.map(lambda field: field[:, -1:]))
            got = backbone.model(
                ids[:, -1:],
                attention_mask=attention_mask(backbone.model, rule, keys, 1),
                position_ids=torch.tensor([[length - 1]]),
                past_key_values=again,
            ).logits[:, -1]
            assert torch.allclose(got, expected, atol=1e-4)


def test_the_rule_in_plain_words() -> None:
    layout = run(Kind.TEXT, torch.arange(9)).map(lambda field: field[None])
    seen = visible(sinks_and_recent(2, 3), layout)
    assert seen[0, 8].tolist() == [True, True, False, False, False, False, True, True, True]
    assert additive(seen, torch.float32).shape == (1, 1, 9, 9)


def test_a_document_within_the_budget_is_kept_whole() -> None:
    backbone = tiny_backbone()
    for budget in (3, 4, 5):
        got = SinkWindow(backbone).compress("Day", budget=budget)
        assert got.context_tokens == got.document_tokens
        assert [span.text for span in got.evidence] == ["Day"]


def test_impossible_wishes_are_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    method = SinkWindow(tiny_backbone())
    with pytest.raises(DocumentError):
        method.compress("  ", budget=8)
    with pytest.raises(BudgetError, match="at least 5 tokens"):
        method.compress(DOCUMENT, budget=4)
    backbone = tiny_backbone()
    with pytest.raises(BudgetError, match="no room"):
        method.compress(LONG, budget=backbone.window - 300)
    monkeypatch.setattr(sink_window, "READ_TOKENS", 30)
    with pytest.raises(BudgetError, match="cannot be moved"):
        SinkWindow(tiny_backbone("gpt2")).compress(LONG, budget=40)
    monkeypatch.setattr(sink_window, "ROOM", 400)
    learned = SinkWindow(tiny_backbone("gpt2")).compress(DOCUMENT, budget=40)
    assert learned.next_position == learned.document_tokens, "within the window nothing has to move"


@pytest.mark.parametrize("arch", ROTARY)
def test_beyond_the_window_the_cache_closes_up(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions inside the cache, as StreamingLLM counts them; the first layer's keys depend on nothing else."""
    monkeypatch.setattr(sink_window, "READ_TOKENS", 30)
    monkeypatch.setattr(sink_window, "ROOM", 10)
    backbone = tiny_backbone(arch)
    got = SinkWindow(backbone).compress(LONG, budget=40)
    assert got.cache is not None
    assert got.document_tokens > backbone.window
    assert got.next_position == got.context_tokens == 40
    assert got.cache.layout.position[0].tolist() == list(range(40))
    ids = backbone.token_ids(LONG)
    stack = LayerStack(backbone.model)
    position = torch.arange(40)[None]
    embedded = backbone.model.get_input_embeddings()(torch.tensor([ids[:4] + ids[-36:]]))
    keys, values = stack.keys_and_values(0, embedded, stack.rotary(embedded, position))
    torch.testing.assert_close(got.cache.layers[0].keys, keys, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.cache.layers[0].values, values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ROTARY)
def test_without_sinks_closing_up_changes_nothing(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotations see distances alone, so the next token is the same either way."""
    monkeypatch.setattr(sink_window, "READ_TOKENS", 30)
    backbone = tiny_backbone(arch)
    logits = []
    for closes in (False, True):
        monkeypatch.setattr(SinkWindow, "_closes_up", lambda self, length, allowed, closes=closes: closes)
        monkeypatch.setattr(sink_window, "ROOM", 0)
        got = SinkWindow(backbone, sink_tokens=0).compress(DOCUMENT, budget=40)
        assert got.cache is not None
        place = torch.tensor([[got.next_position]])
        keys = got.cache.announce(run(Kind.TEXT, place[0]).map(lambda field: field[None]))
        mask = attention_mask(backbone.model, causal, keys, 1)
        with torch.no_grad():
            out = backbone.model(
                torch.tensor([[7]]), attention_mask=mask, position_ids=place, past_key_values=got.cache
            )
        logits.append(out.logits[0, -1])
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_answers_behind_evicted_keys_equal_the_rule_over_the_whole(arch: str) -> None:
    """Through the reader's own decoding: what a sliding layer sees is counted in positions, not in cache places."""
    backbone = tiny_backbone(arch)
    budget = 40
    context = SinkWindow(backbone).compress(DOCUMENT, budget=budget)
    length, kept = context.document_tokens, budget - 4
    prompt = torch.tensor(backbone.token_ids("\n\nQuestion: How many?\nAnswer:"))
    got = greedy_decode(
        backbone.model, [backbone.embed(prompt)], max_new_tokens=6, stop_ids=frozenset(), cache=context.cache,
        next_position=length,
    )[0].ids  # fmt: skip
    reading = sinks_and_recent(4, kept)

    def rule(q: Tokens, k: Tokens) -> torch.Tensor:
        held = (k.position < 4) | (k.position >= length - kept)
        return (reading(q, k) & (q.position < length)) | (held & (q.position >= length))

    ids = torch.cat([torch.tensor(backbone.token_ids(DOCUMENT)), prompt])
    with torch.no_grad():
        for token in got:
            layout = run(Kind.TEXT, torch.arange(len(ids))).map(lambda field: field[None])
            mask = attention_mask(backbone.model, rule, layout)
            assert backbone.model(ids[None], attention_mask=mask).logits[0, -1].argmax().item() == token
            ids = torch.cat([ids, torch.tensor([token])])


def test_it_reads_with_the_decoder_that_answers(tmp_path: Path) -> None:
    """The keys of one decoder mean nothing to another: at ratio 1 the window is the full prompt."""
    backbone = tiny_backbone()
    ram = RAM(backbone, RAMConfig(encoder_layers=1, encoder_rank=2, decoder_rank=2))
    with torch.no_grad():
        for name, parameter in ram.decoder.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    ram.save_pretrained(tmp_path / "ram")
    loaded = load_methods(["window", "full"], backbone, tmp_path / "ram")
    caches = [m.reader.read(m.compressor.compress(DOCUMENT, ratio=1.0)).cache for m in loaded.values()]
    for one, other in zip(caches[0].layers, caches[1].layers, strict=True):
        assert torch.allclose(one.keys, other.keys, atol=1e-4)
        assert torch.allclose(one.values, other.values, atol=1e-4)
