"""What the scripts of benchmarks make of results, without any measuring."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import tiny_backbone

from laconic.train.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a script by name, and forgets it: its name may be that of another module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "scripts"))
    known = set(sys.modules)

    def load(name: str) -> ModuleType:
        return import_module(name)

    yield load
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "benchmarks")):
            del sys.modules[name]


def test_pages_say_what_the_result_files_say(script: Any) -> None:
    """Whoever changes a result, or a number on a page, is reminded of the other."""
    tables = script("tables")
    for name, blocks in tables.PAGES.items():
        text = (ROOT / name).read_text()
        assert tables.filled(text, blocks) == text, f"{name}: run benchmarks/scripts/tables.py"
        assert tables.filled(text.replace("|", "!"), blocks) != text.replace("|", "!")


def test_beside_llmlingua_every_way_has_its_column(script: Any) -> None:
    rows = [
        {"package": package, "dtype": dtype, "tokens": tokens, "tokens_per_second": 1234.5, "delivered": 0.25}
        for tokens in (134, 5550)
        for package, dtype in (("laconic", "float32"), ("llmlingua", "float32"), ("llmlingua", "bfloat16"))
    ]
    result = {"rows": rows, "their versions": {"llmlingua": "0.2.2"}, "ratio": 0.25}
    lines = script("poc_tables").beside(result).splitlines()
    assert lines[-4] == "| tokens | laconic, float32 | llmlingua, float32 | llmlingua, bfloat16 |"
    assert lines[-1] == "| 5,550 | 1,234, 0.250 | 1,234, 0.250 | 1,234, 0.250 |"


def test_poc_tables_keep_apart_what_was_seen_carried_over_and_trained_again(script: Any) -> None:
    tables = script("poc_tables")
    asked = {"floor": 0.9, "promise": "mean", "each chunk": False, "ratio": 0.5, "gains as 1": 0.91, "below": 0.2}
    errors = {"average": {"ppe": 0.3}, "text": {"ppe": 0.1}, "text, other seed 1": {"ppe": 0.2}}
    short = {"task": "a_dev", "texts": 5, "score nothing when whole": 1, "seen in training": True, "delivered": [asked]}
    short |= {"errors": errors, "pr": {"text": {"value": 0.5, "minus fixed": [0.01, -0.02, 0.03]}}}
    long = short | {"task": "b_test", "seen in training": False}
    long |= {"delivered": [asked, asked | {"each chunk": True, "ratio": 0.4}]}
    elsewhere = [{name: short[name] for name in ("task", "texts", "errors", "pr")}]
    result = {"rows": [short, long], "elsewhere": elsewhere, "notes": {}}
    result["notes"] |= {"texts trained on": 9, "held out for promises": 3}
    predicted = tables.predicted(result).splitlines()
    assert [line.split(" | ")[0] for line in predicted[4:7]] == [
        "| a_dev",
        "| b_test, new to the predictor",
        "| a_dev, another compressor",
    ]
    assert "| 50.0 (+1.0; -2.0 to +3.0), PPE 0.100 | never compresses, PPE 0.300 |" in predicted[4]
    assert predicted[-1].endswith(
        "2 seeds: a_dev 0.100, 0.200; b_test 0.100, 0.200; a_dev, another compressor 0.100, 0.200."
    )
    assert tables.floors(result).splitlines()[2:] == [
        "| task | texts | 0.9, mean | 0.9, mean, each chunk |",
        "|---|---|---|---|",
        "| a_dev | 4 | 0.50 / 0.91 / 20% | one chunk |",
        "| b_test, new to the predictor | 4 | 0.50 / 0.91 / 20% | 0.40 / 0.91 / 20% |",
    ]


def test_a_committed_adapter_is_taken_if_all_its_parts_were_made_so(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reasoning = script("reasoning")

    def part(name: str, **changes: Any) -> dict[str, Any]:
        return {"name": name, "seed": 0, "steps": 3, "output": "runs/x", "start": "runs/y"} | changes

    chain = [part("cpu"), part("long"), part("finish")]
    moved = {"output": "elsewhere", "start": "elsewhere"}
    made: dict[str, Any] = {}

    def found(recipes: list[dict[str, Any]]) -> Path | None:
        monkeypatch.setattr(reasoning, "shipped_adapter", lambda backbone, name: tmp_path)
        monkeypatch.setattr(reasoning.persist, "read_description", lambda folder: {"provenance": made})
        return reasoning.committed(tiny_backbone(), "any", recipes)

    for own in chain:  # the last part's description is outermost
        made = {"recipe": own | moved} | ({"start": made} if made else {})
    assert found(chain) == tmp_path
    assert found([part("cpu", steps=4), *chain[1:]]) is None
    assert found([*chain[:2], part("finish", seed=1)]) is None
    assert found([part("before"), *chain]) is None  # nothing says how the first was made
    made = {"recipe": part("cpu", output="elsewhere")}
    assert found(chain[:1]) == tmp_path
    made = {"recipe": part("cpu", start="elsewhere")}
    assert found(chain[:1]) is None  # of a single part, the start is its own


def test_a_student_is_brought_away_from_its_teacher_in_each_way(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    divergence = script("divergence")
    recipe = divergence.load_recipe(divergence.RECIPE)
    ran: list[dict[str, Any]] = []

    def run(path: Path, changes: list[str]) -> Path:
        ran.append(divergence.load_recipe(path, changes))
        output = Path(ran[-1]["output"])
        (output / "learn").mkdir(parents=True, exist_ok=True)
        (output / "learn" / "log.jsonl").write_text('{"asked/right": 0.5}\n')
        return output / "method"

    monkeypatch.setattr(divergence, "run_recipe", run)
    monkeypatch.setattr(divergence, "environment", dict)
    own = recipe["vanilla"]["prompt"]
    met = {}
    for away in divergence.AWAY:
        ran.clear()
        journal = divergence.Journal(tmp_path / "result.json")
        for _ in range(2):  # the second time it is in the journal
            assert divergence.learnt(journal, recipe, {}, away, "rkl", 3, tmp_path) == [{"asked/right": 0.5}]
        assert divergence.made(journal, recipe, {})[away] == {"rkl": {3: [{"asked/right": 0.5}]}}
        assert divergence.made(journal, recipe | {"backbone": "another"}, {}) == {}
        *warm, learn = ran
        assert [stage["name"] for one in ran for stage in one["stages"]] == ["warm", "learn"][-len(ran) :]
        assert all(one["seed"] == 3 for one in ran)
        assert learn["vanilla"]["prompt"] == own  # it is asked as its teacher
        assert learn["start"] == (str(Path(warm[0]["output"]) / "method") if warm else None)
        assert learn["stages"][0]["objective"] == "rkl"
        steps = warm[0]["stages"][0]["loop"]["steps"] if warm else 0
        prompt = warm[0]["vanilla"]["prompt"] if warm else own
        met[away] = steps, prompt
    # a small number stays one: JSON writes 3e-05, which YAML takes for a word
    recipe["stages"][1]["loop"] |= {"learning_rate": 3e-5}
    assert divergence.load_recipe(divergence.learning(recipe, tmp_path))["stages"][0]["loop"]["learning_rate"] == 3e-5
    assert met == {
        "10 steps": (10, own),
        "5 steps": (5, own),
        "no steps": (0, own),
        "40 steps, another prompt": (40, "Problem: {problem}\nSolution:\n"),
    }


def test_distances_are_compared_over_seeds_and_by_answers(script: Any) -> None:
    divergence, tables = script("divergence"), script("tgpo_tables")

    def run(*right: float, length: float = 50.0) -> list[dict[str, Any]]:
        learnt = {"completions/mean_length": length, "completions/clipped_ratio": 0.25, "entropy": 0.5}
        ends = {1: {"teacher/agreement": 0.25}, len(right) - 1: {"teacher/agreement": 0.75}}
        return [
            {"samples": 32 * step, "asked/right": share, **learnt, "completions/mean_length": length + step}
            | ends.get(step, {})
            for step, share in enumerate(right)
        ]

    logs = {
        "tgpo": {0: run(0.0, 0.5, 0.75), 3: run(0.25, 0.25, 0.5)},
        "rkl": {0: run(0.0, 0.25, 0.25), 3: run(0.25, 0.0, 0.25), 4: run(0.25, 0.25, 0.25)},
    }
    tgpo, rkl = divergence.table("no steps", logs)
    assert (tgpo["before"], tgpo["after"][0], rkl["after"], rkl["seeds"]) == (12.5, 62.5, [25.0, 25.0, 25.0], 3)
    assert tgpo["minus rkl"] == [37.5, -100, 100], "no difference of shares is larger"
    assert "minus rkl" not in rkl
    assert tgpo["answers to rkl's end"] == [32, 0]
    assert rkl["answers to rkl's end"] == [32, 0, 0]
    assert divergence.table("no steps", {"tgpo": {0: run(0.5, 1.0)}})[0]["after"] == [100.0, None, None]
    told = tables.far({"recipe": divergence.load_recipe(divergence.RECIPE), "rows": [tgpo, rkl]})
    assert (
        "| no steps | TGPO, 2 | 12 | 62.5 (0.0 to 100.0) | +37.5 (-100.0 to +100.0) | 32, 0 | 25, 75 | 52 | 25 |"
        in told
    )
    assert "| no steps | reverse KL, 3 | 17 | 25.0 (25.0 to 25.0) | - | 32, 0, 0 | 25, 75 | 52 | 25 |" in told


def test_a_goal_that_is_not_reached_is_told(script: Any) -> None:
    divergence, tables = script("divergence"), script("tgpo_tables")
    line = {"completions/mean_length": 9.0, "completions/clipped_ratio": 0.0, "entropy": 0.1}
    logs = {
        name: {0: [{"samples": 32 * at, "asked/right": share, **line} for at, share in enumerate(right)]}
        for name, right in {"grpo": [0.0, 0.25], "rkl": [0.0, 0.5]}.items()
    }
    rows = divergence.table("no steps", logs)
    told = tables.far({"recipe": divergence.load_recipe(divergence.RECIPE), "rows": rows})
    assert "| GRPO, 1 | 0 | 25.0 | -25.0 | never | - | 9 | 0 |" in told
    logs["rkl"][0][0]["asked/right"] = 0.75  # who gets worse sets none either
    assert all("answers to rkl's end" not in row for row in divergence.table("no steps", logs))
    logs["rkl"][0][0]["asked/right"] = logs["rkl"][0][-1]["asked/right"] = (
        0.0  # who solves nothing sets no goal that all would have reached at once
    )
    rows = divergence.table("no steps", logs)
    told = tables.far({"recipe": divergence.load_recipe(divergence.RECIPE), "rows": rows})
    assert "| GRPO, 1 | 0 | 25.0 | +25.0 | - | - | 9 | 0 |" in told


def test_costs_are_of_a_recipe_that_can_be_run(script: Any) -> None:
    costs = script("tgpo_costs")
    for changes in costs.CHANGES.values():
        load_recipe(costs.RECIPE, [*costs.settings(7, 8), *changes])


def labelled(poc: Any, ident: int, whole: float, scores: list[float]) -> Any:
    by_ratio = dict(zip((0.2, 0.5, 0.8), scores, strict=True))
    return poc.Labelled(str(ident), "qa", str(ident), "some text", "Who?", whole, by_ratio, {r: r for r in by_ratio})


def test_the_true_curve_has_no_error(script: Any) -> None:
    """PoC's invariant 12: the error of prediction is 0 for the oracle, and counts gains as 1."""
    poc = script("poc")
    one = labelled(poc, 0, 0.5, [0.1, 0.4, 0.8])
    assert poc.errors_of(lambda ratios: [{0.2: 0.2, 0.5: 0.8, 0.8: 1.0}[ratio] for ratio in ratios], one) == [0, 0, 0]
    assert poc.errors_of(lambda ratios: [1.0] * len(ratios), one) == pytest.approx([0.8, 0.2, 0.0])


