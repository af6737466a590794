"""The command line as a user meets it: ``main()`` with real methods on a tiny random decoder.

A mistake is one line on stderr that names problem and remedy, nothing on stdout, and exit status 2.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from outcomes import Outcome, Run, assert_refused
from tiny import tiny_backbone
from typer.testing import CliRunner

from laconic.cli.main import app, main
from laconic.core.persist import save_method
from laconic.data.loaders import samples_folder
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.model import RAM

WORDS = "The lighthouse keeper wrote down the weather every morning. "
BILL = {
    "answer", "method", "backbone", "document_tokens", "context_tokens", "requested_factor", "delivered_factor",
    "evidence", "seconds", "peak_memory_mb",
}  # fmt: skip


@pytest.fixture
def book(tmp_path: Path) -> str:
    """About 1,600 tokens of the tiny tokenizer, three times its decoder's window."""
    path = tmp_path / "book.txt"
    path.write_text(WORDS * 60 + "The lamp of Skerry is green. " + WORDS * 60)
    return str(path)


# --- ask -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["head", "tail", "middle", "bm25", "random"])
def test_json_is_one_object_and_the_bill_adds_up(run: Run, book: str, method: str) -> None:
    outcome = run("ask", book, "Which colour has the lamp?", "--method", method, "--json", "--max-new-tokens", "4")
    assert outcome.status == 0
    assert outcome.err == ""
    result = json.loads(outcome.out)
    assert set(result) >= BILL
    assert result["method"] == method
    assert result["backbone"] == "tiny-llama"
    assert result["requested_factor"] == "auto"
    assert 0 < result["context_tokens"] < 512 < result["document_tokens"]
    assert result["delivered_factor"] == pytest.approx(result["document_tokens"] / result["context_tokens"], abs=1e-3)
    text = Path(book).read_text()
    assert result["evidence"]
    assert all(text[span["start"] : span["end"]] == span["text"] for span in result["evidence"])
    assert {"load", "prefill", "decode"} <= set(result["seconds"])
    assert result["peak_memory_mb"] > 0


def test_auto_is_the_mildest_that_fits(run: Run, book: str) -> None:
    question = "Which colour has the lamp?"
    fits = json.loads(run("ask", book, question, "--method", "head", "--json").out)
    prompt = tiny_backbone().count_tokens(f"\n\nQuestion: {question}\nAnswer:")
    assert 512 - prompt - 64 - 2 <= fits["context_tokens"] <= 512 - prompt - 64
    small = json.loads(run("ask", book, question, "--method", "head", "--budget", "100", "--json").out)
    assert 98 <= small["context_tokens"] <= 100


def test_a_factor_is_delivered(run: Run, book: str) -> None:
    result = json.loads(
        run("ask", book, "Which colour has the lamp?", "--method", "bm25", "--factor", "8", "--json").out
    )
    assert result["requested_factor"] == 8.0
    assert result["delivered_factor"] >= 8
    assert any("green" in span["text"] for span in result["evidence"])


def test_json_survives_a_library_that_prints(run: Run, book: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from laconic.methods.baselines.truncate import Truncate

    compress = Truncate.compress
    monkeypatch.setattr(Truncate, "compress", lambda *a, **k: print("noise") or compress(*a, **k))
    outcome = run("ask", book, "Which?", "--method", "head", "--json")
    assert json.loads(outcome.out)["method"] == "head"
    assert "noise" in outcome.err


def test_people_get_answer_passages_and_bill(run: Run, book: str) -> None:
    outcome = run("ask", book, "Which colour has the lamp?", "--method", "bm25", "--budget", "120")
    assert outcome.status == 0
    for words in (
        "load the model",
        "compress with bm25",
        "bill",
        "decoder saw",
        "peak memory",
        "Skerry is green",
    ):
        assert words in outcome.err
    assert "bill" not in outcome.out  # stdout holds the answer alone
    answer = json.loads(
        run("ask", book, "Which colour has the lamp?", "--method", "bm25", "--budget", "120", "--json").out
    )
    assert "".join(outcome.out.split()) == "".join(answer["answer"].split())


def test_several_documents_and_standard_input(run: Run, book: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"A page from a pipe.")))
    outcome = run("ask", "-", book, "Which?", "--method", "tail", "--json")
    both = json.loads(outcome.out)["document_tokens"]
    assert both > json.loads(run("ask", book, "Which?", "--method", "tail", "--json").out)["document_tokens"]


