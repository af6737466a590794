"""A floor from end to end: predictor, promises, compressor (PoC's specification, invariants 3, 4, 9, 14, 15)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny import tiny_backbone

from laconic.core.segments import Range
from laconic.errors import AdapterError, BudgetError, DataError, DocumentError, LaconicError, QuestionError
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.chunked import between_words
from laconic.methods.poc.config import PoCConfig
from laconic.methods.poc.labels import Labelled, Labels, Made
from laconic.methods.poc.predictor import CurvePredictor
from laconic.methods.poc.promises import FILE, TARGETS, Promises, measured_below, outcomes_of, retention_at
from laconic.methods.poc.steering import PoC, load_predictor
from laconic.methods.pruning.words import WordPruner
from laconic.train.poc import PredictorStage, predicted_and_true

BACKBONE = tiny_backbone("llama")
TEXT = "The mill stood by the river. Anna Berg bought it, and sold it again to nobody. " * 5
MADE = Made(BACKBONE.content_hash, "reader", "compressor x", "\nQuestion: {question}", {"squad": "f1 of 32 tokens"})


class FromTheStart(WordPruner):
    compressed = 0

    def compress(self, *arguments: Any, **options: Any) -> Any:
        self.compressed += 1
        return super().compress(*arguments, **options)

    def scores(self, text: str, words: Sequence[Range], query: str | None) -> Sequence[float]:
        return [-float(place) for place in range(len(words))]


@cache
def predictor() -> CurvePredictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CurvePredictor(BACKBONE, PoCConfig(lora_rank=2, chunk_tokens=32, query=False))
        for parameter in made.own_parameters().values():
            parameter.data.normal_(0, 0.3)
    return made.eval()


def labels(ratio: float, task: str = "squad") -> Labels:
    """All is kept from this ratio on, nothing below."""
    return Labels(task, 1.0, {r: float(r >= ratio) for r in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)})


def promises(texts: int = 60) -> Promises:
    draw = random.Random(0)
    known = [labels(draw.choice([0.1, 0.3, 0.5, 0.8])) for _ in range(texts)]
    curve = predictor().curve(TEXT)
    outcomes = [outcomes_of(curve, one) for one in known]
    return Promises(MADE, outcomes, AverageCurve.of(known), AverageCurve.by_task(known))


def poc(**changes: Any) -> PoC:
    return PoC(FromTheStart(BACKBONE), predictor(), promises(), **({"compressor_digest": "compressor x"} | changes))


def test_the_chosen_ratio_is_predicted_to_keep_the_floor_and_is_delivered() -> None:
    method = poc()
    before = 0.0
    for floor in (0.0, 0.3, 0.6, 0.9, 1.0):
        found = method.compress(TEXT, floor=floor)
        assert found.choice.feasible
        assert found.choice.retention >= floor
        assert found.choice.ratio >= before
        before = found.choice.ratio
        allowed = found.choice.ratio * found.compressed.document_tokens
        assert found.compressed.context_tokens <= allowed + 1
        assert found.margin == 0
        assert "mean" in found.promise
    assert method.compress(TEXT, floor=1.0).choice.ratio > method.compress(TEXT, floor=0.3).choice.ratio


def test_where_nothing_may_be_cut_the_text_is_byte_for_byte() -> None:
    method = poc()
    text = "  " + TEXT + "\r\n\t"
    found = method.compress(text, floor=1.0)
    assert found.choice.ratio == 1.0
    assert found.compressed.text == text
    assert found.compressed.delivered_ratio == 1
    assert "nothing may be cut" in found.compressed.notes[0]
    assert isinstance(method.compressor, FromTheStart)
    assert method.compressor.compressed == 0


def test_a_reason_to_leave_the_text_alone_is_asked_for_the_ratio_and_told() -> None:
    method, asked = poc(), list[float]()
    skipped = method.compress(TEXT, floor=0.3, skip=lambda ratio: (asked.append(ratio), "too short to pay")[1])
    assert skipped.compressed.text == TEXT
    assert skipped.compressed.notes == ["too short to pay"]
    assert asked == [skipped.choice.ratio] == [method.compress(TEXT, floor=0.3).choice.ratio]


def test_each_chunk_may_have_a_ratio_of_its_own() -> None:
    method = poc()
    text = TEXT + "\n\nWhat is the passkey? The passkey is 48213. " * 6
    found = method.compress(text, floor=0.6, each_chunk=True)
    grid = [place / 361 for place in range(1, 361)]
    curves = predictor().curve(text).by_chunk(grid)
    wanted = [
        next((r for r, v in zip(grid, own.tolist(), strict=True) if r >= 0.02 and v >= 0.6), 1.0) for own in curves
    ]
    assert len(set(wanted)) > 1
    weights = predictor().curve(text).weights
    assert found.choice.ratio == pytest.approx(float((weights * torch.tensor(wanted)).sum() / weights.sum()), abs=1e-5)
    assert found.choice.retention >= 0.6
    compressed = found.compressed
    assert compressed.text is not None
    assert compressed.context_tokens == BACKBONE.count_tokens(compressed.text)
    assert compressed.requested_ratio == pytest.approx(found.choice.ratio, abs=0.02)
    assert compressed.delivered_ratio <= compressed.requested_ratio + len(wanted) / compressed.document_tokens
    for span in compressed.evidence:
        assert text[span.start : span.end] == span.text
    assert method.compress(text, floor=1.0, each_chunk=True).compressed.text == text
    for wrong in ({"each_chunk": True}, {"policy": "first"}, {"least_ratio": 0.0}):
        with pytest.raises(BudgetError, match="one ratio"):
            method.compress(text, floor=0.6, promise="risk", **wrong)


def test_chunks_end_between_words() -> None:
    text = "xx number 4821377 is noted"
    assert between_words(text, [(0, 12), (12, 15), (15, 18), (18, 26)]) == [(0, 17), (17, 17), (17, 18), (18, 26)]
    assert between_words("unbroken", [(0, 3), (3, 8)]) == [(0, 8), (8, 8)]


def test_a_ratio_that_cannot_be_delivered_gives_way_to_the_next() -> None:
    class BySegment(FromTheStart):
        asked: ClassVar[list[float]] = []

        def compress(self, context: str, query: str | None = None, **options: Any) -> Any:
            self.asked.append(options["ratio"])
            if options["ratio"] < 0.3:
                raise BudgetError("less than one segment.", "")
            return super().compress(context, query, **options)

    method = PoC(BySegment(BACKBONE), predictor(), promises(), compressor_digest="compressor x")
    found = method.compress(TEXT, floor=0.0)
    assert BySegment.asked[-1] == pytest.approx(6 / 19)
    assert found.compressed.requested_ratio == pytest.approx(6 / 19)


def test_another_prompt_or_metric_is_another_predictor() -> None:
    with pytest.raises(AdapterError, match="prompt"):
        poc(prompt="quite another {question}")
    assert poc(prompt=MADE.prompt, metrics={"squad": "f1 of 32 tokens", "other": "rouge"})
    with pytest.raises(AdapterError, match="squad"):
        poc(metrics={"squad": "exact match"})


def test_promises_aim_higher_and_say_so() -> None:
    method = poc()
    plain = method.compress(TEXT, floor=0.5)
    for promise in ("risk", "quantile"):
        found = method.compress(TEXT, floor=0.5, promise=promise)
        assert found.margin > 0
        assert found.choice.ratio >= plain.choice.ratio
        assert found.choice.retention >= 0.5 + found.margin or found.choice.ratio == 1
        assert promise in found.promise
        assert "60 held-out" in found.promise
        # on the held-out texts themselves it is kept
        at = [measured_below(labels(need), found.choice.ratio) for need in (0.1, 0.3, 0.5, 0.8)]
        assert sum(at) / 4 >= 0.5


def test_a_margin_is_the_least_that_the_outcomes_of_its_targets_allow() -> None:
    # all texts lose everything below the target 0.8, and keep all from there on
    outcomes = [[float(target >= 0.8) for target in TARGETS]] * 200
    known = Promises(MADE, outcomes, AverageCurve.of([labels(0.1)]), {})
    for promise in ("risk", "quantile"):
        assert known.margin(0.6, promise, 0.1) == pytest.approx(0.2)
        assert known.margin(0.9, promise, 0.1) == pytest.approx(0.0)
        assert known.margin(0.61, promise, 0.1) == pytest.approx(0.19)
    assert known.margin(1.0, "quantile", 0.1) == pytest.approx(0.0)
    assert known.margin(1.0, "risk", 0.1) > 0  # cutting nothing is all that can be promised
    assert known.margin(0.6, "mean", 0.1) == 0
    few = replace(known, outcomes=outcomes[:4])
    with pytest.raises(DataError, match="too few"):
        few.margin(0.6, "quantile", 0.1)


def test_outcomes_are_what_selection_would_have_got() -> None:
    step = 150 / 361
    found = outcomes_of(lambda ratios: [float(ratio >= step - 1e-9) for ratio in ratios], labels(0.5))
    assert len(found) == len(TARGETS)
    assert found[0] == 0  # the least ratio
    assert 0 < retention_at(labels(0.5), [step])[0] < 1  # between the labels at 0.4 and 0.5
    assert found[1] == found[50] == 0  # what was measured at 0.4
    assert found[-1] == 1  # left alone
    gains = Labels("squad", 0.1, {0.1: 0.0, 0.2: 0.3})
    assert [measured_below(gains, ratio) for ratio in (0.05, 0.13, 0.2, 0.7, 1.0)] == [0, 0, 1, 1, 1]


def test_a_predictor_of_another_compressor_reader_or_backbone_is_refused() -> None:
    with pytest.raises(AdapterError, match="compressor"):
        poc(compressor_digest="compressor y")
    with pytest.raises(AdapterError, match="reader"):
        poc(reader="someone else")
    other = replace(promises(), made=replace(MADE, backbone="another"))
    with pytest.raises(AdapterError, match="backbone"):
        PoC(FromTheStart(BACKBONE), predictor(), other, compressor_digest="compressor x")
    assert poc(reader="reader")


def test_bad_input_is_refused() -> None:
    method = poc()
    for floor in (-0.1, 1.1, float("nan")):
        with pytest.raises(BudgetError, match="floor"):
            method.compress(TEXT, floor=floor)
    with pytest.raises(BudgetError, match="least ratio"):
        method.compress(TEXT, floor=0.5, least_ratio=2.0)
    with pytest.raises(DocumentError):
        method.compress("  ", floor=0.5)
    with pytest.raises(LaconicError, match="no promise"):
        method.compress(TEXT, floor=0.5, promise="surely")  # type: ignore[arg-type]
    with pytest.raises(LaconicError, match="delta"):
        method.compress(TEXT, floor=0.5, promise="risk", delta=0.0)
    asking = CurvePredictor(BACKBONE, PoCConfig(lora_rank=2, chunk_tokens=32, query=True))
    with pytest.raises(QuestionError):
        PoC(FromTheStart(BACKBONE), asking, promises(), compressor_digest="compressor x").compress(TEXT, floor=0.5)


def test_saved_and_loaded_it_promises_the_same(tmp_path: Path) -> None:
    model, known = predictor(), promises()
    model.promises = known
    model.save_pretrained(tmp_path / "poc", dtype=torch.bfloat16)  # as recipes do
    model.promises = None
    loaded, again = load_predictor(BACKBONE, tmp_path / "poc")
    assert again.made == known.made
    assert again.margin(0.5, "risk", 0.1) == known.margin(0.5, "risk", 0.1)
    assert again.average([0.2, 0.5]) == known.average([0.2, 0.5])
    assert loaded.curve(TEXT)([0.1, 0.7]) == pytest.approx(model.curve(TEXT)([0.1, 0.7]), abs=0.05)
    (tmp_path / "poc" / FILE).unlink()
    with pytest.raises(AdapterError, match="nothing can be promised"):
        load_predictor(BACKBONE, tmp_path / "poc")
    with pytest.raises(AdapterError, match="no predictor"):
        load_predictor(BACKBONE)


def test_the_loss_is_over_labelled_ratios_of_whole_texts() -> None:
    texts = [
        Labelled("a", "squad", "a", TEXT, "Who?", 0.5, {0.1: 0.0, 0.5: 0.6}, {}),
        Labelled("b", "squad", "b", TEXT[:100], "Who?", 1.0, {0.3: 0.25}, {}),
    ]
    with torch.inference_mode():
        predicted, true, known = predicted_and_true(predictor(), texts)
    assert known.tolist() == [[True, True], [True, False]]
    assert true[known].tolist() == [0.0, 1.0, 0.25]  # a gain is clipped
    for place, one in enumerate(texts):
        assert one.labels is not None
        wanted = predictor().curve(one.context)(sorted(one.labels.scores))
        assert predicted[place][known[place]].tolist() == pytest.approx(wanted, abs=1e-5)


def test_it_learns_a_curve_that_hangs_on_one_word() -> None:
    """Invariant 15: 32 texts whose curve depends on one word they have."""
    draw = random.Random(0)
    words = ["the", "mill", "stood", "by", "a", "river", "and", "nobody", "sold", "it", "again"]
    texts = []
    for number in range(32):
        own = [draw.choice(words) for _ in range(20)]
        easy = number % 2 == 0
        own[draw.randrange(20)] = "passkey" if easy else "weather"
        one = {r: 1.0 if r >= (0.2 if easy else 0.7) else 0.0 for r in (0.1, 0.3, 0.5, 0.6, 0.8, 0.9)}
        texts.append(Labelled(str(number), "squad", str(number), " ".join(own), "Who?", 1.0, one, {}))
    torch.manual_seed(0)
    model = CurvePredictor(tiny_backbone("llama"), PoCConfig(lora_rank=8, query=False, chunk_tokens=64))
    stage = PredictorStage(model)
    optimizer = torch.optim.AdamW(list(model.own_parameters().values()), lr=1e-2)
    for _ in range(150):
        loss, _ = stage(texts)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    average = AverageCurve.of([one.labels for one in texts if one.labels])
    errors = [
        (value - one.labels.retention(ratio)) ** 2
        for one in texts
        if one.labels
        for ratio, value in zip(one.labels.scores, average(list(one.labels.scores)), strict=True)
    ]
    assert loss.item() < 0.1 * sum(errors) / len(errors)
