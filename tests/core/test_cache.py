"""The evicting cache: bookkeeping against lists, upstream's traps, and training = decoding on every architecture."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rules import finished_text_hidden
from tiny import ARCHITECTURES, tiny_model
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from laconic.core.cache import EvictingCache
from laconic.core.layout import Kind, Layout, batch, concatenate, run
from laconic.core.positions import Scheme, memory_positions, sequential
from laconic.core.visibility import Rule, attention_mask, causal, readable_by
from laconic.errors import BackboneError

# --- the house's key test -------------------------------------------------------------------------------------------

#: Rows of a batch: prompt length and the text length of each thought step.
EXAMPLES = [(5, [3, 6, 1, 4, 2, 5, 3]), (9, [7, 2, 3, 3, 1, 4]), (2, [1, 1, 8, 2, 6, 3, 2, 4])]
MEMORY = 2
RETAINED = torch.tensor([[False, True, False, True, True, False, False, True, False, False]] * 2 + [[True] * 10])


def blocks_of(prompt: int, steps: list[int], scheme: Scheme) -> list[Layout]:
    """A row as the decoder meets it: the prompt, then word by word; a step's last word brings its memory along."""
    blocks = [run(Kind.PROMPT, sequential(0, prompt))]
    start = prompt
    for step, length in enumerate(steps, start=1):
        memory, after = memory_positions(scheme, start, length, MEMORY)
        words = [run(Kind.TEXT, sequential(position, 1), step=step) for position in range(start, start + length)]
        injected = [run(Kind.MEMORY, memory, step=step), run(Kind.CONTINUE, sequential(after, 1), step=step)]
        blocks += [*words[:-1], concatenate([words[-1], *injected])]
        start = after + 1
    return [*blocks, run(Kind.TEXT, sequential(start, 1), step=len(steps) + 1)]


def random_ids(rows: int, length: int) -> Tensor:
    return torch.randint(3, 128, (rows, length), generator=torch.Generator().manual_seed(1))


def teacher_forced(model: PreTrainedModel, rule: Rule, rows: list[Layout], side: str) -> list[Tensor]:
    """Logits ``[T, V]`` of each row, all at once under the training mask."""
    layout = batch(rows, side)  # type: ignore[arg-type]
    ids = torch.full(layout.kind.shape, 3)
    ids[layout.real] = torch.cat([random_ids(1, 200)[0, : len(row)] + row_ for row_, row in enumerate(rows)]) % 128
    mask = attention_mask(model, rule, layout)
    logits = model(ids, attention_mask=mask, position_ids=layout.position).logits
    return [logits[row][layout.real[row]] for row in range(len(rows))]


def decoded(
    model: PreTrainedModel, rule: Rule, rows: list[list[Layout]]
) -> tuple[list[Tensor], list[int], EvictingCache]:
    """The same logits block by block, evicting what nobody can read again; also how often each row evicted."""
    cache = EvictingCache(model)
    logits: list[list[Tensor]] = [[] for _ in rows]
    evictions, fed, step = [0] * len(rows), [0] * len(rows), [0] * len(rows)
    nothing = run(Kind.TEXT, sequential(0, 0))
    for turn in range(max(len(blocks) for blocks in rows)):
        now = [blocks[turn] if turn < len(blocks) else nothing for blocks in rows]
        block = batch(now, "left")
        ids = torch.full(block.kind.shape, 3)
        for row, part in enumerate(now):
            if len(part):
                chosen = random_ids(1, 200)[0, fed[row] : fed[row] + len(part)] + row
                ids[row, len(block) - len(part) :] = chosen % 128
                fed[row] += len(part)
                # the step that comes after a restart token, or the one we are in
                step[row] = int(part.step[-1]) + int(part.kind[-1] in (Kind.CONTINUE, Kind.PROMPT))
        keys = cache.announce(block)
        mask = attention_mask(model, rule, keys, len(block))
        out = model(ids, attention_mask=mask, position_ids=block.position, past_key_values=cache, use_cache=True).logits
        for row, part in enumerate(now):
            logits[row].append(out[row, len(block) - len(part) :])
        future = batch(
            [
                concatenate([run(kind, sequential(0, 1), step=s) for kind in (Kind.TEXT, Kind.MEMORY, Kind.CONTINUE)])
                for s in step
            ],
            "left",
        )
        assert cache.layout is not None
        before = cache.layout.real.sum(dim=1)
        cache.keep(readable_by(rule, future, cache.layout))
        after = cache.layout.real.sum(dim=1)
        evictions = [count + int(changed) for count, changed in zip(evictions, after < before, strict=True)]
    return [torch.cat(row) for row in logits], evictions, cache


