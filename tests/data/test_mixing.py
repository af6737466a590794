"""Mixed passages: nothing is lost, evidence still points at the answer, strangers stand side by side."""

from __future__ import annotations

from itertools import pairwise

from laconic.data.mixing import mixed_passages, paragraphs
from laconic.data.schema import QAItem


def article(name: str, paragraphs: int) -> list[QAItem]:
    texts = [f"The {name} of place {n} is called {name}{n} by all." for n in range(paragraphs)]
    document = "\n\n".join(texts)
    items = []
    for number in range(paragraphs):
        answer = f"{name}{number}"
        at = document.index(f"{answer} by")
        evidence = [(at, at + len(answer))]
        items.append(QAItem(f"{answer}?", document, "Which?", [answer], evidence, f"squad-train-far-off_{name}_hill"))
    return items


ARTICLES = [item for name in ("owl", "fox", "hare", "wren", "toad", "mole") for item in article(name, 9)]


def test_every_question_comes_once_and_its_evidence_is_its_answer() -> None:
    mixed = mixed_passages(ARTICLES)
    assert sorted(item.id for item in mixed) == sorted(item.id for item in ARTICLES)
    for item in mixed:
        ((start, end),) = item.evidence
        assert item.document[start:end] == item.answers[0]
        line = next(line for line in item.document.split("\n") if item.answers[0] + " " in line)
        assert line.startswith(f"far-off {item.answers[0].rstrip('0123456789')} hill The ")


def test_documents_are_twenty_lines_of_several_articles_in_no_order() -> None:
    mixed = mixed_passages(ARTICLES)
    documents = {item.document_id: item.document for item in mixed}
    # nine paragraphs are dealt as 4, 4 and 1: eighteen hands, five to a document
    assert len(documents) == 4
    assert all(len(document.split("\n")) <= 20 for document in documents.values())
    first = [line.split()[1] for line in documents["mixed-0"].split("\n")]
    assert len(set(first)) > 2
    runs = 1 + sum(a != b for a, b in pairwise(first))
    assert runs > len(set(first)), "passages of one article do not stand together"


def test_the_seed_decides() -> None:
    assert mixed_passages(ARTICLES) == mixed_passages(ARTICLES)
    assert mixed_passages(ARTICLES) != mixed_passages(ARTICLES, seed=1)


def test_evidence_across_paragraphs_is_left_out() -> None:
    document = "One.\n\nTwo."
    assert mixed_passages([QAItem("q", document, "?", ["e"], [(2, 8)], "a-b-c")]) == []


def test_a_paragraph_is_a_document_of_its_own() -> None:
    cut = paragraphs(ARTICLES)
    assert [item.id for item in cut] == [item.id for item in ARTICLES]
    assert len({item.document_id for item in cut}) == len({item.document for item in cut}) == len(ARTICLES)
    for item in cut:
        ((start, end),) = item.evidence
        assert item.document[start:end] == item.answers[0]
        assert "\n" not in item.document
    assert paragraphs([QAItem("q", "One.\n\nTwo.", "?", ["e"], [(2, 8)], "a-b-c")]) == []
