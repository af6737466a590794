"""Answers on SQuAD articles, the rows of two machines in one table.

    python benchmarks/scripts/squad_articles.py

The baselines were answered on a CPU that multiplies bfloat16 in hardware; RAM, with the adapter that ships now, on one
that does not, so in float32. Every row says its dtype, and items that are in the journal are not answered again. On one
machine ``laconic eval`` with the same arguments does it all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from laconic.backbone import load_backbone
from laconic.data.loaders import load_task
from laconic.eval.report import markdown, plot
from laconic.eval.runner import evaluate
from laconic.methods.registry import load_method, load_methods, reader_name

TASK, LIMIT, SEED = "squad_articles_dev", 304, 0
BASELINES = ["full", "bm25", "head", "embedding"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/squad_articles.json"))
    out = parser.parse_args().out
    halves = load_methods(BASELINES, load_backbone(dtype="bf16"))
    backbone = load_backbone(dtype="float32")
    methods = {"full": halves["full"], "ram": load_method("ram", backbone), **halves}
    result = evaluate(
        methods,
        {TASK: load_task(TASK, limit=LIMIT, seed=SEED)},
        [4.0, 8.0],
        out,
        reader=reader_name(backbone),
        backbone=backbone.content_hash,
        against=["full", "ram"],
        notes={"limit": LIMIT, "seed": SEED, "batch_size": 8},
    )
    out.with_suffix(".table.md").write_text(markdown(result))
    plot(result, "f1", out.with_suffix(".png"))


if __name__ == "__main__":
    main()
