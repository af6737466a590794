"""The runner: resumes, never reuses what a changed setting made, drops nothing in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_backbone

from laconic.data.loaders import load_file, load_task, samples_folder
from laconic.data.schema import QAItem
from laconic.errors import DataError
from laconic.eval.report import plot, tables
from laconic.eval.runner import evaluate
from laconic.methods.registry import LoadedMethod, load_methods

BACKBONE = tiny_backbone()
ITEMS = [
    QAItem(
        f"q{n}",
        "A grey owl sleeps above the mill. " * (4 + n // 2),
        f"Where is owl {n}?",
        ["mill"],
        [(28, 32)],
        f"d{n // 2}",
    )
    for n in range(4)
]


def run(out: Path, methods: dict[str, LoadedMethod], **changes: object) -> dict:
    values = {"reader": "tiny", "backbone": "tiny", "max_new_tokens": 4, "batch_size": 3, "say": lambda line: None}
    return evaluate(methods, {"owls": ITEMS}, [1.5], out, **(values | changes))  # type: ignore[arg-type]


def test_rows_and_resume(tmp_path: Path) -> None:
    methods = load_methods(["full", "head", "bm25", "oracle"], BACKBONE)
    result = run(tmp_path / "r.json", methods)
    assert [(row["method"], row["items"]) for row in result["rows"]] == [
        ("full", 4),
        ("head", 4),
        ("bm25", 4),
        ("oracle", 4),
    ]
    assert all(row["delivered_factor"] >= 1.5 for row in result["rows"] if row["method"] != "full")
    assert result["rows"][0]["recall"]["mean"] == 100.0
    journal = tmp_path / "r.items.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:5]) + "\n")  # as if it had been killed
    again = run(tmp_path / "r.json", methods)
    for row in (*again["rows"], *result["rows"]):
        assert row.pop("seconds")  # the one thing that two runs do not share
    assert again["rows"] == result["rows"]
    assert len(journal.read_text().splitlines()) == len(lines)
    run(tmp_path / "r.json", methods, max_new_tokens=5)
    assert len(journal.read_text().splitlines()) == 2 * len(lines), "another setting shares no items"


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    result = run(tmp_path / "r.json", load_methods(["full"], BACKBONE), max_new_tokens=BACKBONE.window)
    assert result["rows"][0]["items"] == 0
    assert result["rows"][0]["skipped"] == 4


def test_what_a_method_refuses_of_one_item_stops_no_other(tmp_path: Path) -> None:
    """A question that fills the window, evidence that nobody marked."""
    items = [ITEMS[0], replace(ITEMS[1], question="why " * BACKBONE.window), replace(ITEMS[2], evidence=[])]
    result = evaluate(
        load_methods(["bm25", "oracle"], BACKBONE), {"owls": items}, [1.5], tmp_path / "r.json",
        reader="tiny", backbone="tiny", max_new_tokens=4, say=lambda line: None,
    )  # fmt: skip
    assert [(row["method"], row["items"], row["skipped"]) for row in result["rows"]] == [
        ("bm25", 2, 1),
        ("oracle", 1, 2),
    ]


def test_a_document_read_once_is_billed_once(tmp_path: Path) -> None:
    run(tmp_path / "r.json", load_methods(["full"], BACKBONE))
    lines = [json.loads(line) for line in (tmp_path / "r.items.jsonl").read_text().splitlines()]
    assert ["read" in line["seconds"] for line in lines] == [True, False, True, False]


def test_table_and_picture(tmp_path: Path) -> None:
    result = run(tmp_path / "r.json", load_methods(["full", "head"], BACKBONE))
    assert [one.row_count for one in tables(result)] == [2]
    plot(result, "f1", tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 1000


def test_unwritable_output_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        run(tmp_path / "file" / "r.json", {})


@pytest.mark.parametrize(
    "name", ["squad_articles_dev", "nq_multidoc_20_gold_spread", "hotpotqa_train_sample", "musique_train_sample"]
)
def test_evidence_of_every_sample_lies_in_its_document(name: str) -> None:
    items = load_task(name, samples_folder())
    assert items
    for item in items:
        assert item.evidence, item.id
        assert all(0 <= a < b <= len(item.document) for a, b in item.evidence)
        if name in ("squad_articles_dev", "nq_multidoc_20_gold_spread"):
            assert all(item.document[a:b] in item.answers for a, b in item.evidence)


def test_a_limit_draws_evenly() -> None:
    items = load_task("squad_articles_dev", samples_folder(), limit=6)
    counts = [sum(item.document_id == name for item in items) for name in {item.document_id for item in items}]
    assert counts == [3, 3]


def test_own_files(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"document": "d", "question": "q", "answers": "a"}) + "\n")
    assert load_file(path)[0].answers == ["a"]
    path.write_text('{"document": null, "ctxs": [{"text": "d"}], "question": "q\\ud83d", "answers": "a"}', "utf-8-sig")
    assert (load_file(path)[0].document, load_file(path)[0].question) == ("d", "q\ufffd")
    for wrong in ('{"document": "d"}', "not json", "[1]", "", "[" * 100_000):
        path.write_text(wrong + "\n")
        with pytest.raises(DataError):
            load_file(path)
