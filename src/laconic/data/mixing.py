"""Other documents made of those there are: passages of several articles, paragraphs, excerpts.

Whole articles teach relevance among neighbours on one subject; among passages of several, shuffled as retrieval hands
them to a reader, the neighbour is a stranger, and the title in front of a passage says what it is about.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from laconic.data.schema import QAItem, by_document

PASSAGES_PER_ARTICLE = 4
ARTICLES = 5


def mixed_passages(items: Sequence[QAItem], seed: int = 0) -> list[QAItem]:
    """Cut articles into paragraphs and deal them out anew: every paragraph, with its questions, lands in one document.

    A document has up to 20 lines ``title text``, four of each of five articles. An article's paragraphs are parted by
    blank lines and its title is what follows the second hyphen of its id (``squad-train-Franco-Prussian_War``);
    questions whose evidence is not inside one paragraph are left out.
    """
    draw = random.Random(seed)
    hands: list[list[tuple[str, str, list[QAItem]]]] = []
    for name, own in by_document(items).items():
        title = name.split("-", 2)[-1].replace("_", " ")
        passages = [(title, text, inside) for text, inside in _paragraphs(own)]
        draw.shuffle(passages)
        hands += [passages[at : at + PASSAGES_PER_ARTICLE] for at in range(0, len(passages), PASSAGES_PER_ARTICLE)]
    draw.shuffle(hands)
    mixed: list[QAItem] = []
    for number, at in enumerate(range(0, len(hands), ARTICLES)):
        passages = [passage for hand in hands[at : at + ARTICLES] for passage in hand]
        draw.shuffle(passages)
        mixed += _document(f"mixed-{number}", passages)
    return mixed


def paragraphs(items: Sequence[QAItem]) -> list[QAItem]:
    """Every paragraph of an article a document of its own, with the questions whose evidence it holds."""
    return [
        replace(item, document=text, document_id=f"{name}#{number}")
        for name, own in by_document(items).items()
        for number, (text, inside) in enumerate(_paragraphs(own))
        for item in inside
    ]


def excerpts(items: Sequence[QAItem], characters: int = 2000) -> list[QAItem]:
    """Runs of an article's paragraphs of at most so many characters (or one paragraph), each a document of its own.

    Questions whose evidence is not inside one paragraph are left out.
    """
    cut: list[QAItem] = []
    for name, own in by_document(items).items():
        run: list[tuple[str, list[QAItem]]] = []
        number = 0
        for text, inside in _paragraphs(own):
            if run and sum(len(other) + 2 for other, _ in run) + len(text) > characters:
                cut += _joined(f"{name}#{number}", run)
                run, number = [], number + 1
            run.append((text, inside))
        cut += _joined(f"{name}#{number}", run)
    return cut


def around_evidence(items: Sequence[QAItem], characters: int = 3000) -> list[QAItem]:
    """For each question the lines around its first evidence, of about so many characters, as a document of its own.

    Where there is room, what comes before the evidence is a third of it. Questions without evidence are left out.
    """
    found = []
    for item in items:
        if not item.evidence:
            continue
        start, end = item.evidence[0]
        first = max(0, start - max(0, characters - (end - start)) // 3)
        first = item.document.rfind("\n", 0, first) + 1
        last = item.document.find("\n", first + characters)
        last = len(item.document) if last < 0 else last
        spans = [(max(a, first) - first, min(b, last) - first) for a, b in item.evidence if a < last and b > first]
        name = f"{item.document_id}#{first}"
        found.append(replace(item, document=item.document[first:last], evidence=spans, document_id=name))
    return found


def _joined(name: str, run: Sequence[tuple[str, list[QAItem]]]) -> list[QAItem]:
    document, placed = "", []
    for text, inside in run:
        begin = len(document)
        document += f"{text}\n\n"
        placed += [replace(q, evidence=[(a + begin, b + begin) for a, b in q.evidence]) for q in inside]
    document = document.removesuffix("\n\n")
    return [replace(q, document=document, document_id=name) for q in placed]


def _paragraphs(items: Sequence[QAItem]) -> list[tuple[str, list[QAItem]]]:
    """The paragraphs of an article, each with its questions; their evidence counts from the paragraph's start."""
    found, start = [], 0
    for text in items[0].document.split("\n\n"):
        end = start + len(text)
        inside = []
        for item in items:
            spans = [(a - start, b - start) for a, b in item.evidence if start <= a and b <= end]
            if spans:
                inside.append(replace(item, evidence=spans))
        found.append((text, inside))
        start = end + 2
    return found


def _document(name: str, passages: Sequence[tuple[str, str, list[QAItem]]]) -> list[QAItem]:
    document, placed = "", []
    for title, text, questions in passages:
        begin = len(document) + len(title) + 1
        document += f"{title} {text}\n"
        placed += [replace(q, evidence=[(a + begin, b + begin) for a, b in q.evidence]) for q in questions]
    document = document.rstrip("\n")
    return [replace(q, document=document, document_id=name) for q in placed]
