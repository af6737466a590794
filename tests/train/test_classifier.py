"""What the word classifier is taught: labels from questions whose answers are marked."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_encoder
from torch.nn.functional import binary_cross_entropy_with_logits

from laconic.data.schema import QAItem
from laconic.methods.pruning.classifier import ClassifierConfig, WordClassifier
from laconic.train.classifier import ClassifierStage, Excerpt, Excerpts, Shares, asked_about, needed

DOCUMENT = (
    "The mill stood by the river. Anna Berg bought it in 1887. Nobody grinds there today.\n\n"
    "Bread is baked at dawn. The baker is called Otto Weiss; he buys flour in town. Cats sleep there.\n\n"
    "The river floods every spring. Boats are moored at the old bridge. A bell rings at noon."
)


def item(number: int, question: str, answer: str) -> QAItem:
    start = DOCUMENT.index(answer)
    return QAItem(str(number), DOCUMENT, question, [answer], [(start, start + len(answer))], "one")


ITEMS = [
    item(1, "Who bought the mill?", "Anna Berg"),
    item(2, "When was it bought?", "1887"),
    item(3, "What is the baker called?", "Otto Weiss"),
    item(4, "Where are boats moored?", "the old bridge"),
]
WHOLE = (len(DOCUMENT), len(DOCUMENT))


def marked(excerpt: Excerpt) -> str:
    """What is needed of it, in order."""
    own = bytearray(len(excerpt.text))
    for start, end in excerpt.needed:
        own[start:end] = b"\1" * (end - start)
    return "".join(char if mark else "|" for char, mark in zip(excerpt.text, own, strict=True))


def test_with_a_question_the_sentences_that_answer_it_are_needed_and_no_more() -> None:
    excerpts = Excerpts(ITEMS, 40, WHOLE, Shares(1.0, 0.0), 0)(0)
    wanted = {
        "Who bought the mill?": "Anna Berg bought it in 1887.",
        "When was it bought?": "Anna Berg bought it in 1887.",
        "What is the baker called?": "The baker is called Otto Weiss; he buys flour in town.",
        "Where are boats moored?": "Boats are moored at the old bridge.",
    }
    assert {one.query for one in excerpts} == set(wanted)
    for one in excerpts:
        assert one.query is not None
        sentence = wanted[one.query]
        if sentence in one.text:
            assert marked(one).strip("|").strip() == sentence
        else:  # the excerpt begins in the middle of it
            assert sentence.endswith(marked(one).strip("|").strip())


def test_an_excerpt_that_does_not_bear_the_answer_needs_nothing() -> None:
    excerpts = Excerpts(ITEMS, 60, (60, 80), Shares(0.0, 1.0), 0)(0)
    empty = [one for one in excerpts if not one.needed]
    assert empty
    for one in excerpts:
        assert one.query is not None
        answer = next(i.answers[0] for i in ITEMS if i.question == one.query)
        if not one.needed:
            assert answer not in one.text


def test_excerpts_around_the_evidence_hold_it_and_whole_words() -> None:
    for one in Excerpts(ITEMS, 60, (60, 90), Shares(1.0, 0.0), 0)(3):
        answer = next(i.answers[0] for i in ITEMS if i.question == one.query)
        assert one.needed
        assert answer in one.text
        assert one.text in DOCUMENT
        assert set(one.text.split()) <= set(DOCUMENT.split())


def test_without_a_question_answers_are_needed_and_what_the_paragraphs_questions_name() -> None:
    excerpt = Excerpts(ITEMS, 1, WHOLE, Shares(0.0, 0.0), 0)(0)[0]
    assert excerpt.query is None
    found = marked(excerpt)
    for word in ("Anna Berg", "1887", "Otto Weiss", "the old bridge", "mill", "bought", "baker", "called", "moored"):
        assert word in found
    for word in ("Nobody", "Cats", "spring", "noon", "floods"):
        assert word not in found
    # "mill" is asked about in the first paragraph alone
    spans = [(one, [(a, b) for a, b in one.evidence]) for one in ITEMS[:2]]
    assert all(end <= DOCUMENT.index("\n\n") for _, end in asked_about(DOCUMENT, spans))


def test_of_a_text_that_few_ask_about_nothing_is_learnt_without_a_question() -> None:
    few = Excerpts(ITEMS[:2], 20, WHOLE, Shares(0.0, 0.0), 0)(0)
    assert all(one.query is not None and one.needed for one in few)


def test_a_step_is_the_same_every_time_and_no_other_is() -> None:
    make = Excerpts(ITEMS, 4, (60, 120), Shares(0.5, 0.2), 7)
    assert make(3) == Excerpts(ITEMS, 4, (60, 120), Shares(0.5, 0.2), 7)(3)
    assert make(3) != make(4)


def test_tokens_that_touch_what_is_needed_are_labelled() -> None:
    excerpt = Excerpt("The keeper wrote. Ships passed.", "Who wrote?", [(4, 10), (25, 26)])
    assert needed(excerpt, [(0, 3), (4, 6), (6, 10), (11, 17), (18, 25), (24, 30)]).tolist() == [0, 1, 1, 0, 0, 1]


def test_the_loss_is_the_mean_over_all_tokens_with_and_without_a_question() -> None:
    torch.manual_seed(0)
    model = WordClassifier(tiny_encoder(), ClassifierConfig(lora_rank=2, row_tokens=60)).eval()
    excerpts = [Excerpt("The keeper wrote. Ships passed.", "Who wrote?", [(0, 17)]), Excerpt("Ships.", None, [])]
    loss, _ = ClassifierStage(model)(excerpts)
    total, count = 0.0, 0
    for one in excerpts:
        read, offsets = model.read([one.text])[0]
        logits = model.logits(read, model.read_query([one.query])[0] if one.query else None)
        total += binary_cross_entropy_with_logits(logits, needed(one, offsets), reduction="sum").item()
        count += len(offsets)
    assert loss.item() == pytest.approx(total / count, abs=1e-5)


def test_it_learns_what_it_is_shown() -> None:
    torch.manual_seed(0)
    model = WordClassifier(tiny_encoder(), ClassifierConfig(lora_rank=4, row_tokens=64))
    stage = ClassifierStage(model)
    excerpts = Excerpts(ITEMS, 4, (60, 90), Shares(1.0, 0.0), 0)(0)
    optimizer = torch.optim.AdamW(list(model.own_parameters().values()), lr=1e-2)
    losses = []
    for _ in range(60):
        loss, numbers = stage(excerpts)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert numbers["recall_at_4x"] == pytest.approx(1.0, abs=0.1)
