"""A floor from end to end: predictor, promises, compressor (PoC's specification, invariants 3, 4, 9, 14, 15)."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import SafetensorError
from tiny import tiny_backbone

from laconic.core.results import Compressed
from laconic.core.segments import Range, segment
from laconic.errors import AdapterError, BudgetError, DataError, DocumentError, LaconicError, QuestionError
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.chunked import between_words, compress_each
from laconic.methods.poc.config import PoCConfig
from laconic.methods.poc.labels import Labelled, Labels, Made
from laconic.methods.poc.predictor import CurvePredictor, TextCurve
from laconic.methods.poc.promises import FILE, TARGETS, Promises, common_ratios, outcomes_of, retention_at
from laconic.methods.poc.steering import PoC, load_predictor
from laconic.methods.pruning.perplexity import Contrastive
from laconic.methods.pruning.summary import SIZE
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
    return drawn()


@cache
def weighing() -> CurvePredictor:
    return drawn(features=True)


def drawn(**changes: Any) -> CurvePredictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CurvePredictor(BACKBONE, PoCConfig(lora_rank=2, chunk_tokens=32, query=False, **changes))
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
    ratios = sorted(known[0].scores)
    outcomes = [outcomes_of(curve, one, ratios) for one in known]
    documents = [str(number) for number in range(texts)]
    return Promises(MADE, outcomes, documents, ratios, AverageCurve.of(known), AverageCurve.by_task(known))


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
    wanted = method.compress(TEXT, floor=0.3).choice.ratio

    def from_there_on(ratio: float) -> str | None:
        asked.append(ratio)
        return "too short to pay" if ratio >= wanted else None

    skipped = method.compress(TEXT, floor=0.3, skip=from_there_on)
    assert skipped.compressed.text == TEXT
    assert skipped.compressed.notes == ["too short to pay"]
    assert asked == [0.02, wanted]
    assert (skipped.choice.ratio, skipped.choice.retention) == (1.0, 1.0), "which is what was delivered"
    assert skipped.choice.curve


def test_a_predictor_that_weighs_features_is_told_them() -> None:
    class Telling(FromTheStart):
        def features(self, context: str, query: str | None = None) -> list[float]:
            return [float(len(context) % 7)] * SIZE

    method = PoC(Telling(BACKBONE), weighing(), promises(), compressor_digest="compressor x")
    wanted = weighing().curve(TEXT, features=[float(len(TEXT) % 7)] * SIZE)
    assert method.compress(TEXT, floor=0.5).choice.curve == [
        (ratio, pytest.approx(wanted([ratio])[0])) for ratio, _ in method.compress(TEXT, floor=0.5).choice.curve
    ]
    silent = PoC(FromTheStart(BACKBONE), weighing(), promises(), compressor_digest="compressor x")
    with pytest.raises(LaconicError, match="was not told"):
        silent.compress(TEXT, floor=0.5)


def test_where_no_ratio_pays_nothing_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    method = poc()
    monkeypatch.setattr(CurvePredictor, "curve", lambda *_: pytest.fail("the predictor was asked"))
    found = method.compress(TEXT, floor=0.3, skip=lambda ratio: "too short to pay")
    assert (found.compressed.text, found.choice.ratio, found.choice.curve) == (TEXT, 1.0, [])
    assert found.compressed.notes == ["too short to pay"]
    assert "mean" in found.promise


def test_a_compressor_that_hears_questions_is_steered_with_one() -> None:
    class Asking(FromTheStart):
        query_aware = True

    method = PoC(Asking(BACKBONE), predictor(), promises(), compressor_digest="compressor x")
    with pytest.raises(QuestionError):
        method.compress(TEXT, floor=0.5)
    assert method.compress(TEXT, "Who bought it?", floor=0.5)


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
    assert words_in_order(compressed.text, text)
    assert compressed.requested_ratio == pytest.approx(found.choice.ratio, abs=0.02)
    assert compressed.delivered_ratio <= compressed.requested_ratio + len(wanted) / compressed.document_tokens
    for span in compressed.evidence:
        assert text[span.start : span.end] == span.text
    assert found.choice.curve, "people are shown the text's own"
    assert "predict" in compressed.seconds
    assert method.compress(text, floor=1.0, each_chunk=True).compressed.text == text
    for wrong in ({"each_chunk": True}, {"policy": "first"}, {"least_ratio": 0.0}):
        with pytest.raises(BudgetError, match="one ratio"):
            method.compress(text, floor=0.6, promise="risk", **wrong)


def test_a_chunk_of_which_no_part_is_short_enough_stays_as_it_is() -> None:
    class Sentences(FromTheStart):
        """Keeps whole sentences, or none."""

        def compress(self, context: str, query: str | None = None, **how: Any) -> Compressed:
            if "passkey" not in context:
                raise BudgetError("Less than one sentence.")
            return super().compress(context, query, **how)

    class Vectors(FromTheStart):
        def compress(self, context: str, query: str | None = None, **how: Any) -> Compressed:
            return replace(super().compress(context, query, **how), text=None, embeddings=torch.zeros(1, 4))

    text = TEXT + "\n\nWhat is the passkey? The passkey is 48213. " * 6
    pieces = segment(BACKBONE.tokenizer, text, predictor().config.chunk_tokens)
    ratios = [1.0, *[0.5] * (len(pieces) - 1)]
    found = compress_each(Sentences(BACKBONE), predictor(), text, None, ratios)
    assert found.text is not None
    plain = [text[a:b] for a, b in between_words(text, pieces.char_spans) if "passkey" not in text[a:b]]
    assert plain
    assert all(chunk.strip() in found.text for chunk in plain)
    assert len(found.text) < len(text)
    assert words_in_order(found.text, text), "a chunk as it was, and one that was cut behind it, do not run together"
    assert text[: pieces.char_spans[0][1]].strip() == plain[0].strip(), "at ratio 1 nothing was to be cut"
    assert found.notes == [f"{len(plain) - 1} of {len(pieces)} chunks have no part so short, and are as they were"]
    ended = compress_each(Sentences(BACKBONE), predictor(), TEXT + "\n\n", None, [0.5] * 9)
    assert ended.text == TEXT + "\n\n", "no part of it is short enough, and its end is kept too"
    with pytest.raises(LaconicError, match="leaves vectors"):
        compress_each(Vectors(BACKBONE), predictor(), text, None, ratios)


def words_in_order(part: str, whole: str) -> bool:
    """Whether all words of one are words of the other, in its order."""
    left = iter(whole.split())
    return all(word in left for word in part.split())


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
    assert found.choice.ratio == pytest.approx(6 / 19), "what was chosen is what was delivered"
    assert found.choice.retention == pytest.approx(predictor().curve(TEXT)([6 / 19])[0])
    told = [round(ratio, 6) for ratio, _ in found.choice.curve]
    assert len(told) == len(set(told)), "6 / 19 had been asked before"
    refused = method.compress(TEXT, floor=0.0, skip=lambda ratio: "dear" if ratio > 0.1 else None)
    assert refused.compressed.text == TEXT, "the gentler ratio is asked about too"
    assert refused.compressed.notes == ["dear"]
    assert (refused.choice.ratio, refused.choice.retention) == (1.0, 1.0)
    sure = replace(promises(), outcomes=[[1.0] * len(TARGETS)] * 60)  # no margin is needed
    careful = PoC(BySegment(BACKBONE), predictor(), sure, compressor_digest="compressor x")
    measured = careful.compress(TEXT, floor=0.0, promise="risk").compressed.requested_ratio
    assert measured in labels(0.1).scores


def test_another_prompt_or_metric_is_another_predictor() -> None:
    with pytest.raises(AdapterError, match="prompt"):
        poc(prompt="quite another {question}")
    assert poc(prompt=MADE.prompt)
    MADE.require(replace(MADE, metrics={"squad": "f1 of 32 tokens", "other": "rouge"}), "It")
    with pytest.raises(AdapterError, match="squad"):
        MADE.require(replace(MADE, metrics={"squad": "exact match"}), "It")


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
        assert found.choice.ratio in (*labels(0.1).scores, 1.0), "a ratio that was measured"
        assert found.choice.retention == pytest.approx(
            1.0 if found.choice.ratio == 1 else predictor().curve(TEXT)([found.choice.ratio])[0]
        )
        # on the held-out texts themselves it is kept
        at = [labels(need).scores.get(found.choice.ratio, 1.0) for need in (0.1, 0.3, 0.5, 0.8)]
        assert sum(at) / 4 >= 0.5


@pytest.mark.parametrize(("promise", "each_chunk"), [("mean", False), ("mean", True), ("risk", False)])
def test_a_curve_is_looked_at_twice(promise: Any, each_chunk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 4, with all that is told beside the choice."""
    method, looks = poc(), list[int]()
    by_chunk = TextCurve.by_chunk

    def counted(curve: TextCurve, ratios: Sequence[float]) -> torch.Tensor:
        looks.append(len(ratios))
        return by_chunk(curve, ratios)

    monkeypatch.setattr(TextCurve, "by_chunk", counted)
    found = method.compress(TEXT, floor=0.3, promise=promise, each_chunk=each_chunk)
    assert found.choice.ratio < 1
    assert found.choice.curve
    assert len(looks) <= 2