def test_a_policy_gets_the_next_ratio_that_was_labelled(script: Any) -> None:
    poc = script("poc")
    grid = poc.Grid([labelled(poc, 0, 0.5, [0.1, 0.4, 0.8]), labelled(poc, 1, 1.0, [0.3, 0.6, 0.9])])
    points = grid.outcomes([[0.2, 0.21], [0.81, 0.0]])
    assert points.ratios.tolist() == [[0.2, 0.5], [1.0, 0.2]]
    assert points.scores.tolist() == [[0.1, 0.6], [0.5, 0.3]]


def test_what_does_not_look_at_the_text_is_as_good_as_a_fixed_ratio(script: Any) -> None:
    """By the very code of the published tables: a policy of one curve for all texts is a fixed ratio."""
    poc = script("poc")
    texts = [labelled(poc, n, 1.0, [0.1 * n, 0.1 * n + 0.2, 0.1 * n + 0.4]) for n in range(6)]
    average = poc.AverageCurve.of([one.labels for one in texts])
    threshold = poc.Threshold.fit([[0.5, 0.9]] * 6, [one.labels for one in texts])
    curves = {name: [average] * 6 for name in ("average", "features", "text")}
    row, _ = poc.evaluate("qa", texts, curves, [[0.5, 0.9]] * 6, threshold)
    assert row["pr"]["average"]["value"] == pytest.approx(row["pr"]["fixed"]["value"], abs=0.01)
    assert row["pr"]["average"]["minus fixed"][0] == pytest.approx(0.0, abs=0.01)
    assert row["pr"]["oracle"]["value"] > row["pr"]["fixed"]["value"] + 0.01


