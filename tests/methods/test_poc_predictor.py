"""PoC's predictor that reads the text (invariants 7 and 8 of its specification)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ARCHITECTURES, tiny_backbone

from laconic.core.layout import Kind, Layout, concatenate, run
from laconic.core.visibility import attention_mask, isolated_groups
from laconic.errors import DocumentError, LaconicError, QuestionError
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.config import PoCConfig
from laconic.methods.poc.labels import Labelled, Labels
from laconic.methods.poc.predictor import CurvePredictor, waves
from laconic.methods.poc.selection import select
from laconic.methods.pruning.summary import SIZE
from laconic.train.poc import predicted_and_true

HEADS = ["monotone", "sigmoid"]
TEXT = "The mill stood by the river. Anna Berg bought it, and sold it again to nobody. " * 4
RATIOS = [0.03, 0.2, 0.21, 0.5, 0.9]


def predictor(head: str, arch: str = "llama", **changes: Any) -> CurvePredictor:
    options = {"layers": 2, "lora_rank": 2, "chunk_tokens": 32, "query": False} | changes
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CurvePredictor(tiny_backbone(arch), PoCConfig(head=head, **options))
        for parameter in made.own_parameters().values():
            parameter.data.normal_(0, 0.3)
    return made.eval()


@torch.inference_mode()
def asked(model: CurvePredictor, rows: list[list[int]], ratios: list[float]) -> torch.Tensor:
    return model.retention(model.read(rows), torch.tensor(ratios).expand(len(rows), -1))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_is_asked_besides_changes_nothing(head: str, arch: str) -> None:
    model = predictor(head, arch)
    row = model.backbone.token_ids(TEXT)[:30]
    together = asked(model, [row], RATIOS)[0]
    order = [3, 0, 4, 1]
    some = asked(model, [row], [RATIOS[place] for place in order])[0]
    torch.testing.assert_close(some, together[order], atol=1e-5, rtol=0)
    for place, ratio in enumerate(RATIOS):
        torch.testing.assert_close(asked(model, [row], [ratio])[0, 0], together[place], atol=1e-5, rtol=0)
    assert together.std() > 1e-4  # it does depend on the ratio
    assert (asked(model, [row[::-1]], RATIOS)[0] - together).abs().max() > 1e-4  # and on the text


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_padding_and_neighbours_change_nothing(head: str, arch: str) -> None:
    model = predictor(head, arch)
    ids = model.backbone.token_ids(TEXT)
    rows = [ids[:7], ids[3:33], ids[10:11]]
    together = asked(model, rows, RATIOS)
    for place, row in enumerate(rows):
        torch.testing.assert_close(asked(model, [row], RATIOS)[0], together[place], atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", HEADS)
@torch.inference_mode()
def test_a_text_that_was_read_can_be_asked_again(head: str) -> None:
    model = predictor(head)
    reading = model.read([model.backbone.token_ids(TEXT)[:30], model.backbone.token_ids(TEXT)[:9]])
    ratios = torch.tensor(RATIOS).expand(2, -1)
    first = model.retention(reading, ratios)
    model.retention(reading, ratios[:, :2])
    torch.testing.assert_close(model.retention(reading, ratios), first, atol=0, rtol=0)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_text_and_ratios_in_one_pass_give_the_same(arch: str) -> None:
    """Nothing of the text is missing where its pass stops at the last layer's keys, nor a gradient that goes there."""
    model = predictor("sigmoid", arch)
    ids = torch.tensor([model.backbone.token_ids(TEXT)[:30]])
    ratios = torch.tensor([RATIOS])
    trained = [p for name, p in model.reader.named_parameters() if "lora_" in name]

    def at_once() -> torch.Tensor:
        soft = model.query.weight + model._scale * model.ratio(waves(ratios, model.config.bands))
        text = run(Kind.TEXT, torch.arange(30)[None])
        behind = run(Kind.FORESIGHT, torch.full((1, len(RATIOS)), 30))
        each = torch.arange(1, len(RATIOS) + 1)[None]
        layout = concatenate([text, Layout(behind.kind, each, behind.position, behind.label)])
        states = model.reader(
            inputs_embeds=torch.cat([model.reader.get_input_embeddings()(ids), soft], 1),
            attention_mask=attention_mask(model.reader, isolated_groups, layout),
            position_ids=layout.position,
            use_cache=False,
        ).last_hidden_state[:, 30:]
        return model.head(states).squeeze(-1).sigmoid()

    found, wanted = model.retention(model.read(ids.tolist()), ratios), at_once()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    for one, other in zip(*(torch.autograd.grad(all_.sum(), trained) for all_ in (found, wanted)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()), rtol=1e-3)
        assert other.abs().max() > 0


