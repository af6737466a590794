"""Words by a token classifier: rows, scores, questions in front, checkpoints of LLMLingua-2's kind."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_backbone, tiny_encoder, tiny_encoder_config, tiny_wordpieces
from transformers import BertForTokenClassification, BertModel

from laconic.errors import AdapterError, BackboneError, LaconicError, QuestionError
from laconic.methods.pruning.checkpoint import Checkpoint
from laconic.methods.pruning.classifier import Classifier, ClassifierConfig, WordClassifier, load_classifier
from laconic.methods.pruning.relevance import LONGEST, SIGNS, sentence_numbers, signs
from laconic.methods.pruning.scoring import GIVE, rows_of, word_scores
from laconic.methods.pruning.summary import SHARES, SIZE, summary
from laconic.methods.pruning.words import words_of
from laconic.methods.roles import Telling

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


def test_every_token_is_in_one_row_between_its_ends() -> None:
    tokenizer = tiny_wordpieces()
    rows = rows_of(tokenizer, TEXT, 40)
    whole = tokenizer(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    assert len(rows) > 3
    assert [token for row in rows for token in row.ids[1:-1]] == whole["input_ids"]
    assert [span for row in rows for span in row.offsets] == whole["offset_mapping"]
    for row in rows:
        assert row.ids[0] == tokenizer.cls_token_id
        assert row.ids[-1] == tokenizer.sep_token_id
        assert len(row.ids) == len(row.offsets) + 2 <= 40


def test_rows_end_with_sentences_where_one_is_near_and_are_full_where_none_is() -> None:
    tokenizer = tiny_wordpieces()
    for row in rows_of(tokenizer, TEXT, 40)[:-1]:
        assert TEXT[: row.offsets[-1][1]][-1] in ".!"
        assert len(row.ids) >= 40 * (1 - GIVE)
    assert all(len(row.ids) == 40 for row in rows_of(tokenizer, "keeper " * 200, 40)[:-1])
    assert sum(len(row.offsets) for row in rows_of(tokenizer, "k" * 300, 40)) > 0


@pytest.mark.parametrize("query", [None, QUESTION])
def test_a_score_is_the_mean_over_the_tokens_of_a_word(query: str | None) -> None:
    model = classifier()
    words = words_of(TEXT)
    scores = word_scores(model, TEXT, words, query)
    assert len(scores) == len(words)
    hidden, offsets = [], []
    for row in rows_of(model.tokenizer, TEXT, model.config.row_tokens):  # one by one, nothing padded
        with torch.inference_mode():
            ids = torch.tensor([row.ids])
            states = model.body(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, 1:-1]
        hidden.append(states)
        offsets += row.offsets
    read = model.read([TEXT])[0][0]
    torch.testing.assert_close(read.hidden, torch.cat(hidden), atol=1e-4, rtol=1e-4)
    with torch.inference_mode():
        kept = model.logits(read, model.read_query([query])[0] if query else None).sigmoid().tolist()
    for (start, end), score in zip(words, scores, strict=True):
        own = [value for (a, _), value in zip(offsets, kept, strict=True) if start <= a < end]
        assert score == pytest.approx(sum(own) / len(own), abs=1e-5)


def test_the_question_counts() -> None:
    model = classifier()
    words = words_of(TEXT)
    alone, asked, otherwise = (word_scores(model, TEXT, words, query) for query in (None, QUESTION, "Who wrote it?"))
    assert max(abs(a - b) for a, b in zip(alone, asked, strict=True)) > 1e-3
    assert max(abs(a - b) for a, b in zip(asked, otherwise, strict=True)) > 1e-3


def test_one_reading_serves_every_ratio_and_every_question(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    pruner = Classifier(BACKBONE, classifier=(model, "x"))
    read: list[str] = []
    reading = model.read
    monkeypatch.setattr(model, "read", lambda texts: (read.extend(texts), reading(texts))[1])
    for number in range(1, 20):
        pruner.compress(TEXT, QUESTION, ratio=number / 20)
    pruner.compress(TEXT, "Who wrote it?", ratio=0.5)
    pruner.compress(TEXT, None, ratio=0.5)
    assert read == [TEXT]
    pruner.compress(TEXT + "More.", QUESTION, ratio=0.5)
    assert len(read) == 2


def test_sentences_are_counted_through_the_text_and_cut_when_too_long() -> None:
    text = "One two. Three four!\nFive\n\nSix seven"
    offsets = [found.span() for found in re.finditer(r"\w+|[.!]", text)]
    assert sentence_numbers(text, offsets) == [0, 0, 0, 1, 1, 1, 2, 3, 3]
    long = [(2 * place, 2 * place + 1) for place in range(2 * LONGEST + 3)]
    numbers = sentence_numbers("a " * len(long), long)
    assert numbers == [place // LONGEST for place in range(len(long))]
    assert sentence_numbers("", []) == []


def test_signs_are_what_they_say() -> None:
    torch.manual_seed(0)
    sentence = torch.tensor([0, 0, 1, 1, 1, 2])
    hidden, asked = torch.randn(6, 8), torch.randn(3, 8)
    ids, asked_ids = [5, 6, 7, 5, 8, 9], [5, 7, 4]
    found = signs(hidden, sentence, ids, asked, asked_ids)
    assert found.shape == (6, SIGNS)
    cosine = torch.nn.functional.cosine_similarity
    near = [float(cosine(hidden[sentence == s].mean(0), asked.mean(0), dim=0)) for s in range(3)]
    for place in range(6):
        s = int(sentence[place])
        assert float(found[place, 0]) == pytest.approx(near[s], abs=1e-5)
        around = [near[other] for other in (s - 1, s + 1) if 0 <= other < 3]
        assert float(found[place, 1]) == pytest.approx(sum(around) / len(around), abs=1e-5)
        best = [max(float(cosine(h, q, dim=0)) for h in hidden[sentence == s]) for q in asked]
        assert float(found[place, 2]) == pytest.approx(sum(best) / 3, abs=1e-5)
        assert float(found[place, 4]) == pytest.approx(
            max(float(cosine(hidden[place], q, dim=0)) for q in asked), abs=1e-5
        )
    shared = found[[0, 2, 5], 3].tolist()
    assert shared[1] > shared[0] > shared[2] == 0  # 7, which is rarer than 5, is in the second alone
    one = signs(hidden[:2], sentence[:2], ids[:2], asked, asked_ids)
    assert float(one[0, 1]) == 0  # no neighbours


def test_merged_and_saved_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    before = word_scores(model, TEXT, words_of(TEXT), QUESTION)
    model.save_pretrained(tmp_path / "saved", dtype=torch.bfloat16)  # as recipes do
    monkeypatch.setattr("laconic.methods.pruning.classifier.load_encoder", lambda device: tiny_encoder())
    loaded, version = load_classifier(tmp_path / "saved")
    assert version
    assert word_scores(loaded, TEXT, words_of(TEXT), QUESTION) == pytest.approx(before, abs=0.05)
    assert Classifier(BACKBONE, classifier=(loaded, version)).version == version
    with pytest.raises(AdapterError, match="no trained word classifier"):
        load_classifier()  # nothing ships for this encoder


def test_it_reads_in_bfloat16_where_that_is_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier().save_pretrained(tmp_path / "saved")
    monkeypatch.setattr("laconic.methods.pruning.classifier.load_encoder", lambda device: tiny_encoder())
    found = {}
    for fast in (True, False):
        monkeypatch.setattr("laconic.backbone.cpu_has_fast_bf16", lambda fast=fast: fast)
        loaded, version = load_classifier(tmp_path / "saved", "cpu")
        assert isinstance(loaded, WordClassifier)
        dtypes = {name.split(".")[0]: p.dtype for name, p in loaded.named_parameters()}
        assert dtypes.pop("body") == (torch.bfloat16 if fast else torch.float32)
        assert set(dtypes.values()) == {torch.float32}  # what weighs the states
        assert {p.dtype for p in loaded.backbone.model.parameters()} == {torch.float32}  # the encoder is left as it was
        assert loaded.version == version
        found[fast] = word_scores(loaded, TEXT, words_of(TEXT), QUESTION)
    assert found[True] != found[False]
    assert found[True] == pytest.approx(found[False], abs=0.05)


def test_questions_longer_than_a_row_and_empty_ones_are_refused() -> None:
    model = classifier()
    scores = word_scores(model, TEXT, words_of(TEXT), "passkey " * 10)
    assert all(0 <= score <= 1 for score in scores)
    with pytest.raises(
        QuestionError, match=f"300 tokens is more than the classifier reads, {model.config.row_tokens - 2}"
    ):
        word_scores(model, TEXT, words_of(TEXT), "passkey " * 300)
    with pytest.raises(QuestionError):
        word_scores(classifier(), TEXT, words_of(TEXT), " ")
    with pytest.raises(LaconicError, match="window"):
        classifier(row_tokens=65)


def test_characters_that_the_encoder_drops_are_words_of_no_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    rows = rows_of
    kept = "laconic.methods.pruning.classifier.rows_of"
    monkeypatch.setattr(kept, lambda tokenizer, text, most: [] if "\u200b" in text else rows(tokenizer, text, most))
    assert word_scores(model, "\u200b \u200b", [(0, 1), (2, 3)], QUESTION) == [0.0, 0.0]
    assert word_scores(model, "\u200b \u200b", [(0, 1), (2, 3)], None) == [0.0, 0.0]
    with pytest.raises(QuestionError, match="no character"):
        word_scores(model, TEXT, words_of(TEXT), "\u200b")
    read = model.read([TEXT, "\u200b"])
    assert read[1][0].hidden.shape == (0, 32)


def test_a_checkpoint_of_two_labels_reads_no_question(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForTokenClassification(tiny_encoder_config(num_labels=2)).eval()
    model.save_pretrained(tmp_path)
    tiny_wordpieces().save_pretrained(tmp_path)
    loaded, version = load_classifier(tmp_path, "cpu")
    assert isinstance(loaded, Checkpoint)
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


def test_a_summary_is_of_the_words_and_costs_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    words = words_of("aa bb cc dd " * 25)
    clear = summary(words, [0.9] * 3 + [0.01] * 97)
    spread = summary(words, [0.3] * 100)
    assert len(clear) == len(spread) == SIZE
    assert all(one > other for one, other in zip(clear[: len(SHARES)], spread[: len(SHARES)], strict=True))
    assert spread[: len(SHARES)] == pytest.approx([4 * (share - 0.5) for share in SHARES])  # even: so much, so much
    assert clear[len(SHARES)] == pytest.approx(np.log(9) / 4)
    assert spread[len(SHARES) :] == pytest.approx([np.log(3 / 7) / 4] * 3)
    assert summary([], []) == [0.0] * SIZE
    uneven = summary([(0, 40), (41, 43), (44, 46)], [0.1, 0.4, 0.5])  # the likely words are 4 of 44 characters
    assert uneven[0] == pytest.approx(4 * (0.5 * 0.04 * 44 / 2 - 0.5))  # of 1.76 characters, the likeliest word's
    assert uneven[3] > 4 * (0.9 - 0.5)  # a quarter of the characters: all of those two, and a part of the third
    assert np.isfinite(summary(words_of("one"), [1.0])).all()
    made = Classifier(BACKBONE, (), (classifier(), "v"))
    assert isinstance(made, Telling)
    told = made.features(TEXT, QUESTION)
    assert told == summary(words_of(TEXT), made.scores(TEXT, words_of(TEXT), QUESTION))
    assert told != made.features(TEXT, "Who wrote it?")
    made.compress(TEXT, QUESTION, ratio=0.5)
    monkeypatch.setattr(Classifier, "scores", lambda *_: pytest.fail("a second look"))
    assert made.features(TEXT, QUESTION) == told
