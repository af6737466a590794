"""Facts of a story hidden in a book (BABILong): CoMeT beside its backbone tuned with a sink window of the same size.

    python benchmarks/scripts/comet_babilong.py --comet runs/comet-cpu/method --sft runs/sft-cpu/method \\
        --out benchmarks/results/comet_babilong.json

The window holds as many tokens as CoMeT's memory and open chunk do at most; ``full`` is the tuned backbone where the
text fits its window. All were trained on bAbI's training stories in other books.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from laconic.backbone import load_backbone
from laconic.core.results import Compressed
from laconic.data.loaders import load_task
from laconic.eval.report import markdown
from laconic.eval.runner import evaluate
from laconic.methods.comet.reader import CoMeTReader
from laconic.methods.registry import load_method, load_methods, reader_name
from laconic.methods.roles import Compressor

ROOT = Path(__file__).resolve().parents[2]


class AtMost:
    """A compressor held to one budget, however long the document is."""

    def __init__(self, compressor: Compressor, budget: int) -> None:
        self.compressor, self.budget, self.query_aware = compressor, budget, compressor.query_aware

    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        return self.compressor.compress(context, query, budget=self.budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comet", type=Path, required=True)
    parser.add_argument("--sft", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=["babi-qa1"], help="babi-qa1 to babi-qa5")
    parser.add_argument("--lengths", type=int, nargs="*", default=[0, 4, 16, 64], help="thousand tokens")
    parser.add_argument("--limit", type=int, default=50, help="stories of each task at each length")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "comet_babilong.json")
    args = parser.parse_args()
    backbone = load_backbone()
    comet = load_method("comet", backbone, args.comet)
    assert isinstance(comet.reader, CoMeTReader)
    config = comet.reader.comet.config
    budget = config.global_slots + config.fifo_slots + config.chunk_tokens
    tuned = load_methods(["full", "window"], backbone, args.sft)
    # the budget is part of what was run: a journal's rows of another one are not these
    held = AtMost(tuned["window"].compressor, budget)
    window = replace(tuned["window"], compressor=held, version=f"{budget} tokens")
    result = evaluate(
        {"comet": comet, "window": window, "full": tuned["full"]},
        {f"{task}-{k}k": load_task(f"{task}-{k}k", limit=args.limit) for task in args.tasks for k in args.lengths},
        [1.0],
        args.out,
        reader=reader_name(backbone, args.sft),
        backbone=backbone.content_hash,
        max_new_tokens=8,
        against=["window"],
        notes={"limit": args.limit, "window_tokens": budget},
    )
    args.out.with_suffix(".table.md").write_text(markdown(result))


if __name__ == "__main__":
    main()
