"""What does stating a floor cost? Seconds to score a text's words, predict its curve and cut it, beside reading it.

    python benchmarks/scripts/poc_speed.py --out benchmarks/results/poc_speed.json

Pieces of a book, each new to everybody, with the predictor, classifier and reader that ship. ``score`` is the
classifier's own pass, which any compression of the text needs; ``predict`` all that choosing a ratio takes besides;
``cut`` what is left to do at a quarter. ``read`` is the reader's pass over the whole text, up to the first word of an
answer. The stages of a piece follow each other, lengths take turns. Leave the machine alone meanwhile: some ten minutes
on two cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import sample_book, save

from laconic.backbone import load_backbone
from laconic.core.results import whole
from laconic.generation.answer import Reader
from laconic.methods.poc.compressors import compressor_digest, load_steerable
from laconic.methods.poc.selection import select
from laconic.methods.poc.steering import PoC, load_predictor
from laconic.methods.pruning.classifier import Classifier
from laconic.methods.registry import load_method

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "Who bought Solomon Northup in New Orleans?"
FLOOR, RATIO = 0.9, 0.25
STAGES = ("score", "predict", "cut", "read")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=[400, 1000, 2000, 4000, 7000])
    parser.add_argument("--pieces", type=int, default=20, help="of each length")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "poc_speed.json")
    args = parser.parse_args()
    backbone = load_backbone()
    predictor, promises = load_predictor(backbone)
    compressor = load_steerable("classifier", backbone)
    assert isinstance(compressor, Classifier)
    reader = load_method("full", backbone).reader
    method = PoC(compressor, predictor, promises, compressor_digest=compressor_digest("classifier", compressor))
    book = sample_book()
    ends = [end for _, end in backbone.tokenizer(book, return_offsets_mapping=True, verbose=False)["offset_mapping"]]
    found: dict[int, list[list[float]]] = {length: [] for length in args.lengths}
    for piece in range(-1, args.pieces):  # the first is to warm up
        for length in args.lengths:
            first = 1 + (piece + 1) * (len(ends) - length - 2) // args.pieces
            seconds = stages(method, compressor, reader, book[ends[first - 1] : ends[first + length - 1]].strip())
            if piece >= 0:
                found[length].append(seconds)
    rows = [row(length, np.array(seconds)) for length, seconds in found.items()]
    for one in rows:
        print(one, flush=True)
    save(args.out, "poc speed", rows=rows, pieces=args.pieces, dtype=str(backbone.dtype), floor=FLOOR, ratio=RATIO)


def stages(method: PoC, compressor: Classifier, reader: Reader, text: str) -> list[float]:
    tokens = reader.backbone.count_tokens(text)
    work: list[Callable[[], Any]] = [
        lambda: compressor.features(text, QUESTION),
        lambda: select(method.curve(text, QUESTION), FLOOR, policy="safe"),
        lambda: compressor.compress(text, QUESTION, ratio=RATIO),
        lambda: reader.answer(whole(text, tokens), QUESTION, max_new_tokens=1),
    ]
    seconds = []
    for stage in work:
        begun = time.perf_counter()
        stage()
        seconds.append(time.perf_counter() - begun)
    return seconds


def row(length: int, seconds: np.ndarray) -> dict[str, Any]:
    """Medians and 95th percentiles of the stages, and the medians' shares of reading."""
    p50, p95 = (dict(zip(STAGES, np.percentile(seconds, at, axis=0), strict=True)) for at in (50, 95))
    told: dict[str, Any] = {"tokens": length}
    told |= {name: {"p50": round(p50[name], 4), "p95": round(p95[name], 4)} for name in STAGES}
    told["predict, of reading"] = round(p50["predict"] / p50["read"], 4)
    told["score and cut, of reading"] = round((p50["score"] + p50["cut"]) / p50["read"], 4)
    return told


if __name__ == "__main__":
    main()
