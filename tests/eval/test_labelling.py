"""Labels for predictors: one look of the compressor, nothing read twice; resumed, sharded, never mixed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_backbone

from laconic.core.results import Answer, Compressed
from laconic.core.segments import Range
from laconic.data.schema import QAItem
from laconic.errors import AdapterError, BudgetError, DataError, LaconicError
from laconic.eval.labelling import Plan, build_labels, drawn_ratios, metric_of
from laconic.generation.answer import Reader
from laconic.methods.poc.compressors import compressor_digest
from laconic.methods.poc.labels import Made, read_labels, split_of
from laconic.methods.poc.promises import retention_at
from laconic.methods.pruning.words import WordPruner
from laconic.methods.registry import LoadedMethod

BACKBONE = tiny_backbone("llama")


class Counting(WordPruner):
    """Keeps first what stands at the end; counts its looks."""

    looks = 0

    def scores(self, text: str, words: Sequence[Range], query: str | None) -> Sequence[float]:
        self.looks += 1
        return [float(place) for place in range(len(words))]


class Parrot(Reader):
    """Answers with the last word of its context, and counts what it reads."""

    def __init__(self) -> None:
        super().__init__(BACKBONE)
        self.contexts: list[str] = []

    def answer_batch(
        self, compressed: Sequence[Compressed], questions: Sequence[str], max_new_tokens: int = 64
    ) -> list[Answer]:
        self.contexts += [str(one.text) for one in compressed]
        return [Answer(str(one.text).split()[0], one, 1, 1, 1, 1) for one in compressed]


def item(number: int, document: str, answer: str) -> QAItem:
    return QAItem(str(number), document, "Which?", [answer], [], f"doc-{number}")


#: the first word is kept only when all is; that of the second answers nothing at all
ITEMS = [item(0, "one two three four five six seven eight nine ten", "one"), item(1, "one two three four", "none")]
PLAN = Plan([0.3, 0.31, 0.6, 0.9])


def build(out: Path, items: Sequence[QAItem] = ITEMS, plan: Plan = PLAN, **changes: Any) -> tuple[Any, Any, Any]:
    compressor, reader = Counting(BACKBONE), Parrot()
    who = {"backbone": "b", "reader": "r", "compressor": "c"} | changes
    result = build_labels(
        LoadedMethod("counting", compressor, reader), {"squad": items}, plan, out, say=lambda _: None, **who
    )
    return result, compressor, reader


def test_a_text_is_looked_at_once_and_equal_results_are_read_once(tmp_path: Path) -> None:
    result, compressor, reader = build(tmp_path / "labels.json", ITEMS[:1])
    assert compressor.looks == 1
    assert len(reader.contexts) == len(set(reader.contexts)) < 5
    line = result["items"][0]
    assert line["whole"] == 1.0
    assert set(line["scores"]) == {0.3, 0.31, 0.6, 0.9}
    assert all(score == 0 for score in line["scores"].values())
    assert line["tokens_read"] == sum(map(BACKBONE.count_tokens, reader.contexts))


def test_what_the_compressor_found_is_noted(tmp_path: Path) -> None:
    class Telling(Counting):
        def features(self, context: str, query: str | None = None) -> list[float]:
            return [len(context) / 7, float(query == "Which?")]

    for compressor, wanted in (
        (Telling(BACKBONE), [round(len(ITEMS[0].document) / 7, 5), 1.0]),
        (Counting(BACKBONE), []),
    ):
        build_labels(
            LoadedMethod("telling", compressor, Parrot()), {"squad": ITEMS}, PLAN, tmp_path / f"{len(wanted)}.json",
            say=lambda _: None, backbone="b", reader="r", compressor="c",
        )  # fmt: skip
        assert read_labels([tmp_path / f"{len(wanted)}.json"])[1][0].features == wanted


def test_texts_that_score_nothing_are_counted_and_have_no_labels(tmp_path: Path) -> None:
    result, *_ = build(tmp_path / "labels.json")
    assert result["counts"] == {"texts": 2, "score nothing when whole": 1, "skipped": 0}
    made, read = read_labels([tmp_path / "labels.json"])
    assert made == Made("b", "r", "c", Parrot().template, {"squad": "f1 of 32 tokens"})
    assert [one.labels is None for one in read] == [False, True]
    assert read[0].labels is not None
    assert read[0].labels.whole == 1.0
    assert retention_at(read[0].labels, [1.0]) == [1.0]
    assert read[0].context == ITEMS[0].document
    assert read[0].delivered[0.6] == pytest.approx(0.6, abs=0.2)


def test_what_is_done_is_not_done_again_and_a_torn_line_is(tmp_path: Path) -> None:
    out = tmp_path / "labels.json"
    first, *_ = build(out)
    journal = out.with_suffix(".items.jsonl")
    lines = journal.read_text().splitlines()
    journal.write_text(lines[0] + "\n" + lines[1][: len(lines[1]) // 2])
    out.unlink()
    again, compressor, _reader = build(out)
    assert compressor.looks == 1
    assert json.dumps(again["items"]) == json.dumps(json.loads(json.dumps(first["items"])))
    more, compressor, _ = build(out, plan=replace(PLAN, ratios=[0.5]))
    assert compressor.looks == 2  # other ratios are other labels
    _, compressor, _ = build(out, compressor="other")
    assert compressor.looks == 2
    assert [set(line["scores"]) for line in more["items"]] == [{0.5}, {0.5}]


def test_the_journal_holds_no_text_and_is_enough_to_make_the_result_from(tmp_path: Path) -> None:
    out = tmp_path / "labels.json"
    build(out)
    before = read_labels([out])
    written = out.with_suffix(".items.jsonl").read_text()
    assert not any(text in written for one in ITEMS for text in (one.document, one.question))
    out.unlink()
    _, compressor, reader = build(out)
    assert compressor.looks == 0
    assert reader.contexts == []
    assert read_labels([out]) == before


def test_shards_part_the_work_and_are_read_together(tmp_path: Path) -> None:
    many = [item(number, f"w{number} two three four five", f"w{number}") for number in range(5)]
    for part in range(2):
        build(tmp_path / f"{part}.json", many, replace(PLAN, shard=(part, 2)))
    _, read = read_labels([tmp_path / "0.json", tmp_path / "1.json"])
    assert sorted(one.id for one in read) == ["0", "1", "2", "3", "4"]
    assert len(read_labels([tmp_path / "0.json"])[1]) == 3


def test_labels_of_another_reader_or_compressor_are_not_mixed(tmp_path: Path) -> None:
    build(tmp_path / "a.json")
    for name in ("backbone", "reader", "compressor"):
        build(tmp_path / "b.json", **{name: "another"})
        with pytest.raises(AdapterError, match=name):
            read_labels([tmp_path / "a.json", tmp_path / "b.json"])


def test_a_text_labelled_twice_has_the_ratios_of_both(tmp_path: Path) -> None:
    build(tmp_path / "a.json", ITEMS[:1], Plan([0.2, 0.5]))
    build(tmp_path / "b.json", ITEMS[:1], Plan([0.9]))
    read = read_labels([tmp_path / "a.json", tmp_path / "b.json"])[1]
    assert [sorted(one.scores) for one in read] == [[0.2, 0.5, 0.9]]
    assert sorted(read[0].delivered) == [0.2, 0.5, 0.9]
    build(tmp_path / "c.json", [replace(ITEMS[0], question="What?")], Plan([0.9]))
    with pytest.raises(DataError, match="another text"):
        read_labels([tmp_path / "a.json", tmp_path / "c.json"])
    assert read_labels([tmp_path / "b.json", tmp_path / "b.json"])[1][0].scores == {0.9: read[0].scores[0.9]}
    content = json.loads((tmp_path / "b.json").read_text())
    content["items"][0]["scores"]["0.9"] += 0.25
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="scored it otherwise"):
        read_labels([tmp_path / "b.json", tmp_path / "d.json"])


def test_a_text_beyond_the_window_is_skipped_and_counted(tmp_path: Path) -> None:
    result, *_ = build(tmp_path / "labels.json", [item(0, "word " * 2000, "word"), ITEMS[0]])
    assert result["counts"]["skipped"] == 1
    assert len(read_labels([tmp_path / "labels.json"])[1]) == 1


def test_what_has_been_read_already_is_refused(tmp_path: Path) -> None:
    class Reads:
        query_aware = False

        def compress(self, context: str, query: str | None = None, **_: Any) -> Compressed:
            return Compressed(4, 1, 0.25, state=object())

    with pytest.raises(LaconicError, match="read already"):
        build_labels(
            LoadedMethod("v", Reads(), Parrot()), {"squad": ITEMS}, PLAN, tmp_path / "a.json",
            backbone="b", reader="r", compressor="c", say=lambda _: None,
        )  # fmt: skip
    with pytest.raises(DataError, match="nothing to label"):
        build(tmp_path / "b.json", [])


def test_files_that_are_not_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_labels([tmp_path / "none.json"])
    (tmp_path / "cut.json").write_text('{"made": {}, "ite')
    with pytest.raises(DataError, match="no file of labels"):
        read_labels([tmp_path / "cut.json"])
    with pytest.raises(DataError, match="No files"):
        read_labels([])
    (tmp_path / "who.json").write_text('{"made": {}, "items": []}')
    with pytest.raises(DataError, match="who made"):
        read_labels([tmp_path / "who.json"])
    build(tmp_path / "good.json")
    content = json.loads((tmp_path / "good.json").read_text())
    del content["items"][0]["scores"]
    (tmp_path / "part.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no label"):
        read_labels([tmp_path / "part.json"])


def test_ratios_are_drawn_on_the_grid_and_evenly_by_factor() -> None:
    import random

    seen = [ratio for seed in range(300) for ratio in drawn_ratios(8, random.Random(seed))]
    assert all(0 < ratio < 1 for ratio in seen)
    on_grid = [ratio for ratio in seen if abs(ratio * 19 - round(ratio * 19)) < 1e-3]
    assert sum(ratio in {place / 19 for place in range(1, 19)} for ratio in on_grid) > 0.98 * len(on_grid), "exactly"
    assert 0.45 < len(on_grid) / len(seen) < 0.55
    free = [ratio for ratio in seen if abs(ratio * 19 - round(ratio * 19)) >= 1e-3]
    below = sum(ratio < 0.1414 for ratio in free) / len(free)  # the middle of [0.02, 1) by factor
    assert 0.45 < below < 0.55
    assert drawn_ratios(8, random.Random(1)) == drawn_ratios(8, random.Random(1))


def test_a_document_is_in_one_split_with_all_its_excerpts() -> None:
    splits = [split_of(f"document {number}") for number in range(2000)]
    assert 0.66 < splits.count("train") / 2000 < 0.74
    assert 0.17 < splits.count("calibration") / 2000 < 0.23
    for number in range(50):
        assert len({split_of(f"document {number}{excerpt}") for excerpt in ("", "#0", "#1200", "#1#2")}) == 1


def test_a_text_that_no_ratio_is_possible_of_is_skipped_and_the_rest_can_be_read(tmp_path: Path) -> None:
    class Particular(Counting):
        def compress(self, context: str, query: str | None = None, **options: Any) -> Compressed:
            if context.startswith("one two three four five"):
                raise BudgetError("less than one segment.", "")
            return super().compress(context, query, **options)

    items = [ITEMS[0], item(1, "six one two three four", "six")]
    build_labels(
        LoadedMethod("particular", Particular(BACKBONE), Parrot()), {"squad": items}, PLAN, tmp_path / "labels.json",
        say=lambda _: None, backbone="b", reader="r", compressor="c",
    )  # fmt: skip
    assert json.loads((tmp_path / "labels.json").read_text())["counts"]["skipped"] == 1
    _, read = read_labels([tmp_path / "labels.json"])
    assert [one.id for one in read] == ["1"]


def test_a_files_metric_does_not_hang_on_how_it_is_named() -> None:
    for name in ("qmsum_own.jsonl", "./qmsum_own.jsonl", "/data/qmsum_own.jsonl", "squality_test"):
        assert metric_of(name) == "rouge_l"
    assert metric_of("qmsum/own.jsonl") == metric_of("squad_excerpts_dev") == "f1"


def test_a_compressor_that_protects_the_same_is_the_same() -> None:
    orders = (["numbers", "names"], ["names", "numbers"], ["names", "numbers", "names"])
    assert len({compressor_digest("counting", Counting(BACKBONE, protect=kinds)) for kinds in orders}) == 1
    assert compressor_digest("counting", Counting(BACKBONE)) == "counting"


def test_labels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "good.json")
    for change in ("whole", "scores"):
        content = json.loads((tmp_path / "good.json").read_text())
        line = content["items"][0]
        line[change] = float("nan") if change == "whole" else dict.fromkeys(line["scores"], float("nan"))
        (tmp_path / "odd.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match="no label"):
            read_labels([tmp_path / "odd.json"])