def test_ram_with_an_adapter_is_the_default(run: Run, book: str, tmp_path: Path) -> None:
    config = RAMConfig(segment_tokens=16, encoder_layers=2, projection=8, encoder_rank=2, decoder_rank=2)
    RAM(tiny_backbone(), config).save_pretrained(tmp_path / "adapter")
    question, adapter = "Which colour has the lamp?", str(tmp_path / "adapter")
    result = json.loads(run("ask", book, question, "--adapter", adapter, "--json").out)
    assert result["method"] == "ram"
    assert result["delivered_factor"] > 1
    # one vector per segment is more than 40 tokens: neighbours share them, and the bill says so
    small = json.loads(run("ask", book, question, "--adapter", adapter, "--budget", "40", "--json").out)
    assert small["context_tokens"] <= 40
    assert "share skim vectors" in small["notes"][0]
    assert "share skim vectors" in run("ask", book, question, "--adapter", adapter, "--budget", "40").err
    assert_refused(run("ask", book, question, "--adapter", adapter, "--factor", "17"), "Use a factor of at most 15.8")


def test_full_takes_a_short_document_whole(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(WORDS)
    result = json.loads(run("ask", str(tmp_path / "a.txt"), "What?", "--method", "full", "--json").out)
    assert result["delivered_factor"] == 1


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b" \n\t ", "is empty"), (b"\x7fELF\0\0\1\2" * 50, "binary"), (b"%PDF-1.4 cut", "PDF")],
    ids=["empty", "white space", "binary", "damaged pdf"],
)
@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["people", "json"])
def test_bad_documents(run: Run, tmp_path: Path, content: bytes, words: str, as_json: list[str]) -> None:
    path = tmp_path / "document"
    path.write_bytes(content)
    assert_refused(run("ask", str(path), "Where?", *as_json), words, "document")


def test_missing_document_and_folder(run: Run, tmp_path: Path) -> None:
    assert_refused(run("ask", "none.txt", "Where?"), "There is no file none.txt", "Check the path")
    assert_refused(run("ask", str(tmp_path), "Where?"), "is a folder")


@pytest.mark.parametrize("question", ["", "  \n"])
def test_empty_question(run: Run, book: str, question: str) -> None:
    assert_refused(run("ask", book, question), "The question is empty")


def test_a_question_in_a_wrong_encoding_is_asked_all_the_same(run: Run, book: str) -> None:
    outcome = run("ask", book, "Who wrote caf\udce9?", "--method", "bm25", "--factor", "4", "--json")
    assert outcome.status == 0
    assert json.loads(outcome.out)["document_tokens"]


@pytest.mark.parametrize("method", ["head", "bm25", "full"])
def test_question_longer_than_the_window(run: Run, book: str, method: str) -> None:
    assert_refused(run("ask", book, WORDS * 60, "--method", method), "window of 512", "Ask a shorter question")


@pytest.mark.parametrize("factor", ["1", "0", "0.5", "-4", "nan", "inf", "many", ""])
def test_impossible_factors(run: Run, book: str, factor: str) -> None:
    assert_refused(run("ask", book, "Where?", "--factor", factor), "not a number above 1", "or auto")


def test_factor_too_mild_for_the_window(run: Run, book: str) -> None:
    outcome = run("ask", book, "Where?", "--method", "head", "--factor", "1.5")
    assert_refused(outcome, "has room for", "--factor auto, or at least")
    advised = outcome.err.splitlines()[-1].rsplit(" ", 1)[1].rstrip(".")
    assert run("ask", book, "Where?", "--method", "head", "--factor", advised, "--json").status == 0


def test_factor_too_strong_for_the_segments(run: Run, book: str) -> None:
    assert_refused(run("ask", book, "Where?", "--method", "bm25", "--factor", "400"), "segment", "Lower the factor")


@pytest.mark.parametrize("budget", ["0", "-5"])
def test_impossible_budgets(run: Run, book: str, budget: str) -> None:
    assert_refused(run("ask", book, "Where?", "--budget", budget), "budget")


def test_factor_and_budget_together(run: Run, book: str) -> None:
    assert_refused(run("ask", book, "Where?", "--factor", "4", "--budget", "100"), "Give one of them")


def test_full_saves_nothing_and_must_fit(run: Run, book: str) -> None:
    for option in (["--factor", "4"], ["--budget", "100"]):
        assert_refused(run("ask", book, "Where?", "--method", "full", *option), "takes the whole document in")
    assert_refused(run("ask", book, "Where?", "--method", "full"), "has room for", "method that compresses")