def test_aligned_ends_are_compared_from_one_start(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ends = script("eos_alignment")
    divergence = sys.modules["divergence"]
    ran: list[dict[str, Any]] = []
    line = {"samples": 16, "seconds": 1.0, "completions/mean_length": 9.0, "completions/clipped_ratio": 0.5}

    def run(path: Path, changes: list[str]) -> Path:
        ran.append(divergence.load_recipe(path, changes))
        output = Path(ran[-1]["output"])
        (output / "learn").mkdir(parents=True, exist_ok=True)
        log = [line | {"asked/right": 0.25}, line, line | {"asked/right": 0.5}]  # before it, and of two batches
        for number, one in enumerate(log):
            one["completions/mean_length"] = 9.0 + number
        (output / "learn" / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
        return output / "method"

    for module in (ends, divergence):
        monkeypatch.setattr(module, "run_recipe", run)
    monkeypatch.setattr(ends, "renamed", lambda folder: folder)
    monkeypatch.setattr(sys, "argv", ["eos_alignment.py", "--runs", str(tmp_path), "--out", str(tmp_path / "out.json")])
    ends.main()
    warm, *learn = ran
    assert warm["stages"][0]["loop"]["steps"] == 10
    assert {one["start"] for one in learn} == {str(Path(warm["output"]) / "method")}
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert len(rows) == len(learn) == len({str(one) for one in learn})
    told = ("right before", "right after", "length before", "length after", "cut off, %")
    assert {tuple(row[name] for name in told) for row in rows} == {(25.0, 50.0, 10.0, 11.0, 50.0)}


def test_worked_solutions_are_as_many_a_step_as_answers_in_an_update(script: Any, tmp_path: Path) -> None:
    healing = script("healing")
    recipe = load_recipe(healing.RECIPE)
    own = recipe["stages"][0]
    made = load_recipe(healing.supervised(recipe, 30, tmp_path))
    (stage,) = made["stages"]
    assert stage["rows"] * own["updates"] == own["rows"] * own["answers"]
    assert (stage["loop"]["steps"], stage["task"], made["start"]) == (30, own["task"], recipe["start"])


def test_costs_are_told_step_by_step_of_the_same_answers(script: Any) -> None:
    same = {"words": [9.0] * 4, "reward": [0.5] * 4}
    grpo = same | {"step_s": [99.0, 10.0, 20.0, 40.0], "peak_mb": 900.0}
    tgpo = same | {
        "step_s": [1.0, 12.0, 22.0, 84.0],
        "teacher_s": [9.0, 1.0, 2.0, 4.0],
        "teacher_mb": 100.0,
        "peak_mb": 1050.0,
    }
    found = script("tgpo_costs").added(grpo, tgpo)
    assert found["to_each_step"] == [0.1, 0.0, 1.0]  # the first is to warm up
    assert (found["to_a_step"], found["to_the_peak"]) == (0.1, 0.05)
    assert (found["steps"], found["alike"]) == (3, 3)
    tgpo["reward"] = [0.5, 0.5, 0.25, 0.5]
    assert script("tgpo_costs").added(grpo, tgpo)["alike"] == 2
