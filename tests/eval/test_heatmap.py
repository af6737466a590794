"""Depth against length."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from laconic.eval.heatmap import by_depth, draw, lines_by_method
from laconic.eval.runner import Setting


def line(task: str, number: int, em: float, **more: object) -> dict[str, object]:
    return {"id": f"{task}-{number}-d{number % 10}", "em": em, **more}


def test_scores_by_length_and_depth() -> None:
    lines = [line("passkey-4k", n, float(n % 10 == 3)) for n in range(20)]
    lines += [line("number-16k-keys3", 7, 1.0), line("number-16k-keys3", 8, 0.0, skipped="too long")]
    lines += [{"id": "babi-qa1-4k-3", "em": 1.0}, {"id": "squad", "em": 1.0}]
    lines.append(line("number-1000k-keys5-all", 1, 1.0))
    found = by_depth(lines)
    assert set(found) == {"passkey", "number, 3 keys", "number, 5 keys, all"}
    assert found["number, 5 keys, all"] == {(1000, 1): [1.0]}
    assert found["passkey"][4, 3] == [1.0, 1.0]
    assert found["passkey"][4, 5] == [0.0, 0.0]
    assert found["number, 3 keys"] == {(16, 7): [1.0]}


def test_only_a_results_own_lines(tmp_path: Path) -> None:
    rows = [
        asdict(Setting("passkey-4k", name, "", factor, "r", "b", 8, "torch.float32", "cpu"))
        for name, factor in (("comet", 1.0), ("ram", 4.0))
    ]
    keys = [Setting(**row).key for row in rows]
    journal = tmp_path / "r.items.jsonl"
    lines = [line("passkey-4k", n, 1.0, setting=key) for n, key in enumerate([*keys, "another"])]
    journal.write_text("".join(json.dumps(one) + "\n" for one in lines))
    found = lines_by_method({"rows": rows}, journal)
    assert {name: len(some) for name, some in found.items()} == {"comet": 1, "ram 4x": 1}


def test_a_picture_or_none(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = [line(f"passkey-{k}k", n, float(n > k)) for k in (4, 16) for n in range(10)]
    assert draw({"comet": lines}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert not draw({"comet": [{"id": "squad", "em": 1.0}]}, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