def test_of_a_text_the_last_layer_makes_keys_alone() -> None:
    model = predictor("monotone")
    passes = []
    for number, layer in enumerate(model.reader.layers):
        layer.mlp.register_forward_hook(lambda *_, number=number: passes.append(number))
    model.curve(TEXT)  # reads
    assert set(passes) == {0}
    passes.clear()
    model.curve(TEXT)(RATIOS)
    assert passes[-2:] == [0, 1]  # what asks goes through both


def test_a_monotone_curve_never_falls_and_ends_at_one() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        model = predictor("monotone")
        model.head.weight.data.normal_(0, 3)
        curve = model.curve(TEXT)
        values = curve([number / 500 for number in range(1, 501)])
        assert all(a <= b + 1e-6 for a, b in pairwise(values))
        assert values[-1] == pytest.approx(1, abs=1e-5)
        assert curve([1e-6])[0] >= 0


@pytest.mark.parametrize("head", HEADS)
def test_a_texts_curve_is_its_chunks_weighted_by_tokens(head: str) -> None:
    model = predictor(head)
    ids = model.backbone.token_ids(TEXT)
    assert len(ids) % 32
    curve = model.curve(TEXT)
    pieces = [ids[start : start + 32] for start in range(0, len(ids), 32)]
    single = torch.stack([asked(model, [piece], RATIOS)[0] for piece in pieces])
    torch.testing.assert_close(curve.by_chunk(RATIOS), single, atol=1e-5, rtol=0)
    weights = torch.tensor([float(len(piece)) for piece in pieces]) / len(ids)
    assert curve(RATIOS) == pytest.approx((weights[:, None] * single).sum(0).tolist(), abs=1e-5)
    choice = select(curve, 0.5)
    assert choice.ratio == 1 or choice.retention >= 0.5


def test_the_question_is_read_where_the_config_says_so() -> None:
    with_it, without = predictor("monotone", query=True), predictor("monotone")
    one, other = (with_it.curve(TEXT, question)(RATIOS) for question in ("Who bought it?", "Where is it?"))
    assert one != other
    assert without.curve(TEXT, "Who?")(RATIOS) == without.curve(TEXT)(RATIOS)
    with pytest.raises(QuestionError):
        with_it.curve(TEXT)
    with pytest.raises(QuestionError, match="no room"):
        with_it.curve(TEXT, "why " * with_it.backbone.window)
    with pytest.raises(DocumentError):
        without.curve(" ")
    for slip in ({"layers": 0}, {"chunk_tokens": 3}, {"head": "linear"}):
        with pytest.raises(LaconicError):
            PoCConfig(**slip)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", HEADS)
def test_saved_and_loaded_it_predicts_the_same(head: str, tmp_path: Path) -> None:
    model = predictor(head)
    model.save_pretrained(tmp_path / "poc")
    loaded = CurvePredictor.from_pretrained(tmp_path / "poc", model.backbone).merge()
    assert loaded.curve(TEXT)(RATIOS) == pytest.approx(model.curve(TEXT)(RATIOS), abs=1e-5)
    assert loaded.version


