"""``laconic read`` and asking the file it makes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from comets import comet
from outcomes import Run, assert_refused

from laconic import backbone as backbone_module
from laconic.backbone import Backbone
from laconic.cli import read as cli_read
from laconic.cli.output import print_json
from laconic.methods.comet.files import load_memory
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.stream import ChunkStream

WORDS = "The lighthouse keeper wrote down the weather every morning. "


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("adapter") / "comet"
    comet(train="lora", chunk_tokens=64, stride=8, fifo_slots=16).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def book(tmp_path: Path) -> str:
    path = tmp_path / "book.txt"
    path.write_text(WORDS * 40)
    return str(path)


def read(run: Run, book: str, out: Path, adapter: str, *more: str) -> dict[str, object]:
    outcome = run("read", book, "-o", str(out), "--adapter", adapter, "--json", *more)
    assert outcome.status == 0, outcome.err
    return json.loads(outcome.out)


def test_a_book_is_read_and_asked(run: Run, book: str, adapter: str, tmp_path: Path) -> None:
    out = tmp_path / "book.memory"
    bill = read(run, book, out, adapter)
    assert bill["document_tokens"] == bill["tokens_read_now"] == bill["tokens_in_memory"]
    assert isinstance(bill["document_tokens"], int)
    assert bill["held_tokens"] == 3 + 16 + (bill["document_tokens"] - 1) % 64 + 1
    assert isinstance(bill["state_bytes"], int)
    assert bill["state_bytes"] == 3 * 32 * (3 * 4 + 16 * 4)
    asked = run("ask", str(out), "Who wrote?", "--adapter", adapter, "--max-new-tokens", "5", "--json")
    assert asked.status == 0, asked.err
    answer = json.loads(asked.out)
    assert answer["method"] == "comet"
    assert answer["document_tokens"] == bill["document_tokens"]
    assert answer["context_tokens"] == bill["held_tokens"]
    whole = run("ask", book, "Who wrote?", "--method", "comet", "--adapter", adapter, "--max-new-tokens", "5", "--json")
    assert json.loads(whole.out)["answer"] == answer["answer"], "the file says what the book does"
    shown = run("ask", str(out), "Who wrote?", "--adapter", adapter, "--max-new-tokens", "5")
    assert shown.status == 0
    assert "word for word" not in shown.err
    people = run("read", book, "-o", str(tmp_path / "again.memory"), "--adapter", adapter)
    assert "ask it: laconic ask" in people.err.replace("\n", " ")


def test_documents_are_added(run: Run, book: str, adapter: str, tmp_path: Path) -> None:
    out, other = tmp_path / "two.memory", tmp_path / "other.txt"
    other.write_text("The lamp of Skerry is green. " * 10)
    first = read(run, book, out, adapter)
    both = read(run, str(other), out, adapter, "--append")
    assert isinstance(first["tokens_in_memory"], int)
    assert isinstance(both["tokens_read_now"], int)
    assert both["tokens_in_memory"] == first["tokens_in_memory"] + both["tokens_read_now"]
    together = tmp_path / "together.memory"
    read(run, book, together, adapter)  # the first of the two, then both at once
    together.unlink()
    joined = run("read", book, str(other), "-o", str(together), "--adapter", adapter, "--json")
    assert json.loads(joined.out)["tokens_in_memory"] == both["tokens_in_memory"]
    assert_same_memory(out, together, adapter)


def test_what_was_read_is_not_lost_by_a_slip(run: Run, book: str, adapter: str, tmp_path: Path) -> None:
    """Without --append, with it twice, or with another model: hours of reading stay as they are."""
    out, other = tmp_path / "a.memory", tmp_path / "other.txt"
    other.write_text("The lamp of Skerry is green. " * 10)
    read(run, book, out, adapter)
    whole = out.read_bytes()
    assert_refused(run("read", str(other), "-o", str(out), "--adapter", adapter), "book.txt", "--append")
    Path(book).write_text(WORDS * 41)
    assert_refused(run("read", book, "-o", str(out), "--adapter", adapter), "another text of that name", "--append")
    Path(book).write_text(WORDS * 40)
    for more in ([], ["--append"]):
        refused = run("read", book, "-o", str(out), "--adapter", adapter, *more)
        assert_refused(refused, "has read book.txt already", "laconic ask")
    assert out.read_bytes() == whole
    out.write_bytes(whole[:100])
    assert_refused(run("read", book, "-o", str(out), "--adapter", adapter), "damaged", "Delete the file")
    assert out.read_bytes() == whole[:100]


def assert_same_memory(one: Path, other: Path, adapter: str) -> None:
    made = CoMeT.from_pretrained(adapter, comet().backbone)
    a, b = (load_memory(file, made).stream for file in (one, other))
    assert int(a.memory.counts.tokens) == int(b.memory.counts.tokens)
    assert torch.equal(a.tail[0], b.tail[0])
    for mine, yours in zip(a.memory.layers, b.memory.layers, strict=True):
        torch.testing.assert_close(mine.queue, yours.queue, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mine.slots, yours.slots, atol=1e-4, rtol=1e-4)


def test_an_interrupted_reading_goes_on(
    run: Run, book: str, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "cut.memory", tmp_path / "whole.memory"
    expected = read(run, book, whole, adapter)
    monkeypatch.setattr(cli_read, "PORTION_CHUNKS", 1)
    real, calls = ChunkStream.read, []

    def interrupted(self: ChunkStream, rows: list[torch.Tensor]) -> None:
        calls.append(len(rows[0]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, rows)

    monkeypatch.setattr(ChunkStream, "read", interrupted)
    cut = run("read", book, "-o", str(out), "--adapter", adapter)
    assert cut.status == 130
    told = f"192 of {expected['document_tokens']:,} tokens"
    assert f"{told} are read; the same command goes on" in " ".join(cut.err.split())
    monkeypatch.setattr(ChunkStream, "read", real)
    half = run("ask", str(out), "Who?", "--adapter", adapter, "--max-new-tokens", "2")
    assert f"of book.txt {told} were read" in " ".join(half.err.split())
    assert_refused(
        run("read", __file__, "-o", str(out), "--adapter", adapter, "--append"), "not read to its end", "it goes on"
    )
    bill = read(run, book, out, adapter)
    assert isinstance(expected["document_tokens"], int)
    assert bill["tokens_read_now"] == expected["document_tokens"] - 3 * 64
    assert bill["tokens_in_memory"] == expected["document_tokens"]
    answers = [
        json.loads(run("ask", str(f), "Who?", "--adapter", adapter, "--max-new-tokens", "5", "--json").out)["answer"]
        for f in (out, whole)
    ]
    assert answers[0] == answers[1]


def test_a_text_that_is_cut_into_other_tokens_now_is_not_gone_on_with(
    run: Run, book: str, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "cut.memory", ChunkStream.read
    monkeypatch.setattr(cli_read, "PORTION_CHUNKS", 1)
    calls: list[int] = []

    def interrupted(self: ChunkStream, rows: list[torch.Tensor]) -> None:
        calls.append(len(rows[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(self, rows)

    monkeypatch.setattr(ChunkStream, "read", interrupted)
    assert run("read", book, "-o", str(out), "--adapter", adapter).status == 130
    monkeypatch.setattr(ChunkStream, "read", real)
    cut = Backbone.long_ids
    monkeypatch.setattr(Backbone, "long_ids", lambda self, text: cut(self, text)[1:])
    assert_refused(run("read", book, "-o", str(out), "--adapter", adapter), "tokens when", "Delete the file")


def test_an_interrupt_within_a_portion_reads_nothing_twice(
    run: Run, book: str, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An added document's portions fall on two chunks: the first part is in the memory when the second is cut off."""
    out, whole, first = tmp_path / "cut.memory", tmp_path / "whole.memory", tmp_path / "first.txt"
    first.write_text("The lamp of Skerry is green. " * 9)
    for file in (out, whole):
        read(run, str(first), file, adapter)
    read(run, book, whole, adapter, "--append")
    monkeypatch.setattr(cli_read, "PORTION_CHUNKS", 1)
    block, calls = ChunkStream._block, []

    def interrupted(self: ChunkStream, ids: list[torch.Tensor], pieces: list[object]) -> None:
        calls.append(len(ids[0]))
        if len(calls) == 7:  # one to load the tail, then two to a portion
            raise KeyboardInterrupt
        block(self, ids, pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(ChunkStream, "_block", interrupted)
    assert run("read", book, "-o", str(out), "--adapter", adapter, "--append").status == 130
    assert 0 < calls[-2] < 64, "the portion was cut in two"
    monkeypatch.setattr(ChunkStream, "_block", block)
    read(run, book, out, adapter)
    assert_same_memory(out, whole, adapter)


def test_an_interrupt_before_the_first_portion_leaves_no_file(
    run: Run, book: str, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "none.memory"

    def interrupted(self: ChunkStream, rows: list[torch.Tensor]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ChunkStream, "read", interrupted)
    monkeypatch.setattr(cli_read, "PORTION_CHUNKS", 1)
    assert run("read", book, "-o", str(out), "--adapter", adapter).status == 130
    assert not out.exists()


def test_a_kill_loses_no_more_than_what_came_since_the_last_saving(
    run: Run, book: str, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved along the way, and not only at the end or an interrupt."""
    out, saved = tmp_path / "a.memory", []
    save = cli_read.save_memory
    monkeypatch.setattr(cli_read, "PORTION_CHUNKS", 1)
    monkeypatch.setattr(cli_read, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(
        cli_read, "save_memory", lambda path, one: (saved.append(one.sources[-1].read), save(path, one))
    )
    bill = read(run, book, out, adapter)
    assert isinstance(bill["document_tokens"], int)
    assert saved[:3] == [64, 128, 192]
    assert saved[-1] == bill["document_tokens"]


@pytest.mark.parametrize("tokens", [63, 64, 65, 128, 129])
def test_documents_that_end_with_a_portion_are_read_to_their_end(
    run: Run, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    monkeypatch.setattr(cli_read, "PORTION_CHUNKS", 1)
    made = CoMeT.from_pretrained(adapter, comet().backbone)
    text = " ".join(["weather"] * 400)
    while made.backbone.count_tokens(text) > tokens:
        text = text.rpartition(" ")[0]
    (tmp_path / "t.txt").write_text(text)
    out = tmp_path / "t.memory"
    assert read(run, str(tmp_path / "t.txt"), out, adapter)["document_tokens"] == tokens
    stream, expected = load_memory(out, made).stream, ChunkStream(made)
    expected.feed([made.backbone.long_ids(text)])
    assert stream.open == expected.open == [(tokens - 1) % 64 + 1]
    assert torch.equal(stream.tail[0], expected.tail[0])


def test_a_long_text_is_encoded_a_part_at_a_time(
    run: Run, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer takes some hundred bytes a token while it works: reading would not be in constant memory."""
    monkeypatch.setattr(backbone_module, "ENCODED_CHARACTERS", 500)
    book, lengths = tmp_path / "long.txt", []
    book.write_text(WORDS * 300)
    encode = Backbone.token_ids
    monkeypatch.setattr(Backbone, "token_ids", lambda self, text: (lengths.append(len(text)), encode(self, text))[1])
    bill = read(run, str(book), tmp_path / "long.memory", adapter)
    assert max(lengths) < 600
    asked = run("ask", str(book), "Who?", "--method", "comet", "--adapter", adapter, "--max-new-tokens", "2", "--json")
    assert max(lengths) < 600
    monkeypatch.undo()
    whole = comet().backbone.token_ids(book.read_text())
    assert bill["document_tokens"] == json.loads(asked.out)["document_tokens"] == len(whole)


def test_a_name_that_is_no_text_is_printed_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", shown)
    print_json({"document": "\udcff.txt", "answer": "caf\u00e9"})
    print_json({"answer": "caf\u00e9"})
    shown.flush()
    lines = shown.buffer.getvalue().decode().splitlines()  # type: ignore[attr-defined]
    assert [json.loads(line)["answer"] for line in lines] == ["caf\u00e9"] * 2
    assert json.loads(lines[0])["document"] == "\udcff.txt"
    assert "caf\u00e9" in lines[1]


def test_mistakes(run: Run, book: str, adapter: str, tmp_path: Path) -> None:
    out = str(tmp_path / "a.memory")
    assert_refused(run("read", book, "-o", str(tmp_path / "a.txt"), "--adapter", adapter), "a.txt.memory")
    for unnamed in ("", ".memory", ".."):
        assert_refused(run("read", book, "-o", unnamed, "--adapter", adapter), "not named", "Write book.memory")
    long = str(tmp_path / ("a" * 300 + ".memory"))
    assert_refused(run("read", book, "-o", long, "--adapter", adapter), "cannot be written", "another name")
    assert_refused(run("ask", long, "Who?", "--adapter", adapter), "no memory file")
    (tmp_path / "folder.memory").mkdir()
    assert_refused(run("ask", str(tmp_path / "folder.memory"), "Who?", "--adapter", adapter), "is a folder")
    assert_refused(run("read", book, "-o", out, "--append", "--adapter", adapter), "no", "append")
    assert_refused(run("read", str(tmp_path / "no.txt"), "-o", out, "--adapter", adapter), "no.txt")
    assert_refused(run("read", book, "-o", out), "no trained CoMeT", "laconic train")
    assert_refused(run("ask", out, "Who?", "--adapter", adapter), "no memory file", "laconic read")
    assert_refused(run("ask", out, book, "Who?", "--adapter", adapter), "asked alone", "--append")
    below = str(tmp_path / "none" / "a.memory")
    assert_refused(run("read", book, "-o", below, "--adapter", adapter), "cannot be written", "folder")
    assert_refused(run("ask", out, "Who?", "--method", "ram"), "as it is", "--method")
    assert_refused(run("ask", out, "Who?", "--method", "bm25"), "as it is", "--method")
    for more in (["--promise", "risk"], ["--delta", "0.3"], ["--predictor", "nowhere"]):
        assert_refused(run("ask", out, "Who?", *more), "What is promised is a floor", "--floor")
        assert_refused(run("ask", book, "Who?", *more), "What is promised is a floor", "--floor")
    assert_refused(run("ask", out, "Who?", "--promise", "bogus"), "is no promise")
    assert_refused(run("ask", book, "Who?", "--method", "comet", "--factor", "4"), "factor is 1")
    assert_refused(run("ask", book, "Who?", "--method", "bm25", "--adapter", adapter), "holds comet", "--adapter")
    Path(out).write_bytes(b"no memory")
    assert_refused(run("ask", out, "Who?", "--adapter", adapter), "damaged", "Read the document again")
    assert_refused(run("ask", out, " ", "--adapter", adapter), "question")
    assert Path(out).read_bytes() == b"no memory"


def test_a_comet_is_saved_for_its_backbone(adapter: str) -> None:
    assert CoMeT.from_pretrained(adapter, comet().backbone).version
