"""``laconic compress``, ``label`` and ``profile``: what they print, and what they refuse before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from outcomes import Run, assert_refused
from tiny import tiny_backbone

from laconic.cli.label import labels_of
from laconic.data.documents import read_document
from laconic.data.loaders import load_file
from laconic.eval.breakeven import REPEATS
from laconic.generation.answer import QUESTION_TEMPLATE
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.config import PoCConfig
from laconic.methods.poc.labels import Labels, Made, split_of
from laconic.methods.poc.predictor import CurvePredictor
from laconic.methods.poc.promises import TARGETS, Promises

TEXT = "The keeper wrote down the weather every morning. The ships passed; the sky was blue.\n" * 8
QUESTION = "What did the keeper write?"
PLAIN = ["--method", "selfinfo"]


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "log.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    """For the tiny backbone, untuned, and selfinfo."""
    folder = tmp_path_factory.mktemp("poc") / "saved"
    backbone = tiny_backbone()
    torch.manual_seed(0)
    model = CurvePredictor(backbone, PoCConfig(lora_rank=2, chunk_tokens=64, query=False))
    known = [Labels("squad", 1.0, {0.2: 0.5, 0.6: 0.9})]
    made = Made(backbone.content_hash, "untuned", "selfinfo", QUESTION_TEMPLATE, {})
    outcomes = [[min(1.0, target + 0.1) for target in TARGETS]] * 80
    documents = [str(number) for number in range(80)]
    model.promises = Promises(made, outcomes, documents, [0.2, 0.6], AverageCurve.of(known), {})
    model.save_pretrained(folder)
    return str(folder)


def test_the_text_alone_goes_to_stdout(run: Run, document: str, tmp_path: Path) -> None:
    shown = run("compress", document, *PLAIN, "--ratio", "0.3")
    assert shown.status == 0, shown.err
    told = json.loads(run("compress", document, *PLAIN, "--ratio", "0.3", "--json").out)
    assert shown.out == told["text"] + "\n"
    assert "bill" in shown.err
    assert told["delivered_ratio"] <= 0.3
    assert told["compressed_tokens"] == tiny_backbone().count_tokens(told["text"])
    assert told["document_tokens"] == tiny_backbone().count_tokens(read_document([document]).text)
    assert told["requested_ratio"] == 0.3
    assert told["predicted_retention"] is told["curve"] is told["promise"] is None
    to_file = run("compress", document, *PLAIN, "--ratio", "0.3", "-o", str(tmp_path / "short.txt"))
    assert to_file.out == ""
    assert (tmp_path / "short.txt").read_text() == told["text"]
    budget = json.loads(run("compress", document, *PLAIN, "--budget", "40", "--json").out)
    assert budget["compressed_tokens"] <= 40


def test_a_floor_shows_what_was_predicted_chosen_and_promised(run: Run, document: str, predictor: str) -> None:
    options = ["compress", document, *PLAIN, "--floor", "0.6", "--predictor", predictor]
    outcome = run(*options, "--json")
    assert outcome.status == 0, outcome.err
    told = json.loads(outcome.out)
    fields = (
        "text document_tokens compressed_tokens requested_ratio delivered_ratio predicted_retention curve feasible "
        "promise seconds"
    )
    assert set(fields.split()) <= set(told)
    assert told["predicted_retention"] >= 0.6
    assert [told["requested_ratio"], told["predicted_retention"]] in told["curve"]
    assert told["delivered_ratio"] <= told["requested_ratio"] + 0.02
    assert "predict" in told["seconds"]
    shown = run(*options)
    assert "predicted quality" in shown.err
    assert (
        len([line for line in shown.err.splitlines() if line.endswith("<")]) == 1
    )  # what was chosen is among the rows
    assert "of a single text nothing is promised" in " ".join(shown.err.split())
    risky = json.loads(run(*options, "--promise", "risk", "--delta", "0.2", "--json").out)
    assert risky["promise"].startswith("risk: with 80% confidence")
    whole = json.loads(run(*options[:-4], "--floor", "1", *options[-2:], "--json").out)
    assert whole["text"].strip() == TEXT.strip()
    assert whole["requested_ratio"] == 1


def test_ask_goes_by_a_floor_from_end_to_end(run: Run, document: str, predictor: str) -> None:
    options = ["--method", "selfinfo", "--adapter", "none", "--predictor", predictor, "--max-new-tokens", "3"]
    outcome = run("ask", document, QUESTION, *options, "--floor", "0.6", "--json")
    assert outcome.status == 0, outcome.err
    told = json.loads(outcome.out)
    compressed = json.loads(
        run("compress", document, *PLAIN, "-q", QUESTION, "--floor", "0.6", "--predictor", predictor, "--json").out
    )
    assert told["context_tokens"] == compressed["compressed_tokens"] < told["document_tokens"]
    assert told["floor"] == 0.6
    assert any("is predicted to keep" in note for note in told["notes"])
    assert told["predicted_retention"] == compressed["predicted_retention"]
    assert told["promise"] == compressed["promise"]
    assert_refused(run("ask", document, QUESTION, *options, "--auto"), "--floor")
    assert any("nothing is promised" in note for note in told["notes"])
    shown = run("ask", document, QUESTION, *options, "--floor", "0.6")
    assert "floor: 0.6" in shown.err
    assert_refused(run("ask", document, QUESTION, *options, "--floor", "2"), "floor")
    assert_refused(run("ask", document, QUESTION, *options, "--floor", "0.6", "--factor", "4"), "--factor")
    assert_refused(run("ask", document, QUESTION, *options, "--floor", "0.6", "--promise", "no"), "no promise")
    assert_refused(run("ask", document, QUESTION, "--method", "full", "--floor", "0.6"), "any ratio")
    assert_refused(
        run("ask", document, QUESTION, *options, "--floor", "1", "--max-new-tokens", "450"), "Lower the floor"
    )


def test_slips_are_told_in_one_line(
    run: Run, document: str, predictor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = ["--floor", "0.5", "--predictor", predictor]
    assert_refused(run("compress", document, *PLAIN, "--ratio", "0.5", "--each-chunk"), "comes of a floor")
    assert_refused(run("compress", document, *PLAIN, *floor, "--each-chunk", "--promise", "risk"), "promises the mean")
    assert run("compress", document, *PLAIN, *floor, "--each-chunk", "--json").status == 0
    assert_refused(run("compress", document, *PLAIN), "a floor, a ratio or a budget")
    with monkeypatch.context() as patch:
        patch.setattr("laconic.cli.compress.open_backbone", None)  # nothing is loaded
        for method in ("bm25", "embedding", "contrastive"):
            assert_refused(run("compress", document, "--ratio", "0.5", "--method", method), "--query")
        assert_refused(run("compress", document, "--floor", "0.5"), "--query")
        out = str(tmp_path / "new" / "a.txt")
        assert_refused(run("compress", "missing.txt", "--ratio", "0.5", "-o", out), "missing")
        assert not (tmp_path / "new").exists()
        bm25 = ["--ratio", "0.5", "--method", "bm25", "-q", QUESTION]
        assert_refused(run("compress", document, *bm25, "--protect", "names"), "protects no words")
        assert_refused(run("compress", document, *bm25, "--classifier", predictor), "has no classifier")
    assert_refused(run("compress", document, "-o", f"{document}/out.txt", "--ratio", "0.5"), "cannot be written")
    assert_refused(run("compress", document, *PLAIN, "--ratio", "0.5", "--budget", "9"), "one of them alone")
    for ratio in ("0", "1.5", "-1", "nan"):
        assert_refused(run("compress", document, *PLAIN, "--ratio", ratio), "ratio")
    for wrong in ("-0.1", "1.01", "nan"):
        assert_refused(run("compress", document, *PLAIN, "--floor", wrong, "--predictor", predictor), "floor")
    assert_refused(run("compress", document, *PLAIN, "--budget", "0"), "budget")
    assert_refused(run("compress", document, "--method", "ram", "--ratio", "0.5"), "vectors")
    assert_refused(run("compress", document, "--method", "full", "--ratio", "0.5"), "any ratio")
    assert_refused(run("compress", document, *PLAIN, "--ratio", "0.5", "--protect", "verbs"), "cannot be protected")
    assert_refused(run("compress", document, "--method", "bm25", "--ratio", "0.5", "--protect", "names"), "segments")
    assert_refused(run("compress", document, *PLAIN, "--ratio", "0.5", "--classifier", "x"), "no classifier")
    assert_refused(run("compress", document, "--method", "contrastive", "--ratio", "0.5"), "question")
    assert_refused(run("compress", document, *PLAIN, "-q", " ", "--ratio", "0.5"), "question")
    assert_refused(run("compress", document, *PLAIN, *floor, "--promise", "surely"), "no promise")
    assert_refused(run("compress", document, *PLAIN, *floor, "--promise", "risk", "--delta", "1"), "delta")
    assert_refused(run("compress", document, *PLAIN, *floor, "--policy", "last"), "policy")
    assert_refused(run("compress", document, *PLAIN, "--ratio", "0.5", "--policy", "first"), "--floor")
    for more in (["--promise", "risk"], ["--delta", "0.3"], ["--predictor", predictor]):
        assert_refused(run("compress", document, *PLAIN, "--ratio", "0.5", *more), "What is promised is a floor")
    assert_refused(run("compress", document, *PLAIN, *floor, "--policy", "first", "--promise", "risk"), "safe")
    assert_refused(run("compress", document, "--method", "contrastive", "-q", "Who?", *floor), "compressor")
    assert_refused(run("compress", document, *PLAIN, "--floor", "0.5"), "no predictor")
    assert_refused(run("compress", str(tmp_path / "none.txt"), *PLAIN, "--ratio", "0.5"), "none.txt")
    assert_refused(run("compress", document, *PLAIN, "--ratio", "0.5", "-o", str(tmp_path)), "folder")
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    assert_refused(run("compress", str(empty), *PLAIN, "--ratio", "0.5"), "empty")


def test_auto_goes_by_the_profile_of_this_machine(run: Run, document: str, predictor: str, tmp_path: Path) -> None:
    options = ["compress", document, *PLAIN, "--ratio", "0.5", "--auto", "--json"]
    assert_refused(run(*options), "laconic profile")
    made = run("profile", *PLAIN, "--lengths", "32,64", "--json", str(tmp_path / "profile.json"))
    assert made.status == 0, made.err
    assert "saved at" in made.out
    assert json.loads((tmp_path / "profile.json").read_text())["notes"] == {"repeats": REPEATS}
    assert (tmp_path / "profile.png").is_file()
    kept = next((tmp_path / "cache" / "profiles").glob("*.json"))
    known = json.loads(kept.read_text())
    for slow, left in ((1000.0, True), (1e-7, False)):
        kept.write_text(json.dumps(known | {"compress": [slow, slow], "read": [1.0, 2.0]}))
        told = json.loads(run(*options).out)
        assert (told["delivered_ratio"] == 1) == left
        assert any("skipped" in note for note in told["notes"]) == left
        steered = json.loads(
            run("compress", document, *PLAIN, "--floor", "0.5", "--predictor", predictor, "--auto", "--json").out
        )
        assert any("skipped" in note for note in steered["notes"]) == left
        assert (steered["requested_ratio"] == steered["predicted_retention"] == 1) == left
        safe = json.loads(run(*options, "--protect", "numbers").out)  # of the same profile
        assert any("skipped" in note for note in safe["notes"]) == left
        asked = json.loads(
            run(
                "ask", document, QUESTION, *PLAIN, "--adapter", "none", "--floor", "0.5", "--predictor", predictor,
                "--auto", "--json", "--max-new-tokens", "3",
            ).out
        )  # fmt: skip
        assert any("skipped" in note for note in asked["notes"]) == left
    assert_refused(run("profile", *PLAIN, "--lengths", "many"), "lengths")
    assert_refused(run("profile", *PLAIN, "--lengths", "2"), "16 tokens")
    assert_refused(run("profile", *PLAIN, "--lengths", "64"), "One length")


def test_labels_from_the_command_line(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    lines = [
        {"id": n, "document": f"w{n} " + TEXT[:200], "question": QUESTION, "answers": ["weather"]} for n in range(5)
    ]
    data.write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "labels.json"
    done = run("label", str(data), *PLAIN, "--ratios", "0.2,0.5", "--out", str(out), "--adapter", "none")
    assert done.status == 0, done.err
    content = json.loads(out.read_text())
    assert content["counts"]["texts"] == 5
    assert content["made"]["compressor"] == "selfinfo"
    assert content["made"]["reader"] == "untuned"
    part = run(
        "label", str(data), *PLAIN, "--ratios", "0.5", "--out", str(out), "--adapter", "none", "--split", "train"
    )
    assert part.status == 0, part.err
    wanted = [item.id for item in load_file(data) if split_of(item.document_id) == "train"]
    assert [item["id"] for item in json.loads(out.read_text())["items"]] == wanted
    assert len(wanted) > 1
    two = [*PLAIN, "--ratios", "0.5", "--out", str(out), "--adapter", "none", "--split", "train", "--limit", "1"]
    assert run("label", str(data), *two).status == 0
    assert len(json.loads(out.read_text())["items"]) == 1, "the limit is of the split"
    assert_refused(run("label", str(data), "--split", "test"), "no split")
    for wrong in ("0", "0.5,2", "some"):
        assert_refused(run("label", str(data), "--ratios", wrong), "ratios")
    assert_refused(run("label", str(data), "--shard", "2/2"), "shard")
    assert {str(labels_of(shard)) for shard in ("0/1", "0/2", "1/2")} == {
        "runs/labels.json", "runs/labels-0-of-2.json", "runs/labels-1-of-2.json",
    }  # fmt: skip
    assert_refused(run("label", str(data), "--out", str(tmp_path / "x.txt")), "JSON")
    assert_refused(run("label", "nothing_known"), "no task")
