"""Answering from a memory: what the reader adds to the stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from comets import NO_MEMORY, comet, outputs
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from laconic.core.results import Compressed
from laconic.errors import BackboneError, DocumentError, LaconicError
from laconic.methods.comet import reader as reader_module
from laconic.methods.comet.memory import LayerMemory, LayerState, Memory
from laconic.methods.comet.reader import CoMeTReader, Whole
from laconic.methods.comet.stream import ChunkStream
from laconic.train.examples import extended

TEXT = "The lighthouse keeper wrote down the weather every morning, and the number of ships that passed. "
QUESTIONS = ["Who wrote?", "What is the passkey, and what is green?"]


def reader(**changes: object) -> CoMeTReader:
    made = CoMeTReader(comet(chunk_tokens=64, stride=8, fifo_slots=12, **changes))
    made.stop_ids = frozenset({-1})  # a random model stops anywhere
    return made


def context(made: CoMeTReader, text: str) -> Compressed:
    return Whole(made.backbone).compress(text)


def by_hand(made: CoMeTReader, text: str, question: str, new: int) -> list[int]:
    """Greedy decoding that computes everything anew for each token, the plan as training has it."""
    full, prompt = made.comet.config.chunk_tokens, made.prompt_ids(question)
    ids = made.backbone.token_ids(text)
    plan = extended([0], len(ids), full)
    if plan[-1] + len(prompt) > full:
        plan = [*plan, 0]
    ids, plan, said = [*ids, *prompt], extended(plan, len(prompt), full), []
    for _ in range(new):
        (logits,), _ = outputs(made.comet, [torch.tensor(ids)], [plan])
        said.append(int(logits[-1].argmax()))
        if made.breaks_line(said[-1]):
            break
        ids, plan = [*ids, said[-1]], extended(plan, 1, full)
    return said


def test_the_bill_of_a_text_that_was_read_before_has_its_reading() -> None:
    """Answering reads too, if there is anything left: one must not take the other's place in the bill."""
    made = reader()
    read = replace(made.read(context(made, TEXT)), seconds={"encode": 1.0, "read": 100.0})
    answer = made.answer(read, QUESTIONS[0], 2)
    assert set(answer.stages) == {"encode", "read", "prefill", "decode"}
    assert answer.stages["encode"] == 1
    assert answer.stages["read"] == pytest.approx(100 + answer.seconds["read"])


@pytest.mark.parametrize("repeats", [1, 2, 3, 4, 5])
@torch.no_grad()
def test_an_answer_is_what_training_would_see(repeats: int) -> None:
    """Invariant 13 through the reader: what does not fit begins a chunk, and an answer goes on in the next one."""
    made = reader()
    text = TEXT * repeats + "x" * repeats
    for question in QUESTIONS:
        said = by_hand(made, text, question, 40)
        answer = made.answer(context(made, text), question, max_new_tokens=40)
        assert answer.generated_tokens in (len(said), len(said) - 1), "a line break may not count"
        spoken = made.backbone.tokenizer.decode(said, skip_special_tokens=True).partition("\n")[0].strip()
        assert answer.text == spoken


def words_of(made: CoMeTReader, tokens: int) -> str:
    """A text of so many tokens."""
    text = TEXT * 10
    while len(made.backbone.token_ids(text)) > tokens:
        text = text[:-1]
    assert len(made.backbone.token_ids(text)) == tokens
    return text


@pytest.mark.parametrize("room", [-1, 0, 1])
@torch.no_grad()
def test_a_question_that_just_fits_stays_in_its_chunk(room: int) -> None:
    made = reader()
    tokens = 64 - len(made.prompt_ids(QUESTIONS[0])) - room
    for text in (words_of(made, tokens), words_of(made, tokens + 64)):
        said = by_hand(made, text, QUESTIONS[0], 12)
        answer = made.answer(context(made, text), QUESTIONS[0], max_new_tokens=12)
        spoken = made.backbone.tokenizer.decode(said, skip_special_tokens=True).partition("\n")[0].strip()
        assert answer.text == spoken