@pytest.mark.parametrize(
    ("floor", "delta", "told"),
    [(0.996, 0.1, ("99.6%", "10%", "90%")), (0.9, 0.005, ("90%", "0.5%", "99.5%")), (0.9, 0.125, ("12.5%", "87.5%"))],
)
def test_what_is_promised_is_not_rounded(floor: float, delta: float, told: Sequence[str]) -> None:
    known = [promises().words(floor, promise, delta) for promise in ("mean", "risk", "quantile")]
    for share in told:
        assert any(share in one.split(" ") or f"{share};" in one for one in known), share
    assert not any(word in " ".join(known) for word in (" 0%", "100%", " 12%", " 13%"))


@pytest.mark.parametrize("promise", ["risk", "quantile"])
def test_where_too_few_were_held_out_nothing_is_cut(promise: str) -> None:
    few = replace(promises(), outcomes=promises().outcomes[:4], documents=["a", "b", "c", "d"])
    found = PoC(FromTheStart(BACKBONE), predictor(), few, compressor_digest="compressor x").compress(
        TEXT,
        floor=0.6,
        promise=promise,  # type: ignore[arg-type]
    )
    assert found.compressed.text == TEXT
    assert "4 held-out documents are too few" in found.compressed.notes[0]
    assert found.choice.ratio == 1
    # of many, too: no number of texts short of endless ones proves a loss of nearly nothing
    many = poc().compress(TEXT, floor=0.995, promise="risk")
    assert many.compressed.text == TEXT