RULES: dict[str, Rule] = {
    "bottleneck": finished_text_hidden(0),
    "horizon 2": finished_text_hidden(2),
    "retained": finished_text_hidden(2, RETAINED),
}


@pytest.mark.parametrize("scheme", ["sequential", "uniform"])
@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_training_mask_equals_decoding_with_eviction(arch: str, rule: str, scheme: Scheme) -> None:
    """Ragged rows, each evicting when its own steps end; Mistral's and Gemma3's sliding windows are in force."""
    model = tiny_model(arch)
    rows = [blocks_of(prompt, steps, scheme) for prompt, steps in EXAMPLES]
    with torch.no_grad():
        expected = teacher_forced(model, RULES[rule], [concatenate(row) for row in rows], "right")
        got, evictions, cache = decoded(model, RULES[rule], rows)
    assert min(evictions) >= (5 if rule == "bottleneck" else 3)
    assert cache.physical_length < cache.get_seq_length()
    for want, have in zip(expected, got, strict=True):
        assert torch.allclose(have, want, atol=1e-4)


def test_padding_side_and_company_change_no_logits() -> None:
    model = tiny_model("qwen3")
    rule = RULES["horizon 2"]
    rows = [concatenate(blocks_of(prompt, steps, "uniform")) for prompt, steps in EXAMPLES]
    with torch.no_grad():
        right = teacher_forced(model, rule, rows, "right")
        left = teacher_forced(model, rule, rows, "left")
        alone = teacher_forced(model, rule, rows[:1], "left")
    for one, other in zip(right, left, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert torch.allclose(alone[0], right[0], atol=1e-4)


def test_a_finished_bottleneck_leaves_prompt_memory_and_restarts() -> None:
    model = tiny_model()
    with torch.no_grad():
        _, _, cache = decoded(model, RULES["bottleneck"], [blocks_of(*EXAMPLES[0], "sequential")])
    assert cache.layout is not None
    prompt, steps = EXAMPLES[0]
    kinds = [Kind.PROMPT] * prompt + [Kind.MEMORY, Kind.MEMORY, Kind.CONTINUE] * len(steps) + [Kind.TEXT]
    assert cache.layout.kind[0].tolist() == kinds
    assert cache.get_seq_length() == prompt + sum(steps) + 3 * len(steps) + 1


# --- bookkeeping, against lists -------------------------------------------------------------------------------------


def test_rows_that_keep_as_many_but_others_move_from_the_first_that_any_of_them_drops() -> None:
    cache = EvictingCache(tiny_model())
    cache.announce(batch([run(Kind.TEXT, torch.arange(5))] * 2, "left"))
    numbers = torch.arange(10.0).reshape(2, 1, 5, 1)
    cache.update(numbers, -numbers, 0)
    cache.keep(torch.tensor([[1, 1, 0, 0, 1], [1, 0, 1, 0, 1]]) == 1)
    layer = cache.layers[0]
    assert layer.keys[:, 0, :, 0].tolist() == [[0, 1, 4], [5, 7, 9]]
    assert layer.values[:, 0, :, 0].tolist() == [[0, -1, -4], [-5, -7, -9]]
    assert cache.get_seq_length() == 5


@given(st.integers(1, 3), st.data())
def test_rows_hold_exactly_what_they_kept(rows: int, data: st.DataObject) -> None:
    """Fake keys whose value is their own serial number, through any sequence of blocks and evictions."""
    cache = EvictingCache(tiny_model())
    expected: list[list[int]] = [[] for _ in range(rows)]
    serial = columns_fed = 0
    for _ in range(data.draw(st.integers(1, 6))):
        lengths = data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
        if not any(lengths):
            continue
        blocks, block_serials = [], []
        for length in lengths:
            numbers = torch.arange(serial, serial + length)
            serial += length
            blocks.append(run(Kind.TEXT, numbers, step=1))
            block_serials.append(numbers.tolist())
        block = batch(blocks, "left")
        columns_fed += len(block)
        cache.announce(block)
        for layer, width in ((0, 4), (1, 2)):
            keys = block.position[:, None, :, None].float().expand(-1, 2, -1, width)
            cache.update(keys, -keys[..., :1], layer)
        for row in range(rows):
            expected[row] += block_serials[row]
        kept_flags = data.draw(
            st.lists(
                st.lists(st.booleans(), min_size=len(cache.layout), max_size=len(cache.layout)),
                min_size=rows,
                max_size=rows,
            )
        )
        kept = torch.tensor(kept_flags).reshape(rows, len(cache.layout))
        for row in range(rows):
            real = cache.layout.real[row].tolist()
            flags = [flag for flag, is_real in zip(kept_flags[row], real, strict=True) if is_real]
            expected[row] = [number for number, flag in zip(expected[row], flags, strict=True) if flag]
        cache.keep(kept)
        assert cache.get_seq_length() == columns_fed
        assert cache.physical_length == max(len(row) for row in expected)
        for row in range(rows):
            real = cache.layout.real[row]
            # flush right: padding first, then keys in order
            assert real.tolist() == sorted(real.tolist())
            assert cache.layout.position[row][real].tolist() == expected[row]
            for layer in cache.layers:
                assert layer.keys[row, 1, :, 0][real].tolist() == expected[row]
                assert (-layer.values[row, 0, :, 0])[real].tolist() == expected[row]


# --- the traps ------------------------------------------------------------------------------------------------------


def read_and_evict(model: PreTrainedModel, ids: Tensor, kept: list[int]) -> EvictingCache:
    cache = EvictingCache(model)
    model(ids, past_key_values=cache, use_cache=True)
    flags = torch.zeros(1, ids.shape[1], dtype=torch.bool)
    flags[0, kept] = True
    cache.keep(flags)
    return cache


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch not in ("mistral", "gemma3")])
def test_upstreams_own_mask_does_not_leak_after_eviction(arch: str) -> None:
    """Trap 1: a block of several tokens after eviction, masked by upstream, equals the explicit mask.

    Architectures without sliding windows: upstream counts those over places in the cache, ours over positions.
    """
    model = tiny_model(arch)
    ids = random_ids(1, 30)
    with torch.no_grad():
        cache = read_and_evict(model, ids[:, :20], [0, 1, 12, 17, 18, 19])
        block = run(Kind.TEXT, sequential(20, 10)).map(lambda field: field[None])
        ours = copy.deepcopy(cache)
        mask = attention_mask(model, causal, ours.announce(block), len(block))
        explicit = model(ids[:, 20:], attention_mask=mask, position_ids=block.position, past_key_values=ours).logits
        upstream = model(ids[:, 20:], past_key_values=cache).logits
        one_by_one = read_and_evict(model, ids[:, :20], [0, 1, 12, 17, 18, 19])
        stepwise = torch.cat([model(ids[:, t : t + 1], past_key_values=one_by_one).logits for t in range(20, 30)], 1)
    assert torch.allclose(upstream, explicit, atol=1e-5)
    assert torch.allclose(stepwise, explicit, atol=1e-4)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_generate_runs_on_an_evicted_cache(arch: str) -> None:
    model = tiny_model(arch, eos_token_id=None)
    ids = random_ids(1, 20)
    with torch.no_grad():
        cache = read_and_evict(model, ids[:, :19], [0, 1, 2, 15, 16, 17, 18])
        manual, pending, expected = copy.deepcopy(cache), ids[:, 19:], []
        for position in range(19, 29):
            logits = model(pending, position_ids=torch.tensor([[position]]), past_key_values=manual).logits
            pending = logits[:, -1:].argmax(-1)
            expected.append(int(pending))
        generated = model.generate(ids, past_key_values=cache, max_new_tokens=10, do_sample=False)
    assert generated[0, 20:].tolist() == expected
    assert cache.layout is not None
    assert cache.layout.position[0].tolist() == [0, 1, 2, 15, 16, 17, 18, *range(19, 29)]