@torch.no_grad()
def test_the_peak_is_that_of_the_longest_chunk() -> None:
    """Keys of the memory, the open chunk, the question and the answer, with the compression tokens between."""
    made = reader()
    made.breaks_line = lambda token: False  # type: ignore[method-assign]
    text = words_of(made, 64 + 10)
    prompt = len(made.prompt_ids(QUESTIONS[0]))
    for new in (1, 9, 17):
        fed = 10 + prompt + new - 1  # the last word is not fed
        assert fed < 64
        answer = made.answer(context(made, text), QUESTIONS[0], max_new_tokens=new)
        assert answer.generated_tokens == new
        assert answer.peak_cache_tokens == 3 + 8 + fed + (fed - 1) // 8
        assert answer.peak_cache_bytes > 0


@torch.no_grad()
def test_batches_answer_as_one_by_one_and_memories_last() -> None:
    made = reader()
    texts = [TEXT * 3, TEXT, TEXT * 2 + "The lamp is green. "]
    asked = [QUESTIONS[0], QUESTIONS[1], QUESTIONS[1]]
    together = made.answer_batch([context(made, text) for text in texts], asked, max_new_tokens=30)
    alone = [made.answer(context(made, t), q, max_new_tokens=30) for t, q in zip(texts, asked, strict=True)]
    assert [a.text for a in together] == [a.text for a in alone]
    read = made.read(context(made, texts[0]))
    again = [made.answer(read, question, max_new_tokens=30).text for question in (*QUESTIONS, *QUESTIONS)]
    assert again[:2] == again[2:], "a question leaves no trace in the memory"
    assert again[0] == alone[0].text


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
@torch.no_grad()
def test_pieces_are_the_whole(size: int) -> None:
    made, text = reader(), TEXT * 8
    whole = made.read(context(made, text)).state
    assert isinstance(whole, ChunkStream)
    assert_same(made.read_pieces(text[n : n + size] for n in range(0, len(text), size)), whole)


def test_half_characters_are_refused_and_what_was_read_stays() -> None:
    made = reader()
    before = made.read_pieces([TEXT])
    held = before.held[0]
    with pytest.raises(DocumentError, match="half characters"):
        made.read_pieces([TEXT, "and \ud83d alone"], before)
    assert before.held[0] == held
    made.read_pieces([TEXT], before)