@pytest.mark.parametrize("head", HEADS)
def test_it_learns_a_curve_that_hangs_on_one_token(head: str) -> None:
    """Invariant 15: what a constant curve cannot say, and a reader can."""
    torch.manual_seed(0)
    model = CurvePredictor(
        tiny_backbone(),
        PoCConfig(head=head, layers=2, lora_rank=4, chunk_tokens=32, query=False),  # type: ignore[arg-type]
    )
    ids = model.backbone.token_ids(TEXT)
    mark = model.backbone.token_ids("!")[-1]
    rows, targets = [], []
    grid = torch.tensor([number / 19 for number in range(1, 19)])
    for number in range(32):
        row = ids[number : number + 16]
        if number % 2:
            row[8] = mark
        rows.append(row)
        targets.append(grid ** (0.1 if number % 2 else 2.0))
    wanted = torch.stack(targets)
    agnostic = (wanted - wanted.mean(0)).pow(2).mean()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(120):
        loss = (model.retention(model.read(rows), grid.expand(32, -1)) - wanted).pow(2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1 * agnostic


def test_it_begins_as_a_curve_for_every_text() -> None:
    made = CurvePredictor(tiny_backbone("llama"), PoCConfig(layers=2, lora_rank=2, chunk_tokens=32, query=False))
    assert not made.begun
    average = AverageCurve.of([Labels("qa", 1.0, {0.05: 0.2, 0.3: 0.8, 0.7: 0.75})])  # which falls once
    made.begin_with(average)
    ratios = [0.05, 0.1, 0.3, 0.5, 0.9, 1.0]
    one, other = made.curve(TEXT)(ratios), made.curve(TEXT[::-1])(ratios)
    assert one == pytest.approx(other)
    assert one[:3] == pytest.approx(average(ratios[:3]), abs=0.03)
    assert one[3] == pytest.approx(0.8, abs=0.03)  # it never falls
    assert one[-1] == pytest.approx(1.0)
    assert all(a <= b + 1e-6 for a, b in pairwise(one))


@pytest.mark.parametrize("head", HEADS)
def test_what_the_compressor_found_is_weighed_where_it_is_asked_for(head: str) -> None:
    model = predictor(head, features=True)
    some, other = [0.5] * SIZE, [-0.5] * SIZE
    assert model.curve(TEXT, features=some)(RATIOS) != model.curve(TEXT, features=other)(RATIOS)
    assert predictor(head).curve(TEXT, features=some)(RATIOS) == predictor(head).curve(TEXT)(RATIOS)
    for wrong in (None, [0.5], ()):
        with pytest.raises(LaconicError, match="was not told"):
            model.curve(TEXT, features=wrong)
    fresh = CurvePredictor(
        tiny_backbone("llama"), PoCConfig(head=head, features=True, query=False, lora_rank=2, chunk_tokens=32)
    )
    assert fresh.curve(TEXT, features=some)(RATIOS) == fresh.curve(TEXT, features=other)(RATIOS)  # not till trained


def test_features_go_with_the_text_whose_chunks_are_read_beside_others() -> None:
    model = predictor("monotone", features=True)
    texts = [
        Labelled("a", "squad", "a", TEXT, "Who?", 1.0, {0.1: 0.0, 0.5: 0.6}, {}, [0.7] * SIZE),
        Labelled("b", "squad", "b", TEXT[:60], "Who?", 1.0, {0.3: 0.25}, {}, [-0.7] * SIZE),
    ]
    with torch.inference_mode():
        predicted, _, known = predicted_and_true(model, texts)
    for place, one in enumerate(texts):
        wanted = model.curve(one.context, features=one.features)(sorted(one.scores))
        assert predicted[place][known[place]].tolist() == pytest.approx(wanted, abs=1e-5)


@torch.inference_mode()
def test_a_ratio_stands_right_behind_its_text() -> None:
    """As if both were read at once, position by position."""
    model = predictor("monotone")
    rows = [model.backbone.token_ids(TEXT)[:30], model.backbone.token_ids(TEXT)[:9]]
    reading = model.read(rows)
    found = model._asked(reading, model.query.weight.expand(2, 1, -1))
    for place, row in enumerate(rows):
        words = model.reader.get_input_embeddings()(torch.tensor([row]))
        both = torch.cat([words, model.query.weight[None]], dim=1)
        at_once = model.reader(inputs_embeds=both, position_ids=torch.arange(len(row) + 1)[None]).last_hidden_state
        torch.testing.assert_close(found[place, 0], at_once[0, -1], atol=1e-5, rtol=1e-4)
