"""The reader: three payloads, one answer; asked again; its stream, its bill and its refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_backbone

from laconic.backbone import Backbone
from laconic.core.results import Compressed
from laconic.errors import BudgetError, QuestionError
from laconic.generation import answer as answering
from laconic.generation import prefill as prefilling
from laconic.generation.answer import Reader
from laconic.generation.greedy import Continuation
from laconic.methods.baselines.sink_window import SinkWindow

TEXTS = ["The red fox lives in the old barn.", "A grey owl sleeps above the mill, and bread is baked at dawn."]
BACKBONE = tiny_backbone()


def whole(backbone: Backbone, text: str) -> Compressed:
    count = backbone.count_tokens(text)
    return Compressed(count, count, 1.0, text=text)


def embedded(backbone: Backbone, text: str) -> Compressed:
    count = backbone.count_tokens(text)
    return Compressed(
        count, count, 1.0, embeddings=backbone.embed(torch.tensor(backbone.token_ids(text), dtype=torch.long))
    )


def says(monkeypatch: pytest.MonkeyPatch, ids: Sequence[int]) -> None:
    """Have the decoder say these tokens, whatever it is asked; the rules of stopping stay."""

    def decode(model: Any, rows: Sequence[Any], **options: Any) -> list[Continuation]:
        said: list[int] = []
        for token in ids:
            if token in options["stop_ids"]:
                break
            said.append(token)
            options["on_token"](0, token)
            if options["ends"](token):
                break
        return [Continuation(said, 1, 1) for _ in rows]

    monkeypatch.setattr(answering, "greedy_decode", decode)


@pytest.mark.parametrize("arch", ["llama", "gemma3", "phi3", "gpt2"])
def test_a_document_read_once_answers_as_one_read_each_time_and_again(arch: str) -> None:
    backbone = tiny_backbone(arch)
    reader = Reader(backbone)
    context = whole(backbone, TEXTS[0])
    read = reader.read(context)
    for question in ("Who?", "Where does it live?", "Who?"):
        fresh = reader.answer(context, question, 6)
        again = reader.answer(read, question, 6)
        assert fresh.text == again.text
        assert fresh.peak_cache_tokens == again.peak_cache_tokens


def test_reading_in_pieces_is_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(BACKBONE)
    expected = reader.answer(whole(BACKBONE, TEXTS[1]), "Who?", 8).text
    monkeypatch.setattr(prefilling, "PREFILL_CHUNK", 7)
    assert reader.answer(reader.read(whole(BACKBONE, TEXTS[1])), "Who?", 8).text == expected


def test_embeddings_answer_as_their_text() -> None:
    reader = Reader(BACKBONE)
    a, b = (reader.answer(make(BACKBONE, TEXTS[1]), "Who?", 8) for make in (whole, embedded))
    assert (a.text, a.peak_cache_bytes) == (b.text, b.peak_cache_bytes)
    assert reader.answer(reader.read(embedded(BACKBONE, TEXTS[1])), "Who?", 8).text == a.text


def test_what_has_been_read_is_not_read_again() -> None:
    reader = Reader(BACKBONE)
    read = reader.read(whole(BACKBONE, TEXTS[0]))
    assert reader.read(read) is read
    window = SinkWindow(BACKBONE).compress(TEXTS[1], ratio=0.5)
    assert reader.read(window) is window, "evaluation reads the contexts of every method that needs no question"


def test_a_listener_that_fails_leaves_the_read_document_as_it_was() -> None:
    reader = Reader(BACKBONE)
    read = reader.read(whole(BACKBONE, TEXTS[0]))
    assert read.cache is not None
    before, expected = read.cache.get_seq_length(), reader.answer(read, "Who?", 8)
    assert expected.text, "or nobody would be told of anything"

    def hang_up(piece: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        reader.answer(read, "Who?", 8, on_text=hang_up)
    assert read.cache.get_seq_length() == before
    assert reader.answer(read, "Who?", 8).text == expected.text


def test_a_batch_of_answers_equals_single_answers() -> None:
    reader = Reader(BACKBONE)
    contexts, questions = [whole(BACKBONE, text) for text in TEXTS], ["Who?", "Where does the owl sleep?"]
    alone = [reader.answer(c, q, 8) for c, q in zip(contexts, questions, strict=True)]
    for made in (contexts, [reader.read(context) for context in contexts]):
        together = reader.answer_batch(made, questions, 8)
        assert [a.text for a in together] == [a.text for a in alone]
        assert [a.peak_cache_bytes for a in together] == [a.peak_cache_bytes for a in alone]
    assert reader.answer_batch([], []) == []


def test_the_streamed_pieces_are_the_answer() -> None:
    pieces: list[str] = []
    answer = Reader(BACKBONE).answer(whole(BACKBONE, TEXTS[1]), "Who?", 12, on_text=pieces.append)
    assert "".join(pieces) == answer.text
    assert answer.generated_tokens <= 12


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="aé🦊 \t\n.", max_size=12))
def test_any_text_streams_whole_characters_of_its_first_line(text: str) -> None:
    pieces: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        # byte by byte: a fox is four tokens
        says(patch, [token for byte in text for token in BACKBONE.token_ids(byte)])
        answer = Reader(BACKBONE).answer(whole(BACKBONE, TEXTS[0]), "Who?", 64, on_text=pieces.append)
    assert answer.text == text.partition("\n")[0].strip()
    assert "".join(pieces) == answer.text
    assert all(piece and "\ufffd" not in piece for piece in pieces)


def test_a_token_with_a_line_break_in_it_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    mill, barn = BACKBONE.token_ids("mill"), BACKBONE.token_ids("barn")
    joined = 5  # stands for the ".\nIt" that large vocabularies have
    decode = type(BACKBONE.tokenizer).decode

    def with_joined(self: Any, ids: Sequence[int], **options: Any) -> str:
        return (
            decode(self, mill, **options) + ".\nIt"
            if list(ids) == [*mill, joined]
            else (".\nIt" if list(ids) == [joined] else decode(self, ids, **options))
        )

    monkeypatch.setattr(type(BACKBONE.tokenizer), "decode", with_joined)
    says(monkeypatch, [*mill, joined, *barn])
    answer = Reader(BACKBONE).answer(whole(BACKBONE, TEXTS[0]), "Where?", 64)
    assert answer.text == "mill."
    assert answer.generated_tokens == len(mill) + 1


def test_every_end_token_of_the_model_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    mill, barn, end = BACKBONE.token_ids("mill"), BACKBONE.token_ids("barn"), 7
    monkeypatch.setattr(BACKBONE.model.generation_config, "eos_token_id", [2, end])
    for stop in (2, end):
        says(monkeypatch, [*mill, stop, *barn])
        assert Reader(BACKBONE).answer(whole(BACKBONE, TEXTS[0]), "Where?", 64).text == "mill"


def test_the_question_stands_in_the_template() -> None:
    reader = Reader(BACKBONE, template=" Q {question} A")
    assert reader.prompt_ids(" Who? ") == BACKBONE.token_ids(" Q Who? A")
    assert reader.prompt_tokens("Who?") == len(reader.prompt_ids("Who?"))
    assert "{odd}" in BACKBONE.tokenizer.decode(reader.prompt_ids("What is {odd}?"))


def test_the_bill() -> None:
    answer = Reader(BACKBONE).answer(whole(BACKBONE, TEXTS[0]), "Who?", 5)
    assert set(answer.seconds) == {"prefill", "decode"}
    assert answer.prompt_tokens == Reader(BACKBONE).prompt_tokens("Who?")
    seen = answer.context.context_tokens + answer.prompt_tokens
    assert seen <= answer.peak_cache_tokens <= seen + answer.generated_tokens


def test_what_does_not_fit_is_refused() -> None:
    reader = Reader(BACKBONE)
    with pytest.raises(QuestionError):
        reader.answer(whole(BACKBONE, TEXTS[0]), "  ")
    with pytest.raises(BudgetError, match="window"):
        reader.answer(whole(BACKBONE, TEXTS[0]), "Who?", max_new_tokens=reader.window)
    with pytest.raises(BudgetError, match="window"):
        reader.read(embedded(BACKBONE, "fox " * reader.window))


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_a_question_beyond_the_last_position_is_refused_however_short_the_cache(arch: str) -> None:
    backbone = tiny_backbone(arch)
    reader = Reader(backbone)
    text = backbone.tokenizer.decode(backbone.token_ids(TEXTS[0] * 60)[: backbone.window - 8])
    short = SinkWindow(backbone).compress(text, ratio=0.2)
    assert short.context_tokens < backbone.window // 4
    with pytest.raises(BudgetError, match="window"):
        reader.answer(short, "Who?", 16)
