"""Compression word by word (PoC's specification, invariants 9 and 10)."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_backbone

from laconic.core.segments import Range
from laconic.errors import BudgetError, DocumentError, LaconicError, QuestionError
from laconic.methods.pruning import perplexity
from laconic.methods.pruning.perplexity import Contrastive, SelfInformation, surprise
from laconic.methods.pruning.protect import PROTECTED, protected_words
from laconic.methods.pruning.words import WordPruner, rendered, words_of
from laconic.methods.roles import Compressor

BACKBONE = tiny_backbone("llama")
TEXT = (
    "The mill stood by the river. Anna Berg bought it in 1887 for 1,200 crowns,\nand sold it again.  "
    "“Nobody grinds here,” she said; see https://mill.example/log?x=1 or call open_gate(3).\n\n日本語の文章。 "
) * 3


class ByChance(WordPruner):
    """Scores that follow from the text alone."""

    passes = 0

    def scores(self, text: str, words: Sequence[Range], query: str | None) -> Sequence[float]:
        self.passes += 1
        draw = random.Random(text)
        return [draw.choice([0.0, draw.random()]) for _ in words]  # with ties


def kept(compressed) -> list[Range]:  # type: ignore[no-untyped-def]
    found = []
    for span in compressed.evidence:
        found += [(span.start + a, span.start + b) for a, b in words_of(span.text)]
    return found


def test_it_is_a_compressor() -> None:
    assert isinstance(ByChance(BACKBONE), Compressor)


def test_whole_is_byte_for_byte_and_needs_no_scores() -> None:
    pruner = ByChance(BACKBONE)
    for text in (TEXT, "  a\t b\r\n", "x"):
        found = pruner.compress(text, ratio=1.0)
        assert found.text == text
        assert found.delivered_ratio == 1
    assert pruner.compress(TEXT, budget=100_000).text == TEXT
    assert pruner.passes == 0


def test_a_text_is_scored_once_for_all_ratios() -> None:
    pruner = ByChance(BACKBONE)
    for number in range(1, 30):
        pruner.compress(TEXT, ratio=number / 30)
    assert pruner.passes == 1


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="ab1. \n-é日本", min_size=1, max_size=120), st.integers(1, 99), st.integers(1, 99))
def test_ratios_are_met_within_a_word_and_sets_are_nested(text: str, one: int, other: int) -> None:
    if not text.strip():
        return
    pruner = ByChance(BACKBONE)
    low, high = sorted((one, other))
    stronger, gentler = (pruner.compress(text, ratio=percent / 100) for percent in (low, high))
    assert set(kept(stronger)) <= set(kept(gentler))
    for percent, found in ((low, stronger), (high, gentler)):
        assert found.text
        assert found.context_tokens == BACKBONE.count_tokens(found.text)
        words = words_of(text)
        places = [words.index(word) for word in kept(found)]
        assert places == sorted(places)
        if found.text == text:
            continue
        assert found.text == rendered(text, words, places)
        allowed = percent / 100 * found.document_tokens
        assert found.context_tokens <= allowed or len(places) == 1
        ranking = sorted(range(len(words)), key=lambda i: (-pruner._last[3][i], i))  # type: ignore[index]
        assert set(ranking[: len(places)]) == set(places)
        if len(places) + 1 < len(words):
            more = rendered(text, words, ranking[: len(places) + 1])
            assert BACKBONE.count_tokens(more) > int(allowed + 1e-9)


def test_a_budget_is_never_exceeded() -> None:
    pruner = ByChance(BACKBONE)
    tokens = BACKBONE.count_tokens(TEXT)
    for budget in (20, 50, tokens // 2, tokens - 1):
        assert pruner.compress(TEXT, budget=budget).context_tokens <= budget
    with pytest.raises(BudgetError, match="single word"):
        pruner.compress("incomprehensibilities and more of them", budget=1)
    for slip in ({"ratio": 0.0}, {"ratio": 1.5}, {"budget": 0}, {}, {"ratio": 0.5, "budget": 9}):
        with pytest.raises(BudgetError):
            pruner.compress(TEXT, **slip)  # type: ignore[arg-type]
    with pytest.raises(DocumentError):
        pruner.compress(" \n ", ratio=0.5)


def test_gaps_leave_a_space_or_the_end_of_a_line() -> None:
    text = "one  two\tthree\nfour five"
    words = words_of(text)
    assert rendered(text, words, [0, 1, 2]) == "one  two\tthree"
    assert rendered(text, words, [0, 2]) == "one three"
    assert rendered(text, words, [1, 3]) == "two\nfour"
    assert rendered(text, words, [4, 0]) == "one\nfive"
    unspaced = "日本 ab語"
    assert [unspaced[a:b] for a, b in words_of(unspaced)] == ["日", "本", "ab", "語"]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("numbers", ["1887", "1,200", "https://mill.example/log?x=1", "open_gate(3)."]),
        ("names", ["Anna", "Berg"]),
        ("quotes", ["“Nobody", "grinds", "here,”"]),
        ("code", ["https://mill.example/log?x=1", "open_gate(3)."]),
        ("urls", ["https://mill.example/log?x=1"]),
    ],
)
def test_what_is_protected_stays(kind: str, wanted: list[str]) -> None:
    words = words_of(TEXT)
    safe = protected_words(TEXT, words, [kind])
    said = [TEXT[a:b] for (a, b), one in zip(words, safe, strict=True) if one]
    assert set(said) == set(wanted)
    found = ByChance(BACKBONE, [kind]).compress(TEXT, ratio=0.02)
    assert kept(found) == [word for word, one in zip(words, safe, strict=True) if one]
    assert found.notes == [f"{len(said)} of {len(words)} words are protected"]
    with pytest.raises(BudgetError, match="protected"):
        ByChance(BACKBONE, [kind]).compress(TEXT, budget=1)


def test_names_of_any_alphabet_with_capitals_are_protected() -> None:
    text = "We met Émile there, in Žilina, and Анна Каренина too. Österreichs Örn came, öl did not."
    words = words_of(text)
    safe = protected_words(text, words, ["names"])
    said = {text[a:b] for (a, b), one in zip(words, safe, strict=True) if one}
    assert said == {"Émile", "Žilina,", "Анна", "Каренина", "Österreichs", "Örn"}


def test_what_stands_right_behind_is_not_protected() -> None:
    text = "“ab”語"
    assert protected_words(text, words_of(text), ["quotes"]) == [True, False]


def test_a_kind_that_is_none_is_refused() -> None:
    with pytest.raises(LaconicError, match="numbers"):
        ByChance(BACKBONE, ["dates"])
    assert ByChance(BACKBONE, PROTECTED).compress("1 2 3 4", ratio=0.25).text == "1 2 3 4"  # nothing may be cut


# --- scores of the backbone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [[], [5, 6, 7]])
def test_surprise_is_that_of_a_plain_forward_pass(prefix: list[int]) -> None:
    ids = BACKBONE.token_ids(TEXT)[:60]  # one row, one piece
    found = surprise(BACKBONE, ids, prefix)
    logits = BACKBONE.model(torch.tensor([[*prefix, *ids]])).logits[0].float()
    wanted = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor([*prefix, *ids])[1:], reduction="none")
    torch.testing.assert_close(found[0 if prefix else 1 :], wanted[len(prefix) - 1 if prefix else 0 :].detach())
    if not prefix:
        assert found[0] == pytest.approx(wanted.mean().item())


def test_pieces_of_a_long_text_have_what_is_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "PIECE", 10)
    monkeypatch.setattr(perplexity, "BEFORE", 4)
    monkeypatch.setattr(perplexity, "ROWS", 2)
    ids = BACKBONE.token_ids(TEXT)[:57]
    found = surprise(BACKBONE, ids)
    for start in range(0, 57, 10):
        before = max(0, start - 4)
        row = torch.tensor([ids[before : start + 10]])
        logits = BACKBONE.model(row).logits[0].float()
        wanted = torch.nn.functional.cross_entropy(logits[:-1], row[0, 1:], reduction="none").detach()
        own = min(10, 57 - start) if start else 9
        torch.testing.assert_close(found[start + (0 if start else 1) : start + 10], wanted[-own:])


def test_words_have_the_mean_of_their_tokens_and_questions_matter() -> None:
    words = words_of(TEXT)
    pruner = SelfInformation(BACKBONE)
    scores = pruner.scores(TEXT, words, None)
    encoded = BACKBONE.tokenizer(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    values = surprise(BACKBONE, encoded["input_ids"]).tolist()
    for (start, end), score in zip(words, scores, strict=True):
        own = [value for value, (a, b) in zip(values, encoded["offset_mapping"], strict=True) if a < end and b > start]
        assert score == pytest.approx(sum(own) / len(own), abs=1e-5)
    contrast = Contrastive(BACKBONE)
    texts = {contrast.compress(TEXT, question, ratio=0.3).text for question in ("Who bought it?", "What is open?")}
    assert len(texts) == 2
    with pytest.raises(QuestionError):
        contrast.compress(TEXT, ratio=0.3)
    with pytest.raises(QuestionError, match="no room"):
        contrast.compress(TEXT, "why " * BACKBONE.window, ratio=0.3)
    assert pruner.compress(TEXT, "Who?", ratio=0.3).text == pruner.compress(TEXT, ratio=0.3).text


@pytest.mark.parametrize("text", ["\n" * 40 + "yes no", "  hello \n", "one two" + " " * 40])
def test_white_space_around_a_text_takes_no_words_place(text: str) -> None:
    assert ByChance(BACKBONE).compress(text, ratio=0.5).text == text.strip()


def test_where_all_words_are_protected_nothing_is_cut() -> None:
    text = "  1 2 3 4\r\n"
    assert ByChance(BACKBONE, protect=["numbers"]).compress(text, ratio=0.5).text == text