def test_a_two_dimensional_mask_on_ragged_rows_is_refused() -> None:
    """Trap 2."""
    model = tiny_model()
    cache = EvictingCache(model)
    block = run(Kind.TEXT, sequential(0, 4)).map(lambda field: field.expand(2, -1))
    with torch.no_grad():
        cache.announce(block)
        model(random_ids(2, 4), past_key_values=cache)
        cache.keep(torch.tensor([[True, True, True, False], [True, False, False, True]]))
        with pytest.raises(BackboneError, match="different length"):
            model(random_ids(2, 1), attention_mask=torch.ones(2, 5), past_key_values=cache)


def test_an_unannounced_batch_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(BackboneError, match="announce"):
        model(random_ids(2, 4), past_key_values=EvictingCache(model))


def switch_on_checkpointing(model: PreTrainedModel) -> None:
    # renamed in transformers 5.23; the old name warns there and is the only one in 5.16
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_gradient_checkpointing_is_refused(arch: str) -> None:
    """Trap 3, whether it is on from the start or switched on later."""
    model = tiny_model(arch)
    cache = EvictingCache(model)
    switch_on_checkpointing(model)
    EvictingCache(model)  # in eval mode nothing is lost
    model.train()
    with pytest.raises(BackboneError, match="checkpointing is on"):
        EvictingCache(model)
    block = run(Kind.TEXT, sequential(0, 4)).map(lambda field: field[None])
    mask = attention_mask(model, causal, cache.announce(block))
    model(random_ids(1, 4), attention_mask=mask, position_ids=block.position, past_key_values=cache)
    with pytest.raises(BackboneError, match="never reached"):
        cache.announce(block)


