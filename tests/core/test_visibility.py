"""Visibility rules: every compiled form against loops over pairs of tokens, and against upstream's own masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rules import (
    Token,
    finished_text_hidden,
    own_foresight_only,
    plain_finished_text_hidden,
    plain_own_foresight_only,
)
from tiny import ARCHITECTURES, tiny_model
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from laconic.core.layout import IGNORE, Kind, Layout, batch, run
from laconic.core.visibility import (
    Rule,
    additive,
    attention_mask,
    block_mask,
    causal,
    isolated_groups,
    readable_by,
    visible,
)
from laconic.errors import BackboneError

STEPS = 5
RETAINED = torch.tensor([[True, False, True, False, True], [False, True, True, False, False]]).repeat(2, 1)

PlainRule = Callable[[Token, Token], bool]
RULES: dict[str, tuple[Rule, PlainRule]] = {
    "causal": (causal, lambda q, k: True),
    "isolated groups": (isolated_groups, lambda q, k: k.step in (0, q.step)),
    "own foresight": (own_foresight_only, plain_own_foresight_only),
    "bottleneck": (finished_text_hidden(0), lambda q, k: plain_finished_text_hidden(q, k, 0)),
    "horizon 2": (finished_text_hidden(2), lambda q, k: plain_finished_text_hidden(q, k, 2)),
    "retained": (
        finished_text_hidden(2, RETAINED),
        lambda q, k: plain_finished_text_hidden(q, k, 2, RETAINED),
    ),
}
rule_names = st.sampled_from(list(RULES))


@st.composite
def layouts(draw: st.DrawFn, max_length: int = 14) -> Layout:
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, max_length))

    def field(values: st.SearchStrategy[int]) -> Tensor:
        column = st.lists(values, min_size=length, max_size=length)
        return torch.tensor(draw(st.lists(column, min_size=rows, max_size=rows)))

    kinds, steps = st.integers(Kind.PAD, Kind.FORESIGHT), st.integers(0, STEPS - 1)
    kind = field(kinds)
    return Layout(kind, field(steps), field(st.integers(0, 20)), torch.full_like(kind, IGNORE))


def tokens_of(layout: Layout, row: int) -> list[Token]:
    fields = zip(layout.kind[row].tolist(), layout.step[row].tolist(), layout.position[row].tolist(), strict=True)
    return [Token(row, column, *values) for column, values in enumerate(fields)]


def plain_visible(rule: PlainRule, layout: Layout, queries: int, window: int | None) -> list[list[list[bool]]]:
    """Pair by pair, in the words of the documentation."""

    def reads(q: Token, k: Token) -> bool:
        if k.column == q.column:
            return True
        if k.column > q.column or k.kind == Kind.PAD:
            return False
        if window is not None and q.position - k.position >= window:
            return False
        return rule(q, k)

    rows = [tokens_of(layout, row) for row in range(layout.kind.shape[0])]
    return [[[reads(q, k) for k in row] for q in row[len(row) - queries :]] for row in rows]


@settings(max_examples=150)
@given(layouts(), rule_names, st.one_of(st.none(), st.integers(1, 12)), st.data())
def test_dense_mask_is_the_rule_pair_by_pair(
    layout: Layout, name: str, window: int | None, data: st.DataObject
) -> None:
    queries = data.draw(st.integers(1, len(layout)))
    rule, plain = RULES[name]
    seen = visible(rule, layout, queries, window)
    assert seen.dtype == torch.bool
    assert seen.tolist() == plain_visible(plain, layout, queries, window)


@given(layouts(), rule_names, st.data())
def test_a_decode_block_sees_the_last_rows_of_the_training_mask(layout: Layout, name: str, data: st.DataObject) -> None:
    queries = data.draw(st.integers(1, len(layout)))
    rule, _ = RULES[name]
    assert torch.equal(visible(rule, layout, queries), visible(rule, layout)[:, -queries:])


@given(layouts(), rule_names)
def test_no_row_of_a_mask_is_empty(layout: Layout, name: str) -> None:
    assert visible(RULES[name][0], layout, window=1).any(dim=-1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_additive_mask_is_zero_where_seen_and_lowest_elsewhere(dtype: torch.dtype) -> None:
    seen = torch.tensor([[[True, False], [True, True]]])
    mask = additive(seen, dtype)
    assert mask.dtype == dtype
    assert mask.shape == (1, 1, 2, 2)
    assert mask[0, 0].tolist() == [[0.0, torch.finfo(dtype).min], [0.0, 0.0]]


@settings(max_examples=25)
@given(layouts(), rule_names, st.one_of(st.none(), st.integers(1, 12)), st.data())
def test_block_mask_is_the_dense_mask(layout: Layout, name: str, window: int | None, data: st.DataObject) -> None:
    queries = data.draw(st.integers(1, len(layout)))
    rule, _ = RULES[name]
    blocks = block_mask(rule, layout, queries, window)
    rows, length = layout.kind.shape
    flat = create_mask(blocks.mask_mod, rows, 1, queries, length, device="cpu")
    assert torch.equal(flat[:, 0], visible(rule, layout, queries, window))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("queries", [300, 7])
def test_flex_attention_equals_dense_attention(queries: int) -> None:
    """Longer than one block of FlexAttention (128), so that skipped blocks matter."""
    steps = torch.arange(300) // 40
    kind = torch.where(torch.arange(300) % 40 < 30, Kind.TEXT, Kind.MEMORY)
    row = Layout(kind, steps, torch.arange(300), torch.full_like(kind, IGNORE))
    layout = batch([row, row.map(lambda field: field[:211])], "left")
    rule = finished_text_hidden(1)
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 2, queries, 16, generator=generator)
    k, v = (torch.randn(2, 2, 300, 16, generator=generator) for _ in range(2))
    dense = scaled_dot_product_attention(q, k, v, attn_mask=additive(visible(rule, layout, queries), q.dtype))
    flex = flex_attention(q, k, v, block_mask=block_mask(rule, layout, queries))
    assert torch.allclose(flex, dense, atol=1e-5)


@given(layouts(), layouts(), rule_names)
def test_readable_keys_are_those_a_later_query_may_read(keys: Layout, queries: Layout, name: str) -> None:
    rule, plain = RULES[name]
    rows = min(keys.kind.shape[0], queries.kind.shape[0])
    keys, queries = (layout.map(lambda field: field[:rows]) for layout in (keys, queries))
    expected = [
        [
            k.kind != Kind.PAD
            and any(
                q.kind != Kind.PAD and plain(Token(row, q.column + len(keys), q.kind, q.step, q.position), k)
                for q in tokens_of(queries, row)
            )
            for k in tokens_of(keys, row)
        ]
        for row in range(rows)
    ]
    assert readable_by(rule, queries, keys).tolist() == expected


def text_batch(lengths: list[int]) -> Layout:
    return batch([run(Kind.TEXT, torch.arange(length)) for length in lengths], "left")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_causal_rule_equals_upstream_with_its_windows_and_padding(arch: str, implementation: str) -> None:
    """Sequences are longer than the sliding windows of Mistral (24) and Gemma3 (12): both are honoured."""
    model = tiny_model(arch)
    model.set_attn_implementation(implementation)
    layout = text_batch([50, 33])
    ids = torch.randint(3, 128, (2, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = model(ids, attention_mask=attention_mask(model, causal, layout), position_ids=layout.position).logits
        upstream = model(ids, attention_mask=layout.real.long(), position_ids=layout.position).logits
    assert torch.allclose(ours[layout.real], upstream[layout.real], atol=1e-4)


def test_isolated_groups_answer_as_if_alone() -> None:
    """Questions packed behind one memory get the logits each gets by itself."""
    model = tiny_model("qwen3")
    ids = torch.randint(3, 128, (25,), generator=torch.Generator().manual_seed(0))
    memory = run(Kind.MEMORY, torch.arange(10))
    groups = [run(Kind.TEXT, torch.arange(10, 10 + n), step=g) for g, n in ((1, 4), (2, 6), (3, 5))]
    parts = [memory, *groups]
    packed = Layout(
        *(torch.cat([getattr(part, f) for part in parts])[None] for f in ("kind", "step", "position", "label"))
    )
    with torch.no_grad():
        mask = attention_mask(model, isolated_groups, packed)
        together = model(ids[None], attention_mask=mask, position_ids=packed.position).logits[0]
        start = 10
        for group in groups:
            columns = torch.cat([torch.arange(10), torch.arange(start, start + len(group))])
            alone = model(ids[columns][None]).logits[0, 10:]
            assert torch.allclose(together[start : start + len(group)], alone, atol=1e-5)
            start += len(group)


def test_models_that_mix_layer_types_get_one_mask_per_type() -> None:
    layout = text_batch([30])
    mask = attention_mask(tiny_model("gemma3"), causal, layout)
    assert isinstance(mask, dict)
    assert torch.equal(mask["full_attention"], additive(visible(causal, layout), torch.float32))
    assert torch.equal(mask["sliding_attention"], additive(visible(causal, layout, window=12), torch.float32))


def test_attention_that_ignores_masks_is_refused() -> None:
    model = tiny_model()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(BackboneError, match="ignores custom masks"):
        attention_mask(model, causal, text_batch([4]))


def test_layers_that_are_no_attention_over_keys_are_refused() -> None:
    model = tiny_model("qwen3")
    model.config.layer_types = ["linear_attention", "full_attention", "full_attention"]
    with pytest.raises(BackboneError, match="linear_attention"):
        attention_mask(model, causal, text_batch([4]))
