"""The loaders: spans where they say they are, unique ids, and a clear line about whatever is malformed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.data.books import load_books
from laconic.data.loaders import TASKS, load_file, load_task, samples_folder
from laconic.data.solutions import load_problems
from laconic.data.stories import load_stories
from laconic.data.training import load_for_training
from laconic.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
SAMPLES = [name for name in TASKS if (samples_folder() / f"{name}.jsonl.gz").is_file()]
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the full data in ../shared/data")
GOOD = {"document": "Paris is in France.", "question": "Where is Paris?", "answers": ["France"]}
words = st.text(alphabet="ab2 .", min_size=1, max_size=12).filter(str.strip)


def write(path: Path, *records: object) -> Path:
    text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_task_loads(name: str) -> None:
    items = load_task(name, samples_folder())
    assert len({item.id for item in items}) == len(items), "results are kept by id"
    for item in items:
        assert item.question.strip()
        assert item.answers
        assert all(0 <= start < end <= len(item.document) for start, end in item.evidence)
        assert item.document == item.document.strip("\n")


def test_samples_cover_every_kind_of_task() -> None:
    assert {TASKS[name][1] for name in SAMPLES} == {loader for _, loader in TASKS.values()}


def test_hotpot_and_musique_mark_what_supports_the_answer() -> None:
    for name, key in (("hotpotqa_train_sample", "supporting_facts"), ("musique_train_sample", "paragraphs")):
        with gzip.open(samples_folder() / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            records = [json.loads(line) for line in lines]
        for item, record in zip(load_task(name, samples_folder()), records, strict=True):
            marked = {item.document[a:b] for a, b in item.evidence}
            if key == "paragraphs":
                assert marked == {p["paragraph_text"] for p in record[key] if p["is_supporting"]}
            else:
                sentences = dict(record["context"])
                facts = [(t, n) for t, n in record[key] if n < len(sentences[t])]
                assert marked == {sentences[title][number].strip() for title, number in facts}


def test_qmsum_evidence_is_whole_lines() -> None:
    for item in load_task("qmsum_val", samples_folder()):
        for start, end in item.evidence:
            assert start == 0 or item.document[start - 1] == "\n"
            assert end == len(item.document) or item.document[end] == "\n"


@given(st.lists(st.tuples(words, words, st.booleans()), min_size=1, max_size=5), words)
def test_passages_are_joined_and_answers_found(
    tmp_path_factory: pytest.TempPathFactory, passages: list[tuple[str, str, bool]], answer: str
) -> None:
    contexts = [{"title": title, "text": text, "isgold": gold} for title, text, gold in passages]
    record = {"id": "1", "question": "q", "answers": [answer], "ctxs": contexts}
    folder = tmp_path_factory.mktemp("nq")
    write(folder / "nq_multidoc_20_gold_spread.jsonl.gz", record)
    (item,) = load_task("nq_multidoc_20_gold_spread", folder)
    assert item.document == "\n".join(f"{title} {text}" for title, text, _ in passages)
    assert all(item.document[a:b] == answer for a, b in item.evidence)
    assert bool(item.evidence) == any(answer in f"{title} {text}" for title, text, gold in passages if gold)


def test_an_answer_is_taken_as_a_whole_word_where_it_can_be(tmp_path: Path) -> None:
    paragraphs = ["Before.", "In 2018 a party of 2 made art."]
    questions = [{"id": None, "question": "q", "answers": [a], "paragraph": 1} for a in ("2", "art", "par")]
    record = {"id": "doc", "document": "\n\n".join(paragraphs), "qas": questions}
    write(tmp_path / "squad_articles_dev.jsonl.gz", record)
    items = load_task("squad_articles_dev", tmp_path)
    begin = len("Before.\n\n")
    starts = [begin + paragraphs[1].index(words) + skip for words, skip in (("of 2", 3), (" art", 1), ("par", 0))]
    assert [item.evidence[0][0] for item in items] == starts
    assert [item.id for item in items] == ["doc-0", "doc-1", "doc-2"], "questions without an id get one each"


@given(st.integers(1, 12), st.integers(0, 3))
def test_a_limit_is_even_and_repeats(limit: int, seed: int) -> None:
    items = load_task("squad_articles_train", samples_folder(), limit, seed)
    assert len(items) == limit
    counts = [sum(item.document_id == one for item in items) for one in {item.document_id for item in items}]
    assert max(counts) - min(counts) <= 1
    assert [item.id for item in items] == [
        i.id for i in load_task("squad_articles_train", samples_folder(), limit, seed)
    ]


def test_a_limit_below_one_is_refused() -> None:
    for limit in (0, -1):
        with pytest.raises(DataError, match="leaves no questions"):
            load_task("squad_articles_dev", samples_folder(), limit)


@pytest.mark.parametrize("name", [name for name, (use, _) in TASKS.items() if use != "train"])
def test_what_is_kept_for_evaluation_is_never_trained_on(name: str) -> None:
    with pytest.raises(DataError, match="must not be trained on"):
        load_for_training(name, samples_folder())


def test_training_data_may_be_trained_on() -> None:
    assert load_for_training("squad_articles_train", samples_folder())


def test_missing_tasks_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no task 'nonsense'"):
        load_task("nonsense")
    monkeypatch.setenv("LACONIC_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"gone.*LACONIC_DATA"):
        load_task("squad_articles_dev")
    monkeypatch.setenv("LACONIC_DATA", str(samples_folder()))
    assert load_task("squad_articles_dev")


def test_a_record_of_another_shape_names_its_line(tmp_path: Path) -> None:
    write(tmp_path / "squality_dev.jsonl.gz", {"id": "1", "document": "d", "qas": []}, {"id": "2"})
    with pytest.raises(DataError, match="line 2 is not a record of squality_dev"):
        load_task("squality_dev", tmp_path)


def test_books_stories_and_problems_name_the_line_too(tmp_path: Path) -> None:
    write(tmp_path / "books_val.jsonl.gz", {"text": "A book."}, {"txt": "None."})
    with pytest.raises(DataError, match="line 2 is not a record of books_val"):
        load_books("books_val", tmp_path)
    write(tmp_path / "books_val.jsonl.gz", {"text": None})
    with pytest.raises(DataError, match="line 1 is not a record of books_val"):
        load_books("books_val", tmp_path)
    write(tmp_path / "babi_test.jsonl.gz", {"task": 3})
    with pytest.raises(DataError, match="line 1 is not a record of bAbI"):
        load_stories("babi-qa1", tmp_path, training=False)
    write(tmp_path / "gsm8k_test.jsonl.gz", {"question": "What?"})
    with pytest.raises(DataError, match="line 1 is not a record of gsm8k_test"):
        load_problems("gsm8k_test", tmp_path)
    write(tmp_path / "squality_dev.jsonl.gz")
    with pytest.raises(DataError, match="holds no records"):
        load_task("squality_dev", tmp_path)


@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz"])
def test_own_passages_and_ids(tmp_path: Path, name: str) -> None:
    passages = {"ctxs": [{"title": "T", "text": "x y"}, {"text": "z"}], "question": "q", "answers": "a", "id": 7}
    first, second = load_file(write(tmp_path / name, GOOD, "", passages))
    assert (first.id, first.document, first.answers) == ("1", GOOD["document"], ["France"])
    assert (second.id, second.document, second.answers) == ("7", "T x y\nz", ["a"])


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({**GOOD, "document": 5}, "no document"),
        ({**GOOD, "document": "  "}, "no document"),
        ({**GOOD, "question": ["q"]}, "no question"),
        ({**GOOD, "answers": 5}, "answers is not"),
        ({**GOOD, "answers": []}, "answers is not"),
        ({**GOOD, "answers": [""]}, "answers is not"),
        ({"question": "q", "answers": "a", "ctxs": [{"title": "t"}]}, "ctxs is not"),
        ({**GOOD, "id": 1}, "that of line 1"),
        ("[1]", "not an object"),
        ("{", "Expecting"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, wrong: object, problem: str) -> None:
    with pytest.raises(DataError, match=rf"line 3: .*{problem}"):
        load_file(write(tmp_path / "own.jsonl", GOOD, "", wrong))


def test_damaged_files(tmp_path: Path) -> None:
    whole = gzip.compress((json.dumps(GOOD) + "\n").encode() * 500)
    for name, content in {
        "bytes.jsonl": b"\xff\xfe",
        "plain.jsonl.gz": b"not gzip",
        "cut.jsonl.gz": whole[:60],
        "flipped.jsonl.gz": whole[:30] + bytes(10) + whole[40:],
        "empty.jsonl": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            load_file(tmp_path / name)
    with pytest.raises(DataError, match="There is no file"):
        load_file(tmp_path / "gone.jsonl")


@needs_shared
def test_three_hundred_questions_touch_every_article() -> None:
    items = load_task("squad_articles_dev", SHARED, limit=300)
    assert len(items) == 300
    assert len({item.document_id for item in items}) == 38
    assert len({item.id for item in items}) == 300


@needs_shared
@pytest.mark.parametrize("name", [name for name in TASKS if name != "squad_articles_train"])
def test_the_full_files(name: str) -> None:
    items = load_task(name, SHARED)
    assert len({item.id for item in items}) == len(items)
    assert all(0 <= a < b <= len(item.document) for item in items for a, b in item.evidence)
    if name.startswith(("nq", "squad", "hotpot", "musique")):
        assert all(item.evidence for item in items)


def test_a_mistyped_file_is_not_taken_for_a_task() -> None:
    for name in ("mine.jsonl", "folder/mine.jsonl.gz"):
        with pytest.raises(DataError, match="There is no file"):
            load_task(name)
