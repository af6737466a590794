"""Facts hidden in text: where they were put, whole, and answered by nothing else."""

from __future__ import annotations

import gzip
import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_backbone

from laconic.data.generated import CHARACTERS, DEPTHS, generate, is_generated
from laconic.data.haystacks import Haystacks, insert
from laconic.data.loaders import load_task
from laconic.data.needles import NEEDLES, draw_needles
from laconic.data.training import load_for_training
from laconic.errors import DataError
from laconic.eval.metrics import exact_match

TEXT = "The lighthouse keeper wrote down the weather every morning. " * 80


@pytest.mark.parametrize("kind", list(NEEDLES))
def test_a_needle_lies_where_it_was_put(kind: str) -> None:
    backbone = tiny_backbone()
    stacks = Haystacks([backbone.token_ids(TEXT)], backbone.token_ids)
    for depth in (0.0, 0.5, 1.0):
        needles = draw_needles([NEEDLES[kind]], 3, random.Random(depth))
        assert len(needles) == (1 if kind in ("passkey", "repeats") else 3)
        hidden = stacks.hide(needles, 900, random.Random(depth), depths=[depth])
        assert len(hidden.text) == 900
        text = backbone.tokenizer.decode(hidden.text)
        for needle, starts in zip(needles, hidden.starts, strict=True):
            spelled = [backbone.token_ids(sentence) for sentence in needle.sentences]
            assert [hidden.text[at : at + len(ids)] for at, ids in zip(starts, spelled, strict=True)] == spelled
            assert starts == sorted(starts), "the sentences of a needle keep their order"
            assert all(answer in "".join(needle.sentences) for answer in needle.answers)
            assert all(text.count(sentence) == 1 for sentence in needle.sentences), "nothing else answers"
        behind = sum(len(ids) for ids in map(backbone.token_ids, needles[0].sentences))
        hay = 900 - sum(len(backbone.token_ids(s)) for needle in needles for s in needle.sentences)
        assert round(depth * hay) <= hidden.starts[0][0] <= round(depth * hay) + 900 - hay, "other needles may precede"
    alone = stacks.hide(needles[:1], 300, random.Random(5), depths=[depth]).starts[0][0]
    assert alone == round(depth * (300 - behind)), "with nothing else, it is where it was to be"
    first = stacks.hide(needles[:1], 300, random.Random(5))
    assert first == stacks.hide(needles[:1], 300, random.Random(5))
    with pytest.raises(DataError, match="too short"):
        stacks.hide(needles, 5, random.Random(0))


def test_passkeys_whose_digits_repeat() -> None:
    keys = [NEEDLES["repeats"](random.Random(seed)).answer for seed in range(400)]
    assert all(len(key) == 5 and key.isdigit() and key[0] != "0" for key in keys)
    again = [a == b for key in keys for a, b in itertools.pairwise(key)]
    assert 0.5 < sum(again) / len(again) < 0.6, "one in two, and one in ten of the others by chance"
    assert len(draw_needles([NEEDLES["passkey"], NEEDLES["repeats"]], 2, random.Random(0))) == 1


def test_needles_in_one_text_do_not_contradict_each_other() -> None:
    for seed in range(300):
        needles = draw_needles([NEEDLES["variables"]], 9, random.Random(seed))
        said = [sentence.strip(" .").split() for needle in needles for sentence in needle.sentences]
        assert len({name for _, name, _, _ in said}) == len(said), "a name stands for one thing"


