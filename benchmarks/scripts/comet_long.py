"""CoMeT on long texts, beside its backbone tuned without a memory and beside RAM.

    python benchmarks/scripts/comet_long.py babi-qa1-{0,4,16,64}k --limit 50 \\
        --out benchmarks/results/comet_babilong.json
    python benchmarks/scripts/comet_long.py qmsum_test squality_test --limit 20 --max-new-tokens 64 \\
        --out benchmarks/results/comet_summaries.json

``window`` (attention sinks and recent tokens), ``head`` (the beginning of the text) and ``ram`` hold as many tokens as
CoMeT's memory and open chunk do at most; ``full`` reads everything where that fits its window. Stories and needles were
trained on in other books, and with other stories. RAM reads with its own decoder, all others but CoMeT with SFT's.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from measuring import SFT

from laconic.backbone import load_backbone
from laconic.core import persist
from laconic.core.results import Compressed
from laconic.data.loaders import load_task
from laconic.eval import heatmap
from laconic.eval.report import markdown
from laconic.eval.runner import evaluate
from laconic.methods.comet.reader import CoMeTReader
from laconic.methods.registry import LoadedMethod, load_method, load_methods, reader_name
from laconic.methods.roles import Compressor

METHODS = ("comet", "full", "window", "head", "ram")


class AtMost:
    """A compressor held to one budget, however long the document is."""

    def __init__(self, compressor: Compressor, budget: int) -> None:
        self.compressor, self.budget, self.query_aware = compressor, budget, compressor.query_aware

    def compress(
        self, context: str, query: str | None = None, *, ratio: float | None = None, budget: int | None = None
    ) -> Compressed:
        return self.compressor.compress(context, query, budget=self.budget)


def held(method: LoadedMethod, budget: int) -> LoadedMethod:
    """The budget is part of what was run: a journal's rows of another one are not these."""
    version = f"{method.version} {budget} tokens".strip()
    return replace(method, compressor=AtMost(method.compressor, budget), version=version)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help="such as passkey-16k, number-64k-keys3, babi-qa1-16k")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--comet", type=Path, help="a saved CoMeT; without it the one that ships")
    parser.add_argument("--sft", type=Path, default=SFT, help="the backbone tuned without a memory")
    parser.add_argument("--limit", type=int, help="questions of each task; by default ten, one at each depth")
    parser.add_argument("--max-new-tokens", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    backbone = load_backbone()
    comet = load_method("comet", backbone, args.comet)
    assert isinstance(comet.reader, CoMeTReader)
    config = comet.reader.comet.config
    budget = config.held_slots + config.fifo_slots + config.chunk_tokens
    tuned = load_methods(["full", "window", "head"], backbone, args.sft)
    methods = {
        "comet": comet,
        "full": tuned["full"],
        "window": held(tuned["window"], budget),
        "head": held(tuned["head"], budget),
        "ram": held(load_method("ram", backbone), budget),
    }
    result = evaluate(
        {name: methods[name] for name in args.methods},
        {task: load_task(task, limit=args.limit) for task in args.tasks},
        [1.0],
        args.out,
        reader=reader_name(backbone, args.sft),
        backbone=backbone.content_hash,
        max_new_tokens=args.max_new_tokens,
        against=["window"] if "window" in args.methods else [],
        notes={"limit": args.limit, "budget": budget, "sft": persist.version(args.sft)},
    )
    args.out.with_suffix(".table.md").write_text(markdown(result))
    lines = heatmap.lines_by_method(result, args.out.with_suffix(".items.jsonl"))
    heatmap.draw(lines, args.out.with_suffix(".depths.png"))


if __name__ == "__main__":
    main()
