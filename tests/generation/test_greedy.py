"""The decode loop: padding, stopping, continuing a read document, and the cache it bills (RAM invariant 11)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import ARCHITECTURES, tiny_backbone
from transformers import Cache, DynamicCache

from laconic.backbone import Backbone
from laconic.core.preallocated import preallocated_cache
from laconic.core.results import Stopwatch
from laconic.generation import greedy
from laconic.generation.greedy import Continuation, greedy_decode

NEVER = frozenset({-1})
TEXTS = ["The red fox lives in the old barn.", "A grey owl sleeps above the mill, and bread is baked at dawn."]


def rows_of(backbone: Backbone) -> list[torch.Tensor]:
    return [backbone.embed(torch.tensor(backbone.token_ids(text))) for text in TEXTS]


def decode(backbone: Backbone, rows: list[torch.Tensor], **options: Any) -> list[Continuation]:
    return greedy_decode(backbone.model, rows, **({"max_new_tokens": 12, "stop_ids": NEVER} | options))


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[Cache]:
    """The caches that decoding makes for itself."""
    made: list[Cache] = []

    def noted(*args: Any) -> Cache:
        made.append(preallocated_cache(*args))
        return made[-1]

    monkeypatch.setattr(greedy, "preallocated_cache", noted)
    return made


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_padded_batch_says_and_costs_what_each_row_does_alone(arch: str) -> None:
    backbone = tiny_backbone(arch)
    rows = rows_of(backbone)
    together = decode(backbone, rows)
    assert together == [decode(backbone, [row])[0] for row in rows]
    assert all(len(row.ids) == 12 for row in together)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_it_says_what_generate_says(arch: str) -> None:
    backbone = tiny_backbone(arch)
    ids = torch.tensor([backbone.token_ids(TEXTS[0])])
    # generate also stops at the model's own end tokens: forbid the stop, not the token
    theirs = backbone.model.generate(ids, min_new_tokens=10, max_new_tokens=10, do_sample=False, pad_token_id=0)
    ours = decode(backbone, rows_of(backbone)[:1], max_new_tokens=10)
    assert backbone.tokenizer.eos_token_id not in ours[0].ids, "or the comparison below would not be fair"
    assert ours[0].ids == theirs[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_read_text_continues_as_one_read_now(arch: str) -> None:
    backbone = tiny_backbone(arch)
    row = rows_of(backbone)[1]
    cache = DynamicCache()
    with torch.no_grad():
        backbone.model(inputs_embeds=row[None, :9], past_key_values=cache, use_cache=True)
    continued = decode(backbone, [row[9:]], cache=cache, next_position=9)
    assert continued[0].ids == decode(backbone, [row])[0].ids
    assert continued[0].peak_cache_tokens == len(row) + 11, "this cache was not told of sliding windows"


def test_a_row_stops_at_its_stop_token_and_others_go_on() -> None:
    backbone = tiny_backbone()
    free = [row.ids for row in decode(backbone, rows_of(backbone), max_new_tokens=8)]
    stop = next(token for token in free[0] if token not in free[1][:4])
    stopped = decode(backbone, rows_of(backbone), max_new_tokens=8, stop_ids=frozenset({stop}))
    assert stopped[0].ids == free[0][: free[0].index(stop)]
    assert stopped[1].ids == (free[1][: free[1].index(stop)] if stop in free[1] else free[1])
    alone = [decode(backbone, [row], max_new_tokens=8, stop_ids=frozenset({stop}))[0] for row in rows_of(backbone)]
    assert stopped == alone, "a row that stopped is not billed for the others' later tokens"


def test_a_last_token_is_kept_and_ends_its_row() -> None:
    backbone = tiny_backbone()
    free = decode(backbone, rows_of(backbone)[:1])[0].ids
    ended = decode(backbone, rows_of(backbone)[:1], ends=lambda token: token == free[3])[0].ids
    assert ended == free[: free.index(free[3]) + 1]


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_never_more_than_asked_for(limit: int) -> None:
    backbone = tiny_backbone()
    seen: list[tuple[int, int]] = []
    watch = Stopwatch()
    rows = decode(
        backbone,
        rows_of(backbone),
        max_new_tokens=limit,
        watch=watch,
        on_token=lambda row, token: seen.append((row, token)),
    )
    assert [len(row.ids) for row in rows] == [limit, limit]
    assert [[token for row, token in seen if row == index] for index in (0, 1)] == [row.ids for row in rows]
    assert set(watch.seconds) == {"prefill", "decode"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("stops", [False, True])
def test_the_bill_is_the_cache_that_was_there(arch: str, stops: bool, caches: list[Cache]) -> None:
    backbone = tiny_backbone(arch)
    row = rows_of(backbone)[0]
    free = decode(backbone, [row])[0].ids
    # a row that meets a stop token has fed every token before it, one that runs to its limit all but the last
    stop = frozenset({free[4]}) if stops else NEVER
    caches.clear()
    billed = decode(backbone, [row], stop_ids=stop)[0]
    layers = [layer for layer in caches[0].layers if layer.is_initialized]
    assert billed.peak_cache_tokens == max(layer.keys.shape[-2] for layer in layers)
    assert billed.peak_cache_bytes == sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


@pytest.mark.parametrize("arch", ["mistral", "gemma3"])
def test_sliding_layers_hold_no_more_than_their_window(arch: str, caches: list[Cache]) -> None:
    backbone = tiny_backbone(arch)
    window = backbone.model.config.sliding_window
    row = rows_of(backbone)[1]
    decode(backbone, [row])
    held = [layer.keys.shape[-2] for layer in caches[0].layers]
    assert len(row) > window
    assert min(held) < window


def test_a_read_text_continues_with_one_row_only() -> None:
    backbone = tiny_backbone()
    with pytest.raises(ValueError, match="one row"):
        decode(backbone, rows_of(backbone), cache=DynamicCache())
