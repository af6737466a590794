"""Evidence recall on whole SQuAD articles: does the kept part hold the answer?

    python benchmarks/scripts/evidence_recall.py --limit 380 --out benchmarks/results/evidence_recall.json

No answer is generated, so hundreds of questions take minutes. An item counts if at least one evidence span lies whole
inside the kept text. Delivered tokens include the skim vectors.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from laconic.backbone import Backbone, load_backbone
from laconic.core.files import write_whole
from laconic.data.loaders import load_task
from laconic.data.schema import QAItem
from laconic.errors import BudgetError
from laconic.eval.environment import environment
from laconic.eval.metrics import evidence_recall, score_with_interval
from laconic.methods.registry import load_method, load_methods
from laconic.methods.roles import Compressor

# what to measure, by name, once the backbone is there
Compressors = Callable[[Backbone], Iterable[tuple[str, Compressor]]]


def recall_rows(compressor: Compressor, items: Sequence[QAItem], factors: Sequence[float]) -> list[dict[str, Any]]:
    """One row per factor."""
    recalls: dict[float, list[float]] = {factor: [] for factor in factors}
    tokens: dict[float, list[int]] = {factor: [0, 0] for factor in factors}
    refused = dict.fromkeys(factors, 0)
    for item in items:  # grouped by document: each is encoded once
        for factor in factors:
            try:
                compressed = compressor.compress(item.document, item.question, ratio=1 / factor)
            except BudgetError:
                refused[factor] += 1
                continue
            found = evidence_recall(item.evidence, [(span.start, span.end) for span in compressed.evidence])
            if found is not None:
                recalls[factor].append(found)
            tokens[factor][0] += compressed.document_tokens
            tokens[factor][1] += compressed.context_tokens
    rows = []
    for factor in factors:
        mean, low, high = (round(100 * value, 1) for value in score_with_interval(recalls[factor]))
        delivered = round(tokens[factor][0] / tokens[factor][1], 2)
        row = {"factor": factor, "delivered_factor": delivered, "recall": mean, "low": low, "high": high}
        rows.append(row | {"items": len(recalls[factor]), "refused": refused[factor]})
    return rows


def arguments(description: str | None, benchmark: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="squad_articles_dev")
    parser.add_argument("--limit", type=int, default=380)
    parser.add_argument("--factors", type=float, nargs="+", default=[4, 8, 16])
    parser.add_argument("--data", default=None)
    parser.add_argument("--adapter", default=None)
    parser.add_argument("--out", type=Path, default=Path(f"benchmarks/results/{benchmark}.json"))
    return parser


def measure(args: argparse.Namespace, benchmark: str, label: str, compressors: Compressors) -> None:
    """Measure every compressor, named under ``label`` in its rows, and write the result."""
    items = load_task(args.task, args.data, args.limit)
    backbone = load_backbone()
    rows = []
    for name, compressor in compressors(backbone):
        for row in recall_rows(compressor, items, args.factors):
            rows.append({label: name, **row})
            print(rows[-1], flush=True)
    result = {
        "benchmark": benchmark,
        "task": args.task,
        "limit": args.limit,
        "adapter": load_method("ram", backbone, args.adapter).version,
        "backbone": backbone.content_hash,
        "rows": rows,
        "environment": environment(),
    }
    write_whole(args.out, json.dumps(result, indent=1) + "\n")


def main() -> None:
    parser = arguments(__doc__, "evidence_recall")
    parser.add_argument("--methods", default="ram,bm25,embedding")
    args = parser.parse_args()

    def compressors(backbone: Backbone) -> Iterable[tuple[str, Compressor]]:
        loaded = load_methods(args.methods.split(","), backbone, args.adapter)
        return [(name, method.compressor) for name, method in loaded.items()]

    measure(args, "evidence_recall", "method", compressors)


if __name__ == "__main__":
    main()