def test_gradients_flow_through_an_evicted_cache() -> None:
    model = tiny_model().requires_grad_(False)
    first = torch.randn(1, 6, 32, requires_grad=True)
    cache = EvictingCache(model)
    model(inputs_embeds=first, past_key_values=cache)
    cache.keep(torch.tensor([[True, False, True, False, False, True]]))
    model(random_ids(1, 3), past_key_values=cache).logits[0, -1, 0].backward()
    assert first.grad is not None
    assert (first.grad[0].abs().sum(-1) > 0).tolist()[0]


# --- the rest of the cache's public surface -------------------------------------------------------------------------


def filled() -> EvictingCache:
    """Rows 0-2-4 and 1-3 (one column of padding)."""
    cache = EvictingCache(tiny_model())
    block = run(Kind.TEXT, sequential(0, 5)).map(lambda field: field.expand(2, -1))
    cache.announce(block)
    keys = block.position[:, None, :, None].float().expand(-1, 2, -1, 4)
    cache.update(keys, keys, 0)
    cache.keep(torch.tensor([[True, False, True, False, True], [False, True, False, True, False]]))
    return cache


def contents(cache: EvictingCache) -> list[list[int]]:
    assert cache.layout is not None
    rows = range(len(cache.layout.kind))
    assert all(
        torch.equal(cache.layers[0].keys[row, 0, :, 0][cache.layout.real[row]].long(), held)
        for row in rows
        if (held := cache.layout.position[row][cache.layout.real[row]]) is not None
    )
    return [cache.layout.position[row][cache.layout.real[row]].tolist() for row in rows]


def test_rows_can_be_chosen_repeated_and_reordered() -> None:
    cache = filled()
    assert contents(cache) == [[0, 2, 4], [1, 3]]
    cache.reorder_cache(torch.tensor([1, 0]))
    assert contents(cache) == [[1, 3], [0, 2, 4]]
    cache.batch_repeat_interleave(2)
    assert contents(cache) == [[1, 3], [1, 3], [0, 2, 4], [0, 2, 4]]
    cache.batch_select_indices(torch.tensor([0, 3]))
    assert contents(cache) == [[1, 3], [0, 2, 4]]


def test_crop_forgets_the_newest_columns() -> None:
    cache = filled()
    cache.crop(-1)
    assert contents(cache) == [[0, 2], [1]]
    assert (cache.physical_length, cache.get_seq_length()) == (2, 4)


def test_reset_empties_the_cache_for_another_document() -> None:
    cache = filled()
    cache.reset()
    assert (cache.physical_length, cache.get_seq_length(), cache.layout, cache.nbytes) == (0, 0, None, 0)
    keys = torch.zeros(1, 2, 3, 4)
    cache.update(keys, keys, 0)
    assert (cache.physical_length, cache.get_mask_sizes(1, 0)) == (3, (4, 0))


def test_bytes_are_those_of_what_is_held() -> None:
    cache = filled()
    assert cache.nbytes == 2 * (2 * 2 * 3 * 4) * 4


def test_everything_can_be_evicted() -> None:
    cache = filled()
    cache.keep(torch.zeros(2, 3, dtype=torch.bool))
    assert (cache.physical_length, cache.get_seq_length()) == (0, 5)


def test_a_cache_without_eviction_is_the_plain_cache() -> None:
    model = tiny_model("qwen2")
    ids = random_ids(1, 12)
    with torch.no_grad():
        ours, plain = EvictingCache(model), DynamicCache()
        for cache in (ours, plain):
            model(ids[:, :7], past_key_values=cache)
        assert torch.equal(
            model(ids[:, 7:], past_key_values=ours).logits, model(ids[:, 7:], past_key_values=plain).logits
        )