def test_a_ratio_that_was_measured_is_in_the_curve() -> None:
    found = poc().compress(TEXT, floor=0.5, promise="risk").choice
    assert found.ratio < 1
    assert (found.ratio, found.retention) in found.curve
    assert found.curve == sorted(found.curve)


def test_a_question_that_is_too_long_is_named() -> None:
    """And not taken for a text that no ratio leaves anything of."""
    method = PoC(Contrastive(BACKBONE), predictor(), promises(), compressor_digest="compressor x")
    for each_chunk in (False, True):
        with pytest.raises(QuestionError, match="no room"):
            method.compress(TEXT, "why " * BACKBONE.window, floor=0.3, each_chunk=each_chunk)


def test_the_compressors_pass_is_not_billed_to_the_predictor() -> None:
    class Slow(FromTheStart):
        def features(self, context: str, query: str | None = None) -> Sequence[float]:
            time.sleep(0.3)
            return [0.0] * SIZE

    method = PoC(Slow(BACKBONE), weighing(), promises(), compressor_digest="compressor x")
    seconds = method.compress(TEXT, floor=0.0).compressed.seconds
    assert seconds["score"] >= 0.3 > seconds["predict"]


def test_a_margin_is_the_least_that_the_outcomes_of_its_targets_allow() -> None:
    # all texts lose everything below the target 0.8, and keep all from there on
    outcomes = [[float(target >= 0.8) for target in TARGETS]] * 200
    known = Promises(MADE, outcomes, [str(n) for n in range(200)], [0.5], AverageCurve.of([labels(0.1)]), {})
    for promise in ("risk", "quantile"):
        assert known.margin(0.6, promise, 0.1) == pytest.approx(0.2)
        assert known.margin(0.9, promise, 0.1) == pytest.approx(0.0)
        assert known.margin(0.61, promise, 0.1) == pytest.approx(0.19)
    assert known.margin(1.0, "quantile", 0.1) == pytest.approx(0.0)
    assert known.margin(1.0, "risk", 0.1) > 0  # cutting nothing is all that can be promised
    assert known.margin(0.6, "mean", 0.1) == 0
    few = replace(known, outcomes=outcomes[:4], documents=known.documents[:4])
    with pytest.raises(DataError, match="too few"):
        few.margin(0.6, "quantile", 0.1)
    with pytest.raises(DataError, match="4 held-out documents are too few"):  # texts of one prove no more than one
        replace(known, documents=[str(n % 4) for n in range(200)]).margin(0.6, "quantile", 0.1)
    assert "200 held-out ones of 4 documents" in replace(known, documents=[str(n % 4) for n in range(200)]).words(
        0.6, "risk", 0.1
    )