def test_oracle_is_for_evaluation(run: Run, book: str) -> None:
    assert_refused(run("ask", book, "Where?", "--method", "oracle"), "laconic eval")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask"], "error: Missing argument 'question'. See `laconic ask --help`.\n"),
        (
            ["ask", "book.memory"],
            "error: A document and a question are needed, and only 'book.memory' is given."
            ' Write `laconic ask BOOK.txt "What ...?"`.\n',
        ),
        (["methods", "--frob"], "error: No such option: --frob. See `laconic methods --help`.\n"),
        (["info", "extra"], "error: Got unexpected extra argument(s) (extra). See `laconic info --help`.\n"),
        (["frob"], "error: No such command 'frob'. See `laconic --help`.\n"),
    ],
)
def test_a_command_written_wrongly_is_one_line_too(run: Run, arguments: list[str], said: str) -> None:
    assert run(*arguments) == Outcome(2, "", said)


def test_no_command_shows_the_help(run: Run) -> None:
    outcome = run()
    assert outcome.status == 2
    assert "Usage: laconic" in outcome.out + outcome.err
    assert run("--help").status == 0


def test_an_unknown_method_is_found_before_a_model_is_loaded(
    run: Run, book: str, questions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object) -> None:
        raise AssertionError("a model was loaded first")

    for command in ("ask", "evaluate"):
        monkeypatch.setattr(f"laconic.cli.{command}.open_backbone", too_late)
    assert_refused(run("ask", book, "Where?", "--method", "rum"), "There is no method 'rum'", "ram")
    out = str(tmp_path / "out.json")
    assert_refused(
        run("eval", questions, "--method", "head,rum", "--json", out), "There is no method 'rum'", "ram", "memosight"
    )


def test_missing_and_mismatched_adapters(run: Run, book: str, tmp_path: Path) -> None:
    assert_refused(run("ask", book, "Where?"), "no trained RAM for tiny-llama")
    assert_refused(run("ask", book, "Where?", "--adapter", str(tmp_path / "none")), "not a saved method")
    other = tiny_backbone("qwen2")
    save_method(tmp_path / "other", method="ram", config={}, tensors={}, backbone=other)
    refused = run("ask", book, "Where?", "--adapter", str(tmp_path / "other"))
    assert_refused(refused, "was made for tiny-qwen2", "not for tiny-llama")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--device", "abacus"], "The device 'abacus'"),
        (["--device", "meta"], "The device 'meta'"),
        (["--dtype", "int3"], "Unknown dtype 'int3'"),
        (["--backbone", "nowhere.gguf"], "There is no file nowhere.gguf"),
    ],
)
def test_backbones_that_cannot_be_had(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, book: str, option: list[str], words: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["laconic", "ask", book, "Where?", *option])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2
    assert_refused(Outcome(2, *capsys.readouterr()), words)


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from laconic.cli.loading import open_backbone
    from laconic.errors import BackboneError

    (tmp_path / "file").write_text("in the way")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BackboneError, match="cannot be written"):
        open_backbone(str(tmp_path / "model.gguf"), "auto", "cpu")


# --- eval ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def questions(tmp_path: Path) -> str:
    path = tmp_path / "own.jsonl"
    records = [
        {"id": str(n), "document": WORDS * n, "question": "Who wrote?", "answers": ["the keeper"]} for n in (5, 6)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_eval_writes_result_table_and_plot(run: Run, questions: str, tmp_path: Path) -> None:
    out = tmp_path / "results" / "own.json"
    arguments = ["eval", questions, "--method", "full,head", "--factor", "2", "--max-new-tokens", "2"]
    outcome = run(*arguments, "--json", str(out))
    assert outcome.status == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["method"], row["factor"], row["items"]) for row in rows] == [("full", 1.0, 2), ("head", 2.0, 2)]
    assert "delivered" in outcome.out
    assert out.with_suffix(".table.md").read_text().count("\n") == 2 + len(rows)
    assert out.with_suffix(".png").stat().st_size > 0


def test_unwritable_output_is_found_before_the_work(
    run: Run, questions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object) -> None:
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr("laconic.cli.evaluate.open_backbone", too_late)
    for out in (Path(questions) / "below-a-file.json", tmp_path):
        assert_refused(run("eval", questions, "--method", "head", "--json", str(out)), "cannot be written", "Choose")


def test_eval_refuses_bad_arguments(run: Run, questions: str, tmp_path: Path) -> None:
    out = ["--json", str(tmp_path / "out.json")]
    assert_refused(run("eval", "no_such_task", *out), "There is no task 'no_such_task'")
    assert_refused(run("eval", questions, "no_such_task,other", *out), "There is no task 'no_such_task'")
    assert_refused(run("label", "no_such_task,other", "--out", out[1]), "There is no task 'no_such_task'")
    assert_refused(run("eval", questions, "--factor", "4,x", *out), "not a list of factors")
    assert_refused(run("eval", questions, "--factor", "1", *out), "above 1")
    assert_refused(run("eval", "x" * 300, *out), "There is no task")
    assert_refused(run("eval", questions, "--method", "head", "--against", "full", *out), "but not run", "--method")
    assert_refused(run("eval", questions, "--json", str(tmp_path / "out.png")), "not named as JSON", "out.png.json")
    Path(questions).write_text("{not json\n")
    assert_refused(run("eval", questions, *out), "line 1")
    assert not (tmp_path / "out.json").exists()


