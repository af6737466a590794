"""The runner with a fake method: what it asks for, in which batches, and what its journal may be reused for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from rich.console import Console

from laconic.core.results import Answer, Compressed, Span
from laconic.data.schema import QAItem
from laconic.errors import BudgetError
from laconic.eval.report import markdown, tables
from laconic.eval.runner import MEASURES, evaluate
from laconic.methods.registry import LoadedMethod


class Words:
    """Keeps the first words; ``kept`` says whether it reports them as evidence."""

    def __init__(self, query_aware: bool = True, kept: bool = True) -> None:
        self.query_aware, self.kept = query_aware, kept
        self.calls: list[tuple[str, float | None]] = []

    def compress(self, context: str, query: str | None = None, *, ratio: float | None = None, **_: Any) -> Compressed:
        assert ratio is not None
        self.calls.append((context, ratio))
        words = context.split()
        text = " ".join(words[: max(1, int(len(words) * ratio))])
        evidence = [Span(0, len(text), text)] if self.kept else []
        return Compressed(len(words), len(text.split()), ratio, text=text, evidence=evidence, seconds={"encode": 0.5})


class NeedsEvidence(Words):
    needs_evidence = True

    def compress(self, context: str, query: str | None = None, **options: Any) -> Compressed:
        self.evidence = options["evidence"]
        return super().compress(context, query, **options)


class FakeReader:
    """Answers "mill"; refuses contexts longer than its window."""

    def __init__(self, window: int = 1000, dtype: torch.dtype = torch.float32) -> None:
        self.window, self.backbone = window, SimpleNamespace(dtype=dtype, device=torch.device("cpu"))
        self.batches: list[list[int]] = []

    def read(self, compressed: Compressed) -> Compressed:
        return compressed

    def answer_batch(
        self, compressed: Sequence[Compressed], questions: Sequence[str], max_new_tokens: int = 64
    ) -> list[Answer]:
        lengths = [context.context_tokens for context in compressed]
        if max(lengths) > self.window:
            raise BudgetError("too long.", "Raise --factor.")
        self.batches.append(lengths)
        return [Answer("the mill", context, 1, 1, 1, 1, {"encode": 0.25, "decode": 0.25}) for context in compressed]


def method(compressor: Words, reader: FakeReader) -> LoadedMethod:
    return LoadedMethod("fake", compressor, cast(Any, reader))


def item(name: str, words: int, document_id: str | None = None, question: str = "Where?") -> QAItem:
    return QAItem(name, "mill " + "owl " * (words - 1), question, ["mill"], [(0, 4)], document_id or name)


def run(out: Path, methods: dict[str, LoadedMethod], items: list[QAItem], **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"factors": [2], "reader": "r", "backbone": "b", "batch_size": 2, "say": lambda line: None}
    return evaluate(methods, {"owls": items}, out=out, **(values | changes))


def journal(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.with_suffix(".items.jsonl").read_text().splitlines()]


def test_batches_hold_contexts_of_similar_length(tmp_path: Path) -> None:
    reader = FakeReader()
    run(tmp_path / "r.json", {"a": method(Words(), reader)}, [item(str(n), n) for n in (8, 40, 10, 44)])
    assert reader.batches == [[4, 5], [20, 22]]


def test_one_compression_serves_a_document_unless_the_query_counts(tmp_path: Path) -> None:
    items = [item(str(n), 10, "same", f"Where is {n}?") for n in range(3)]
    blind, aware = Words(query_aware=False), Words()
    run(tmp_path / "r.json", {"a": method(blind, FakeReader()), "b": method(aware, FakeReader())}, items)
    assert (len(blind.calls), len(aware.calls)) == (1, 3)


def test_full_has_no_factor_and_oracles_get_the_evidence(tmp_path: Path) -> None:
    whole, oracle = Words(), NeedsEvidence()
    methods = {"full": method(whole, FakeReader()), "oracle": method(oracle, FakeReader())}
    result = evaluate(
        methods, {"owls": [item("1", 10)]}, [2, 5], tmp_path / "r.json", reader="r", backbone="b", say=lambda line: None
    )
    assert [ratio for _, ratio in whole.calls] == [1.0]
    assert [ratio for _, ratio in oracle.calls] == [0.5, 0.2]
    assert oracle.evidence == [(0, 4)]
    assert [row["factor"] for row in result["rows"]] == [1.0, 2, 5]


def test_items_with_the_same_id_keep_their_own_scores(tmp_path: Path) -> None:
    result = run(tmp_path / "r.json", {"a": method(Words(), FakeReader())}, [item("x", 8), item("x", 9)])
    assert result["rows"][0]["items"] == 2
    assert result["rows"][0]["delivered_factor"] == 2.125, "17 words in, 8 seen: neither item counted twice"


def test_a_changed_item_or_dtype_is_run_again_and_the_same_is_not(tmp_path: Path) -> None:
    out = tmp_path / "r.json"

    def calls(items: list[QAItem], dtype: torch.dtype = torch.float32) -> int:
        words = Words()
        run(out, {"a": method(words, FakeReader(dtype=dtype))}, items)
        return len(words.calls)

    assert calls([item("1", 8), item("2", 8)]) == 2
    assert calls([item("1", 8), item("2", 8)]) == 0
    assert calls([item("1", 9), item("2", 8)]) == 1
    assert calls([item("1", 8), item("2", 8)], torch.bfloat16) == 2


def test_a_torn_line_costs_one_item(tmp_path: Path) -> None:
    out, items = tmp_path / "r.json", [item(str(n), 8) for n in range(3)]
    first = run(out, {"a": method(Words(), FakeReader())}, items)
    kept = out.with_suffix(".items.jsonl")
    kept.write_text(kept.read_text()[:-30])  # killed in the middle of the last line
    words = Words()
    again = run(out, {"a": method(words, FakeReader())}, items)
    assert len(words.calls) == 1
    assert again["rows"] == first["rows"]


def test_rows_that_skipped_compare_over_what_none_skipped(tmp_path: Path) -> None:
    methods = {"full": method(Words(), FakeReader(window=20)), "half": method(Words(), FakeReader(window=20))}
    result = run(tmp_path / "r.json", methods, [item("1", 8), item("2", 30), item("3", 12)])
    full, half = result["rows"]
    assert (full["items"], full["skipped"]) == (2, 1)
    assert (half["items"], half["skipped"]) == (3, 0)
    assert full["paired"]["items"] == half["paired"]["items"] == 2
    skipped = [line for line in journal(tmp_path / "r.json") if "skipped" in line]
    assert [line["id"] for line in skipped] == ["2"]
    assert "too long" in skipped[0]["skipped"]


def test_differences_are_to_the_full_prompt_item_by_item(tmp_path: Path) -> None:
    """``full`` skips the long item; the two left differ in recall alone, wherever ``full`` stands in the list."""
    methods = {
        "skimmed": method(Words(kept=False), FakeReader()),
        "full": method(Words(), FakeReader(window=20)),
        "kept": method(Words(), FakeReader()),
    }
    result = run(tmp_path / "r.json", methods, [item("1", 8), item("2", 60), item("3", 12)])
    skimmed, full, kept = result["rows"]
    assert full["against"] == []
    (skimmed_gap,), (kept_gap,) = skimmed["against"], kept["against"]
    assert skimmed_gap["method"] == kept_gap["method"] == "full"
    assert skimmed_gap["items"] == kept_gap["items"] == 2
    assert skimmed_gap["recall"] == {"mean": -100.0, "low": -100.0, "high": -100.0}
    assert kept_gap["recall"]["mean"] == kept_gap["f1"]["mean"] == 0.0
    assert "F1 - full" in markdown(result)
    assert "+0.0 (+0.0 to +0.0)" in markdown(result)


def test_differences_to_a_method_are_at_the_same_factor(tmp_path: Path) -> None:
    methods = {
        "full": method(Words(), FakeReader()),
        "kept": method(Words(), FakeReader()),
        "skimmed": method(Words(kept=False), FakeReader()),
    }
    result = run(tmp_path / "r.json", methods, [item("1", 8)], factors=(2.0, 4.0), against=("full", "kept"))
    full, *kept, skimmed_2, skimmed_4 = result["rows"]
    assert [(gap["method"], gap["factor"]) for gap in skimmed_2["against"]] == [("full", 1.0), ("kept", 2.0)]
    assert [(gap["method"], gap["factor"]) for gap in skimmed_4["against"]] == [("full", 1.0), ("kept", 4.0)]
    assert all([gap["method"] for gap in row["against"]] == ["full"] for row in kept), "no row against itself"
    assert full["against"] == [], "which of the factors would it be?"
    heading, _, first, *_ = markdown(result).splitlines()
    assert "F1 - full" in heading
    assert "F1 - kept" in heading
    assert heading.count("|") == first.count("|")


def test_without_full_the_first_method_is_the_reference(tmp_path: Path) -> None:
    methods = {"a": method(Words(), FakeReader()), "b": method(Words(), FakeReader())}
    a, b = run(tmp_path / "r.json", methods, [item("1", 8)])["rows"]
    assert (a["against"], [gap["method"] for gap in b["against"]]) == ([], ["a"])


def test_nothing_kept_word_for_word_recalls_nothing(tmp_path: Path) -> None:
    methods = {"kept": method(Words(), FakeReader()), "skimmed": method(Words(kept=False), FakeReader())}
    kept, skimmed = run(tmp_path / "r.json", methods, [item("1", 8)])["rows"]
    assert (kept["recall"]["mean"], skimmed["recall"]["mean"]) == (100.0, 0.0)


def test_the_bill_and_the_environment_are_recorded(tmp_path: Path) -> None:
    result = run(tmp_path / "r.json", {"a": method(Words(), FakeReader())}, [item("1", 8)], notes={"seed": 3})
    assert result["rows"][0]["seconds"] == {"encode": 0.75, "decode": 0.25}
    assert journal(tmp_path / "r.json")[0]["delivered_factor"] == 2.0
    assert result["notes"] == {"seed": 3}
    assert result["rouge"]["stemmer"] is True
    environment = result["environment"]
    assert {"commit", "cpus", "date", "platform", "python"} <= set(environment)
    assert all(environment["versions"][name] for name in ("laconic", "torch", "transformers", "rouge_score"))
    assert not list(tmp_path.glob("*.part"))


def test_tables_fit_eighty_columns(tmp_path: Path) -> None:
    methods = {"full": method(Words(), FakeReader(window=1)), "embedding": method(Words(), FakeReader())}
    result = run(tmp_path / "r.json", methods, [item("1", 8)])
    gap = {"mean": -18.5, "low": -12.8, "high": -24.1}
    for row in result["rows"]:  # as wide as numbers get
        row |= {"task": "nq_multidoc_20_gold_spread", "delivered_factor": 16.97}
        row |= {m: {"mean": 99.9, "low": 98.6, "high": 100.0} for m in MEASURES}
        row["against"] = [{"method": "full", "f1": gap}]
    console = Console(width=80, record=True, file=StringIO())
    console.print(*tables(result))
    text = console.export_text()
    assert "99.9 (99-100)" in text
    assert "-18.5 (-13 to -24)" in text
    assert "skipped: full 1" in text
    assert "embedding" in text
    assert "…" not in text
    assert len([line for line in text.splitlines() if "17.0x" in line]) == 2, "no row is broken over lines"


def test_markdown_is_the_table(tmp_path: Path) -> None:
    result = run(tmp_path / "r.json", {"a": method(Words(), FakeReader(window=1))}, [item("1", 8)])
    result["rows"] += run(tmp_path / "s.json", {"b": method(Words(), FakeReader())}, [item("1", 8)])["rows"]
    heading, rule, *rows = markdown(result).splitlines()
    assert len(rows) == sum(one.row_count for one in tables(result)) == 2
    assert len({line.count("|") for line in (heading, rule, *rows)}) == 1
    assert "paired F1" in heading, "a row skipped something"
    assert "paired F1" not in markdown({"rows": result["rows"][1:]})
    assert rows[0].startswith("| owls | a | 2x | - |")
    assert "100.0" in rows[1]
