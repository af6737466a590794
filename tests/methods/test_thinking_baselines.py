"""What reasoning methods are compared to: anchors, a window, scored eviction."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from thinkers import PROBLEMS, backbone_of, thinker
from transformers import Cache, DynamicCache

from laconic.core.cache import EvictingLayer
from laconic.core.layout import Kind
from laconic.core.thoughts import Trace, lay_out
from laconic.core.visibility import visible
from laconic.errors import BackboneError, BudgetError, LaconicError
from laconic.methods.baselines.heavy_hitters import HeavyHitters
from laconic.methods.baselines.window_thinker import WindowThinker


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vanilla") / "vanilla"
    thinker("vanilla").save_pretrained(folder)
    return folder


def test_scored_eviction_says_where_it_cannot_look(tmp_path: Path) -> None:
    thinker("vanilla", "gpt2").save_pretrained(tmp_path / "vanilla")
    model = HeavyHitters.from_pretrained(tmp_path / "vanilla", backbone_of("gpt2"))
    with pytest.raises(BackboneError, match="GPT2Block"):
        model.solve(PROBLEMS[:1])


def test_scored_eviction_keeps_the_rules_of_decoding(saved: Path) -> None:
    model = HeavyHitters.from_pretrained(saved, backbone_of("llama"))
    model.tokens = 12
    bill = model.solve(PROBLEMS[:1], max_new_tokens=8, seed=3, temperature=0.0)[0].bill
    assert bill.forwards == len(bill.words) - 1 == 7
    with pytest.raises(BudgetError, match="none"):
        model.solve(PROBLEMS[:1], max_new_tokens=0)
    with pytest.raises(BudgetError, match="window"):
        model.solve(["why " * 600])
    with pytest.raises(LaconicError, match="top_k"):
        model.solve(PROBLEMS[:1], top_k=3)
    with pytest.raises(LaconicError, match="behind generate"):
        model.generating()
    assert model.solve([]) == []
    near = model.solve(["why " * 125], max_new_tokens=99)[0]
    assert near.bill.stopped_by == "window"
    assert near.prompt_tokens + len(near.bill.words) == model.backbone.window + 1  # the last is not fed
    decoder = model.decoder.config
    of_a_token = 2 * 4 * decoder.num_hidden_layers * decoder.num_key_value_heads * decoder.head_dim
    assert near.bill.peak_bytes == near.bill.peak_tokens * of_a_token
    assert not any(layer.self_attn._forward_hooks for layer in model.decoder.model.layers)


@pytest.mark.parametrize("arch", ["mistral", "gemma3"])
def test_scored_eviction_is_refused_where_layers_have_windows(arch: str, tmp_path: Path) -> None:
    thinker("vanilla", arch).save_pretrained(tmp_path / "vanilla")
    model = HeavyHitters.from_pretrained(tmp_path / "vanilla", backbone_of(arch))
    with pytest.raises(BackboneError, match="attend to all"):
        model.solve(PROBLEMS)


def test_padding_goes_before_anything_that_is_real(saved: Path) -> None:
    model = HeavyHitters.from_pretrained(saved, backbone_of("llama"))
    model.tokens = 3
    cache = Cache(layer_class_to_replicate=EvictingLayer)
    keys = torch.arange(10.0).view(2, 1, 5, 1)
    cache.update(keys, keys, 0)
    attended = [torch.tensor([[9.0, 9.0, 0.0, 0.0, 0.0], [0.0, 2.0, 1.0, 3.0, 0.0]])]
    [scores] = model._evict(cache, [], attended, torch.tensor([3, 5]))
    assert cache.layers[0].keys.flatten().tolist() == [2, 3, 4, 6, 8, 9]
    assert scores.tolist() == [[0, 0, 0], [2, 3, 0]]
    model.tokens = 10  # what is padding in every row goes, whatever may be held
    cache = Cache(layer_class_to_replicate=EvictingLayer)
    cache.update(keys, keys, 0)
    model._evict(cache, [], [torch.ones(2, 5)], torch.tensor([2, 3]))
    assert cache.layers[0].keys.flatten().tolist() == [2, 3, 4, 7, 8, 9]


def test_padding_reads_itself_and_what_is_real_no_padding(saved: Path) -> None:
    """A row of a mask that hides everything turns into what is no number in float16."""
    model = HeavyHitters.from_pretrained(saved, backbone_of("llama"))
    seen = model._mask(torch.tensor([2, 4]), 0, 4)[:, 0] == 0
    assert seen[0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert seen[1].int().tolist() == torch.ones(4, 4).tril().int().tolist()
    assert (model._mask(torch.tensor([2, 4]), 4, 1)[:, 0, 0] == 0).int().tolist() == [[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]]


def test_seconds_of_scored_eviction_are_those_of_all_problems(saved: Path) -> None:
    """As of problems solved side by side: an evaluation divides them among these."""
    model = HeavyHitters.from_pretrained(saved, backbone_of("llama"))
    before = time.perf_counter()
    seconds = [sum(one.seconds.values()) for one in model.solve(PROBLEMS, max_new_tokens=8)]
    took = time.perf_counter() - before
    assert seconds[0] == seconds[1] == seconds[2]
    assert took / 2 < seconds[0] <= took


def test_of_a_step_only_its_end_stays_and_that_has_read_its_step_alone() -> None:
    model = thinker("anchors")
    end = model.step_end
    layout, _ = lay_out(Trace([5, 6], [[10, 11, end], [12, end], [13, 14]], None), model.shape)
    seen = visible(model.rule(0), layout.map(lambda field: field[None]))[0].int().tolist()
    assert layout.kind.tolist() == [1, 1, 2, 2, Kind.ANCHOR, 2, Kind.ANCHOR, 2, 2]
    assert seen == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0, 1, 1, 0],
        [1, 1, 0, 0, 1, 0, 1, 1, 1],
    ]


@torch.no_grad()
def test_a_window_reads_the_first_and_the_last_tokens(saved: Path) -> None:
    """Against passes over everything, in which all else is masked; and it never holds more."""
    model = WindowThinker.from_pretrained(saved, backbone_of("llama"))
    model.tokens = 12
    found = model.solve(PROBLEMS[:1], max_new_tokens=25)[0]
    said = model.prompt_ids(PROBLEMS[0])
    words: list[int] = []
    for word in found.bill.words:
        ids = torch.tensor([said + words])
        place = torch.arange(ids.shape[1])
        reads = (place[None] <= place[:, None]) & ((place[None] < 4) | (place[None] > place[:, None] - 8))
        mask = torch.zeros(reads.shape).masked_fill(~reads, torch.finfo(torch.float32).min)[None, None]
        in_step = len(words) - 1 - max((n for n, w in enumerate(words) if w == model.step_end), default=-1)
        if in_step < model.longest_step - 1:
            assert word == int(model.decoder(ids, attention_mask=mask).logits[0, -1].argmax())
        words.append(word)
    assert found.bill.live[-1] <= 12 + 1
    assert found.bill.peak_tokens <= max(len(said), 12 + 1)


@pytest.mark.parametrize("tokens", [6, 12, 40])
def test_scored_eviction_is_the_same_in_company(saved: Path, tokens: int) -> None:
    """Prompts of other lengths beside it, some below and some above what may be held, and rows that end earlier."""
    model = HeavyHitters.from_pretrained(saved, backbone_of("llama"))
    model.tokens = tokens
    problems = [*PROBLEMS, "Is it?", "why " * 125]
    together = model.solve(problems, max_new_tokens=30)
    stopped = set()
    for problem, found in zip(problems, together, strict=True):
        alone = model.solve([problem], max_new_tokens=30)[0].bill
        assert (found.bill.words, found.bill.live, found.bill.stopped_by) == (alone.words, alone.live, alone.stopped_by)
        assert (found.bill.peak_bytes, found.bill.forwards) == (alone.peak_bytes, alone.forwards)
        assert alone.peak_tokens == max([len(model.prompt_ids(problem)), *alone.live[: alone.forwards]])
        stopped.add(alone.stopped_by)
    assert len(stopped) > 1


@torch.no_grad()
def test_scored_eviction_keeps_the_most_attended_and_the_most_recent(saved: Path) -> None:
    """Against a cache that is cut by hand, layer by layer; and without a limit it is the plain decoder."""
    wide = HeavyHitters.from_pretrained(saved, backbone_of("llama"))
    wide.tokens = 10_000
    vanilla = thinker("vanilla", max_step_tokens=400)
    unlimited = wide.solve(PROBLEMS[:1], max_new_tokens=20)[0]
    assert unlimited.bill.words == vanilla.solve(PROBLEMS[:1], max_new_tokens=20)[0].bill.words
    model = HeavyHitters.from_pretrained(saved, backbone_of("llama"))
    model.tokens = 8
    found = model.solve(PROBLEMS[:1], max_new_tokens=20)[0]
    prompt = model.prompt_ids(PROBLEMS[0])
    cache, totals = DynamicCache(), list[torch.Tensor]()
    fed, position, words = prompt, 0, list[int]()
    while len(words) < 20:
        where = torch.arange(position, position + len(fed))[None]
        out = model.decoder(
            torch.tensor([fed]), position_ids=where, past_key_values=cache, use_cache=True, output_attentions=True,
            attention_mask=None if len(fed) > 1 else torch.zeros(1, 1, 1, cache.layers[0].get_seq_length() + 1),
        )  # fmt: skip
        position += len(fed)
        fresh = []
        for layer, weights, before in zip(
            cache.layers, out.attentions, totals or [torch.zeros(0)] * len(cache.layers), strict=True
        ):
            total = weights[0].sum((0, 1))
            total[: len(before)] += before
            while len(total) > 8:
                worst = int(total[:-4].argmin())  # the last four are safe
                rest = [n for n in range(len(total)) if n != worst]
                layer.keys, layer.values = layer.keys[:, :, rest], layer.values[:, :, rest]
                total = total[rest]
            fresh.append(total)
        totals = fresh
        words.append(int(out.logits[0, -1].argmax()))
        fed = words[-1:]
        if words[-1] == 2:
            words.pop()
            break
    assert found.bill.words == words
    assert found.bill.live[-1] == 9
    with pytest.raises(LaconicError, match="temperature"):
        model.solve(PROBLEMS[:1], temperature=0.5)