# --- train, methods, info, and the rest ----------------------------------------------------------------------------


def test_train_refuses_bad_recipes(run: Run, tmp_path: Path) -> None:
    assert_refused(run("train", "none.yaml"), "There is no recipe none.yaml")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("method: other\n")
    assert_refused(run("train", str(recipe)), "No trainer")
    assert_refused(run("train", str(recipe), "nonsense"), "not an override")
    recipe.write_bytes("method: caf\xe9".encode("latin-1"))
    assert_refused(run("train", str(recipe)), "not valid YAML")


@pytest.mark.parametrize(
    "mistake",
    [
        "stages.1.name=reading", "stages.1.name=relevance", "stages=null", "stages=[5]", "ram=null", "seed=abc",
        "stages.0.questions=0", "stages.0.excerpt=5", "stages.0.excerpt=[900,400]", "stages.0.data={}",
        "stages.0.data.squad_articles_train=x", "stages.0.loop={lr: 1}", "stages.0.loop={steps: abc}",
        "stages.0.loop={steps: 5, log_every: 0}", "stages.0.loop={steps: 5, learning_rate: 1e-3}", "ram.encode=banana",
        "ram.segment_tokens=abc", "stages.0.data={no_such_task: null}",
    ],
)  # fmt: skip
def test_a_mistake_anywhere_in_a_recipe_is_found_before_anything_is_done(
    run: Run, tmp_path: Path, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr("laconic.train.stages.load_backbone", too_late)
    monkeypatch.setenv("LACONIC_DATA", str(samples_folder()))
    output = tmp_path / "run"
    outcome = run("train", "recipes/ram/cpu.yaml", f"output={output}", mistake)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert not output.exists()


def test_methods_lists_every_method_with_its_paper(run: Run) -> None:
    from laconic.methods.registry import available

    outcome = run("methods")
    assert outcome.status == 0
    assert all(name in outcome.out for name in available())
    assert "2602.01840" in outcome.out


def test_info_names_what_a_report_needs(run: Run) -> None:
    outcome = run("info")
    assert outcome.status == 0
    for words in ("laconic", "torch", "transformers", "device", "cache", "embedded weights", "adapters"):
        assert words in outcome.out


def test_usage_errors_leave_with_status_2() -> None:
    for arguments in (["ask"], ["frobnicate"], ["ask", "a", "b", "--max-new-tokens", "0"]):
        assert CliRunner().invoke(app, arguments).exit_code == 2


def test_interrupt_leaves_with_status_130(run: Run, book: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("laconic.cli.ask.open_backbone", interrupted)
    outcome = run("ask", book, "Where?")
    assert outcome.status == 130
    assert "Traceback" not in outcome.err


def test_help_imports_no_model_code() -> None:
    code = "import sys; from laconic.cli.main import app; app(['--help'], standalone_mode=False); "
    code += "sys.exit(bool({'torch', 'transformers', 'numpy', 'pypdf'} & set(sys.modules)))"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert time.perf_counter() - start < 5  # 0.2 s where nothing else runs; the bound is for busy machines


@pytest.mark.parametrize("terminal", [True, False])
def test_a_character_that_the_output_does_not_know(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A terminal gets it spelt out; a file or a pipe gets a text as it is, or an error."""
    written = io.BytesIO()

    class Output(io.TextIOWrapper):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setattr(sys, "stdout", Output(written, encoding="ascii"))
    monkeypatch.setattr("laconic.cli.main.app", lambda **_: print("Two words \u2192 three."))
    with pytest.raises(SystemExit) as ended:
        main()
    if terminal:
        assert not ended.value.code
        assert written.getvalue() == b"Two words \\u2192 three.\n"
    else:
        assert ended.value.code == 2
        assert "The output is ascii and has no" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_one_line_and_a_reader_that_leaves_is_none() -> None:
    command = [sys.executable, "-c", "from laconic.cli.main import main; main()", "methods"]
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (found.returncode, found.stderr) == (2, "error: [Errno 28] No space left on device.\n")
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (found.returncode, found.stderr) == (1, "")
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, "")