def test_a_chain_of_names_leads_back_to_its_value() -> None:
    needle = NEEDLES["variables"](random.Random(1))
    value = needle.question.split()[-1].rstrip("?")
    known = {value}
    for sentence in needle.sentences:
        _, name, _, source = sentence.strip(" .").split()
        assert source in known
        known.add(name)
    assert set(needle.answers) == known - {value}
    assert needle.answer.split(", ") == list(needle.answers)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_pieces_keep_their_order_and_cut_no_word(depths: list[float]) -> None:
    pieces = [f" Fact {n}." for n in range(len(depths))]
    depths = sorted(depths)
    text, starts = insert(TEXT, pieces, depths)
    assert starts == sorted(starts)
    rest = text
    for piece, start in zip(pieces, starts, strict=True):
        assert text[start : start + len(piece)] == piece
        rest = rest.replace(piece, "", 1)
    assert rest == TEXT
    assert set(text.replace(".", "").split()) <= set(TEXT.replace(".", "").split()) | {"Fact", *"01234"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [
        {"n": 1, "fact": "John went to the hall."},
        {"n": 2, "fact": "Mary went to the attic."},
        {"n": 3, "question": "Where is John?", "answer": "hall", "support": [1]},
        {"n": 4, "fact": "John went to the cellar."},
    ]
    carried = [
        {"n": 1, "fact": "Mary took the milk."},
        {"n": 2, "question": "What is Mary carrying?", "answer": "milk", "support": [1]},
        {"n": 3, "fact": "Mary took the apple."},
        {"n": 4, "question": "What is Mary carrying?", "answer": "milk,apple", "support": [1, 3]},
    ]
    learnt = [{"n": 1, "fact": "A."}, {"n": 2, "question": "Who?", "answer": "a", "support": [1]}]
    files = {
        "books_val": [{"text": TEXT}],
        "babi_test": [
            {"id": "a", "task": "qa1_single-supporting-fact", "lines": lines},
            {"id": "b", "task": "qa8_lists-sets", "lines": carried},
            {"id": "c", "task": "qa8_lists-sets", "lines": learnt},
        ],
        "babi_train": [
            {"id": "d", "task": "qa1_single-supporting-fact", "lines": learnt},
            {"id": "e", "task": "qa8_lists-sets", "lines": learnt},
        ],
    }
    for name, rows in files.items():
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["passkey-2k", "number-2k-keys3", "place-2k", "values-2k-keys2", "variables-2k", "pair-2k-keys9"]
)
def test_generated_needles(folder: Path, name: str) -> None:
    items = load_task(name, folder, limit=13)
    assert items == generate(name, folder, 13, 0)
    assert len({item.id for item in items}) == 13
    assert len(load_task(name, folder)) == DEPTHS
    for number, item in enumerate(items):
        assert len(item.document) == round(2000 * CHARACTERS)
        said = " ".join(item.document[start:end] for start, end in item.evidence)
        assert all(answer in said for answer in item.answers[0].split(", "))
        assert item.parts == (item.answers[0].split(", ") if ", " in item.answers[0] else [])
        start = item.evidence[0][0]
        assert item.id.endswith(f"d{number % DEPTHS}")
        assert abs(start / len(item.document) - (number % DEPTHS + 0.5) / DEPTHS) < 0.03
    keys = items[0].document.count("'s number is")
    assert keys == (3 if "keys3" in name else 0)


def test_one_text_of_which_everything_is_asked(folder: Path) -> None:
    items = load_task("number-2k-keys5-all", folder)
    assert [item.id for item in items] == [f"number-2k-keys5-all-{n}-d{2 * n + 1}" for n in range(5)]
    assert len({item.document for item in items}) == len({item.document_id for item in items}) == 1
    assert len({item.question for item in items}) == 5
    for number, item in enumerate(items):
        ((start, end),) = item.evidence
        assert item.answers[0] in item.document[start:end]
        assert abs(start / len(item.document) - (number + 0.5) / 5) < 0.03
    more = load_task("number-2k-keys5-all", folder, limit=7)
    assert more[:5] == items
    assert len(more) == 7
    assert len({item.document_id for item in more}) == 2


def test_generated_babilong(folder: Path) -> None:
    (item,) = load_task("babi-qa1-1k", folder)
    assert item.question == "Where is John?"
    assert item.answers == ["hall"]
    assert item.document.index("John went to the hall.") < item.document.index("Mary went to the attic.")
    assert "cellar" not in item.document, "what comes after the question is not told"
    ((start, end),) = item.evidence
    assert item.document[start:end].strip() == "John went to the hall."
    (short,) = load_task("babi-qa1-0k", folder)
    assert short.document == "John went to the hall. Mary went to the attic."
    ((start, end),) = short.evidence
    assert short.document[start:end].strip() == "John went to the hall."


def test_any_question_of_a_story_is_asked_unless_it_was_trained_on(folder: Path) -> None:
    items = [item for seed in range(20) for item in load_task("babi-qa8-0k", folder, seed=seed)]
    assert {item.answers[0] for item in items} == {"milk", "milk, apple"}
    assert {tuple(item.parts) for item in items} == {(), ("milk", "apple")}
    both = next(item for item in items if item.parts)
    assert len(both.evidence) == 2
    assert exact_match("milk, apple", both.answers) == 1


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("pin-4k", "passkey-4k-keys2", "passkey-4k-keys2-all", "babi-qa1-4k-keys2"):
        with pytest.raises(DataError, match="Generated ones look like"):
            load_task(name, folder)
    with pytest.raises(DataError, match="no room for 2 different needles of the kind passkey, only for 1"):
        load_task("passkey-4k-keys2", folder)
    with pytest.raises(DataError, match="limit of 0"):
        load_task("passkey-4k", folder, limit=0)
    with pytest.raises(DataError, match="no task qa7"):
        load_task("babi-qa7-1k", folder)
    for name in ("passkey-4k", "babi-qa1-4k", "squad_articles_dev"):
        with pytest.raises(DataError, match=r"no file .* Name the folder of the data"):
            load_task(name, tmp_path / "empty")
    with pytest.raises(DataError, match="must not be trained on"):
        load_for_training("passkey-4k", folder)
    assert not is_generated("squad_articles_dev")
