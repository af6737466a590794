"""Words by a token classifier: rows, scores, questions in front, checkpoints of LLMLingua-2's kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny import tiny_backbone, tiny_encoder, tiny_encoder_config, tiny_wordpieces
from transformers import BertForTokenClassification, BertModel

from laconic.errors import AdapterError, BackboneError, BudgetError, LaconicError
from laconic.methods.pruning.classifier import Classifier, ClassifierConfig, WordClassifier, load_classifier
from laconic.methods.pruning.scoring import GIVE, rows_of, word_scores
from laconic.methods.pruning.words import words_of

BACKBONE = tiny_backbone("llama")
TEXT = "The keeper wrote down the weather. The ships passed; the sky is blue and the grass green! Remember it. " * 6
QUESTION = "What is the passkey?"


def classifier(**changes: int) -> WordClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = WordClassifier(tiny_encoder(), ClassifierConfig(**{"lora_rank": 2, "row_tokens": 40} | changes))
        for parameter in made.own_parameters().values():
            parameter.data.normal_(0, 0.3)
    return made.eval()


@pytest.mark.parametrize("query", [None, QUESTION])
def test_every_token_is_in_one_row_between_its_ends(query: str | None) -> None:
    model = classifier()
    rows = rows_of(model, TEXT, query)
    tokenizer = model.tokenizer
    whole = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    question = tokenizer(QUESTION, add_special_tokens=False)["input_ids"] if query else []
    opening = [tokenizer.cls_token_id, *question, *([tokenizer.sep_token_id] if query else [])]
    assert len(rows) > 3
    assert [token for row in rows for token in row.ids[row.ahead : -1]] == whole
    for row in rows:
        assert row.ids[: row.ahead] == opening
        assert row.ids[-1] == tokenizer.sep_token_id
        assert len(row.ids) <= model.row_tokens
        assert len(row.offsets) == len(row.ids) - row.ahead - 1


def test_rows_end_with_sentences_where_one_is_near_and_are_full_where_none_is() -> None:
    model = classifier()
    for row in rows_of(model, TEXT, None)[:-1]:
        assert TEXT[: row.offsets[-1][1]][-1] in ".!"
        assert len(row.ids) >= model.row_tokens * (1 - GIVE)
    endless = "keeper " * 200
    assert all(len(row.ids) == model.row_tokens for row in rows_of(model, endless, None)[:-1])
    unbroken = "k" * 300
    assert sum(len(row.offsets) for row in rows_of(model, unbroken, None)) > 0


def test_a_score_is_the_mean_over_the_tokens_of_a_word_in_its_row() -> None:
    model = classifier()
    words = words_of(TEXT)
    scores = word_scores(model, TEXT, words, QUESTION)
    assert len(scores) == len(words)
    by_token: dict[int, float] = {}
    for row in rows_of(model, TEXT, QUESTION):  # one by one, nothing padded
        ids = torch.tensor([row.ids])
        part = torch.tensor([[0] * row.ahead + [1] * (len(row.ids) - row.ahead)])
        with torch.inference_mode():
            kept = model.logits(ids, torch.ones_like(ids), part)[0].sigmoid().tolist()
        by_token |= {span[0]: value for span, value in zip(row.offsets, kept[row.ahead :], strict=False)}
    for (start, end), score in zip(words, scores, strict=True):
        own = [value for place, value in by_token.items() if start <= place < end]
        assert score == pytest.approx(sum(own) / len(own), abs=1e-5)


def test_the_question_is_read_and_told_apart_from_the_text() -> None:
    model = classifier()
    words = words_of(TEXT)
    alone, asked, otherwise = (word_scores(model, TEXT, words, query) for query in (None, QUESTION, "Who wrote it?"))
    assert max(abs(a - b) for a, b in zip(alone, asked, strict=True)) > 1e-3
    assert max(abs(a - b) for a, b in zip(asked, otherwise, strict=True)) > 1e-3
    ids = torch.tensor([rows_of(model, TEXT, QUESTION)[0].ids])
    one = torch.ones_like(ids)
    with torch.inference_mode():
        assert not torch.allclose(model.logits(ids, one, one), model.logits(ids, one, 0 * one), atol=1e-3)


def test_one_pass_serves_every_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    pruner = Classifier(BACKBONE, classifier=(model, "x"))
    passes: list[int] = []
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda *a: (passes.append(len(a[0])), logits(*a))[1])
    rows = len(rows_of(model, TEXT, QUESTION))
    for number in range(1, 20):
        pruner.compress(TEXT, QUESTION, ratio=number / 20)
    assert sum(passes) == rows
    pruner.compress(TEXT, "Who wrote it?", ratio=0.5)
    assert sum(passes) > rows


def test_merged_and_saved_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    before = word_scores(model, TEXT, words_of(TEXT), QUESTION)
    model.save_pretrained(tmp_path / "saved")
    monkeypatch.setattr("laconic.methods.pruning.classifier.load_encoder", lambda device: tiny_encoder())
    loaded, version = load_classifier(tmp_path / "saved")
    assert version
    assert word_scores(loaded, TEXT, words_of(TEXT), QUESTION) == pytest.approx(before, abs=1e-4)
    assert Classifier(BACKBONE, classifier=(loaded, version)).version == version
    with pytest.raises(AdapterError, match="no trained word classifier"):
        load_classifier()  # nothing ships for this encoder


def test_a_question_that_fills_the_row_is_refused() -> None:
    with pytest.raises(BudgetError, match="question"):
        word_scores(classifier(), TEXT, words_of(TEXT), "passkey " * 30)
    with pytest.raises(LaconicError, match="window"):
        classifier(row_tokens=65)


def test_a_checkpoint_of_two_labels_reads_no_question(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForTokenClassification(tiny_encoder_config(num_labels=2)).eval()
    model.save_pretrained(tmp_path)
    tiny_wordpieces().save_pretrained(tmp_path)
    loaded, version = load_classifier(tmp_path, "cpu")
    assert version
    assert not loaded.reads_query
    words = words_of("The keeper wrote.")
    scores = word_scores(loaded, "The keeper wrote.", words, QUESTION)
    ids = loaded.tokenizer("The keeper wrote.", add_special_tokens=False)["input_ids"]
    row = torch.tensor([[loaded.tokenizer.cls_token_id, *ids, loaded.tokenizer.sep_token_id]])
    with torch.inference_mode():
        keep = model(row).logits.softmax(-1)[0, 1:-1, 1].tolist()
    pieces = [len(loaded.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in ("The", "keeper")]
    assert scores[0] == pytest.approx(sum(keep[: pieces[0]]) / pieces[0], abs=1e-5)
    pruner = Classifier(BACKBONE, classifier=(loaded, version))
    assert not pruner.query_aware
    assert pruner.compress(TEXT, None, ratio=0.5).text == pruner.compress(TEXT, QUESTION, ratio=0.5).text


def test_folders_that_hold_no_classifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=re.escape("config.json")):
        load_classifier(tmp_path / "none")
    BertModel(tiny_encoder_config()).save_pretrained(tmp_path / "plain")
    tiny_wordpieces().save_pretrained(tmp_path / "plain")
    with pytest.raises(BackboneError, match="no trained classifier"):
        load_classifier(tmp_path / "plain", "cpu")
    BertForTokenClassification(tiny_encoder_config(num_labels=3)).save_pretrained(tmp_path / "three")
    tiny_wordpieces().save_pretrained(tmp_path / "three")
    with pytest.raises(BackboneError, match="3 labels"):
        load_classifier(tmp_path / "three", "cpu")