def test_outcomes_are_what_selection_would_have_got() -> None:
    step = 150 / 361
    curve, ratios = lambda ratios: [float(ratio >= step - 1e-9) for ratio in ratios], sorted(labels(0.5).scores)
    found = outcomes_of(curve, labels(0.5), ratios)
    assert len(found) == len(TARGETS)
    assert found[0] == 0  # the least ratio
    assert 0 < retention_at(labels(0.5), [step])[0] < 1  # between the labels at 0.4 and 0.5
    assert found[1] == found[50] == 1  # what was measured at 0.5, which is then what is chosen
    assert outcomes_of(curve, labels(0.6), ratios)[1] == 0
    assert outcomes_of(curve, labels(0.6), [0.1, 0.3])[1] == 1  # of gentler ratios nothing is known: left alone
    assert found[-1] == 1  # left alone
    gains = Labels("squad", 0.1, {0.1: 0.0, 0.2: 0.3})
    assert set(outcomes_of(lambda ratios: [1.0] * len(ratios), gains, [0.1, 0.2])[:-1]) == {0.0}
    assert set(outcomes_of(lambda ratios: [1.0] * len(ratios), gains, [0.2])) == {1.0}, "a gain counts as 1"


def test_promises_choose_among_what_all_held_out_texts_were_labelled_at() -> None:
    texts = [
        Labelled(str(n), "squad", str(n), TEXT, "Who?", 1.0, dict.fromkeys(ratios, 0.5), {})
        for n, ratios in enumerate([(0.5, 0.1, 0.3), (0.1, 0.2, 0.5)])
    ]
    assert common_ratios(texts) == [0.1, 0.5]
    assert common_ratios([]) == []
    known = replace(promises(), ratios=[0.1, 0.5])
    asked = (0.05, 0.1, 0.11, 0.5, 0.51, 1.0)
    assert [known.ratio(ratio, "risk") for ratio in asked] == [0.1, 0.1, 0.5, 0.5, 1.0, 1.0]
    assert [known.ratio(ratio, "mean") for ratio in asked] == list(asked)


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
    assert (again.documents, again.ratios) == (known.documents, known.ratios)
    assert again.average([0.2, 0.5]) == known.average([0.2, 0.5])
    assert loaded.curve(TEXT)([0.1, 0.7]) == pytest.approx(model.curve(TEXT)([0.1, 0.7]), abs=0.05)
    content = json.loads((tmp_path / "poc" / FILE).read_text())
    (tmp_path / "poc" / FILE).write_text(json.dumps(content | {"by_task": []}))
    with pytest.raises(AdapterError, match="damaged"):
        load_predictor(BACKBONE, tmp_path / "poc")
    (tmp_path / "poc" / FILE).unlink()
    with pytest.raises(AdapterError, match="nothing can be promised"):
        load_predictor(BACKBONE, tmp_path / "poc")
    with pytest.raises(AdapterError, match="no predictor"):
        load_predictor(BACKBONE)


def test_it_is_saved_with_its_promises_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = predictor()
    model.promises = promises()
    model.save_pretrained(tmp_path / "poc")
    before = load_predictor(BACKBONE, tmp_path / "poc")[1]

    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("laconic.core.persist.save_file", full)
    model.promises = Promises(before.made, before.outcomes, before.documents, [0.3], before.average, {})
    with pytest.raises(AdapterError, match="cannot be written: No space left"):
        model.save_pretrained(tmp_path / "poc")
    assert load_predictor(BACKBONE, tmp_path / "poc")[1].ratios == before.ratios
    assert [path.name for path in tmp_path.iterdir()] == ["poc"]


def test_the_loss_is_over_labelled_ratios_of_whole_texts() -> None:
    texts = [
        Labelled("a", "squad", "a", TEXT, "Who?", 0.5, {0.1: 0.0, 0.5: 0.6}, {}),
        Labelled("b", "squad", "b", TEXT[:100], "Who?", 1.0, {0.3: 0.25}, {}),
    ]
    with torch.inference_mode():
        predicted, true, known = predicted_and_true(predictor(), texts)
    assert known.tolist() == [[True, True], [True, False]]
    assert Labelled("c", "squad", "c", TEXT, "Who?", 1.0, {}, {}).labels is None  # no ratio was possible
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