@pytest.mark.parametrize("tokens", [63, 64, 65, 128])
@torch.no_grad()
def test_pieces_that_end_with_a_portion_leave_their_last_chunk_open(
    monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    monkeypatch.setattr(reader_module, "PORTION_CHUNKS", 1)
    made = reader()
    text = words_of(made, tokens)
    whole = made.read(context(made, text)).state
    assert isinstance(whole, ChunkStream)
    found = made.read_pieces([text])
    assert found.open == whole.open == [(tokens - 1) % 64 + 1]
    assert_same(found, whole)


@torch.no_grad()
def test_reading_goes_on() -> None:
    made, more = reader(), "The lamp is green. " * 30
    first = made.read_pieces([TEXT * 3])
    before = int(first.memory.counts.tokens)
    second = made.read_pieces([more], first)
    assert int(first.memory.counts.tokens) == before, "what was read before can be asked still"
    whole = ChunkStream(made.comet)
    whole.feed([torch.tensor([*made.backbone.token_ids(TEXT * 3), *made.backbone.token_ids(more)])])
    assert_same(second, whole)


def assert_same(one: ChunkStream, other: ChunkStream) -> None:
    assert torch.equal(one.tail[0], other.tail[0])
    for mine, yours in zip(one.memory.layers, other.memory.layers, strict=True):
        torch.testing.assert_close(mine.queue, yours.queue, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mine.slots, yours.slots, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_state_that_is_not_finite_gives_no_answer() -> None:
    made = reader()
    read = made.read(context(made, TEXT * 8))
    stream = read.state
    assert isinstance(stream, ChunkStream)
    memory = stream.memory
    spoilt = LayerState(memory.layers[0].slots * float("nan"), memory.layers[0].queue)
    bad = ChunkStream(made.comet, Memory((spoilt, *memory.layers[1:]), memory.counts))
    with pytest.raises(BackboneError, match="not finite"):
        made.answer(replace(read, state=bad), QUESTIONS[0])


@torch.no_grad()
def test_a_state_that_spoils_while_writing_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that fills up is folded into the memory, and that may come to anything too."""
    made = CoMeTReader(comet(chunk_tokens=40, fifo_slots=12))
    made.stop_ids = frozenset({-1})
    monkeypatch.setattr(made, "breaks_line", lambda token: False)
    read = made.read(context(made, TEXT))
    real, decoding = LayerMemory.entries, reader_module.continue_one_by_one

    def spoilt(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(LayerMemory, "entries", lambda self, outputs: real(self, outputs) * float("nan"))
        return decoding(*args, **kwargs)

    monkeypatch.setattr(reader_module, "continue_one_by_one", spoilt)
    with pytest.raises(BackboneError, match="not finite"):
        made.answer(read, QUESTIONS[0], max_new_tokens=60)


@torch.no_grad()
def test_a_row_that_is_done_holds_up_no_other() -> None:
    """Nor is it fed what it does not say: it would move the others' chunks and memories."""
    made = CoMeTReader(comet(chunk_tokens=40, fifo_slots=12))
    made.stop_ids = frozenset({-1})
    texts = [TEXT, TEXT * 2, TEXT + "The lamp is green. "]

    def answers(stop: frozenset[int]) -> list[tuple[str, int]]:
        made.stop_ids = stop
        together = made.answer_batch([context(made, text) for text in texts], [QUESTIONS[0]] * 3, max_new_tokens=60)
        alone = [made.answer(context(made, text), QUESTIONS[0], max_new_tokens=60) for text in texts]
        assert [(a.text, a.generated_tokens) for a in together] == [(a.text, a.generated_tokens) for a in alone]
        return [(a.text, a.generated_tokens) for a in together]

    for stop in range(made.comet.decoder.config.vocab_size):
        lengths = {tokens for _, tokens in answers(frozenset({stop}))}
        if len(lengths) == 3:
            return
    pytest.fail("no token ends the rows at different times")


def test_nothing_read_gives_no_answer() -> None:
    made = reader()
    nothing = made.resume(made.read_pieces([]), context(made, TEXT))
    with pytest.raises(DocumentError, match="Nothing was read"):
        made.answer(nothing, QUESTIONS[0])


def test_what_another_read_is_not_answered() -> None:
    mine, other = reader(), reader()
    with pytest.raises(DocumentError, match="another reader"):
        mine.answer(other.read(context(other, TEXT)), QUESTIONS[0])


def test_a_reader_has_a_memory() -> None:
    with pytest.raises(LaconicError, match="forget"):
        CoMeTReader(comet(**NO_MEMORY))


@pytest.mark.parametrize("size", [3, 50])
@torch.no_grad()
def test_pieces_are_the_whole_where_texts_begin_with_a_space(size: int) -> None:
    """Tokenizers of SentencePiece put one in front of every text, and so of every piece."""
    made, text = reader(), TEXT * 8
    whole = Tokenizer.from_str(made.backbone.tokenizer.backend_tokenizer.to_str())
    whole.normalizer = normalizers.Prepend(" ")
    made.backbone.tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole, pad_token="<pad>", eos_token="</s>")
    ids = made.backbone.token_ids(text)
    assert made.backbone.token_ids("a b") == made.backbone.token_ids("a") + made.backbone.token_ids("b")
    stream = made.read_pieces(text[n : n + size] for n in range(0, len(text), size))
    assert int(stream.memory.counts.tokens) + stream.open[0] == len(ids)
    assert stream.tail[0].tolist() == ids[int(stream.memory.counts.tokens) :]
