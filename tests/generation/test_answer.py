"""Decoding from embeddings, and the reader on top of it (RAM invariant 11 among them)."""

from __future__ import annotations

import pytest
import torch
from tiny import ARCHITECTURES, tiny_backbone

from laconic.backbone import Backbone
from laconic.core.results import Compressed
from laconic.errors import BudgetError, QuestionError
from laconic.generation.answer import Reader
from laconic.generation.greedy import greedy_decode

NEVER = frozenset({-1})
TEXTS = ["The red fox lives in the old barn.", "A grey owl sleeps above the mill, and bread is baked at dawn."]


def rows_of(backbone: Backbone) -> list[torch.Tensor]:
    return [backbone.embed(torch.tensor(backbone.token_ids(text))) for text in TEXTS]


def whole(backbone: Backbone, text: str) -> Compressed:
    count = backbone.count_tokens(text)
    return Compressed(count, count, 1.0, text=text)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_padded_batch_says_what_each_row_says_alone(arch: str) -> None:
    backbone = tiny_backbone(arch)
    rows = rows_of(backbone)
    together = greedy_decode(backbone.model, rows, max_new_tokens=12, stop_ids=NEVER)
    alone = [greedy_decode(backbone.model, [row], max_new_tokens=12, stop_ids=NEVER)[0] for row in rows]
    assert together == alone
    assert all(len(row) == 12 for row in together)


def test_it_says_what_generate_says() -> None:
    backbone = tiny_backbone()
    ids = torch.tensor([backbone.token_ids(TEXTS[0])])
    theirs = backbone.model.generate(ids, max_new_tokens=10, do_sample=False, eos_token_id=-1, pad_token_id=0)
    ours = greedy_decode(backbone.model, rows_of(backbone)[:1], max_new_tokens=10, stop_ids=NEVER)
    assert ours[0] == theirs[0, ids.shape[1] :].tolist()


def test_a_row_stops_at_its_stop_token_and_others_go_on() -> None:
    backbone = tiny_backbone()
    free = greedy_decode(backbone.model, rows_of(backbone), max_new_tokens=8, stop_ids=NEVER)
    stop = next(token for token in free[0] if token not in free[1][:4])
    stopped = greedy_decode(backbone.model, rows_of(backbone), max_new_tokens=8, stop_ids=frozenset({stop}))
    assert stopped[0] == free[0][: free[0].index(stop)]
    assert stopped[1] == (free[1][: free[1].index(stop)] if stop in free[1] else free[1])


@pytest.mark.parametrize("arch", ["llama", "gemma3", "phi3"])
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


def test_a_batch_of_answers_equals_single_answers() -> None:
    backbone = tiny_backbone()
    reader = Reader(backbone)
    contexts, questions = [whole(backbone, text) for text in TEXTS], ["Who?", "Where does the owl sleep?"]
    together = reader.answer_batch(contexts, questions, 8)
    alone = [reader.answer(c, q, 8) for c, q in zip(contexts, questions, strict=True)]
    assert [a.text for a in together] == [a.text for a in alone]
    assert [a.peak_cache_bytes for a in together] == [a.peak_cache_bytes for a in alone]


def test_the_streamed_pieces_are_the_answer() -> None:
    backbone = tiny_backbone()
    pieces: list[str] = []
    answer = Reader(backbone).answer(whole(backbone, TEXTS[1]), "Who?", 12, on_text=pieces.append)
    assert "".join(pieces).strip() == answer.text
    assert answer.generated_tokens <= 12


def test_the_bill_counts_the_cache_that_was_there() -> None:
    backbone = tiny_backbone()
    reader = Reader(backbone)
    context = whole(backbone, TEXTS[0])
    answer = reader.answer(context, "Who?", 5)
    tokens = context.document_tokens + answer.prompt_tokens + max(0, answer.generated_tokens - 1)
    assert answer.peak_cache_tokens == tokens
    read = reader.read(context)
    assert read.cache is not None
    measured = sum(layer.keys.nbytes + layer.values.nbytes for layer in read.cache.layers)
    assert answer.peak_cache_bytes == measured // context.document_tokens * tokens


def test_what_does_not_fit_is_refused() -> None:
    backbone = tiny_backbone()
    reader = Reader(backbone)
    with pytest.raises(QuestionError):
        reader.answer(whole(backbone, TEXTS[0]), "  ")
    with pytest.raises(BudgetError, match="window"):
        reader.answer(whole(backbone, TEXTS[0]), "Who?", max_new_tokens=backbone.window)
