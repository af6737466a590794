"""Write the measured tables of README.md from the committed result files.

    python benchmarks/scripts/tables.py

Numbers reach the README only through here.
"""

from __future__ import annotations

import json
from pathlib import Path

from laconic.core import persist
from laconic.eval.report import difference, references
from laconic.methods.registry import shipped_adapters

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CURRENT = {persist.version(folder) for folder in shipped_adapters()}
START, END = "<!-- numbers -->", "<!-- end of numbers -->"


def load(name: str) -> dict | None:
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else None


def recall(result: dict) -> str:
    lines = [
        f"**Does the kept part hold the answer?** Whole SQuAD articles, {result['rows'][0]['items']} questions; "
        "%, with 95 % interval (`benchmarks/scripts/evidence_recall.py`).\n",
        "| method | 4x | 8x | 16x |\n|---|---|---|---|",
    ]
    for method in dict.fromkeys(row["method"] for row in result["rows"]):
        cells = [f"{r['recall']} ({r['low']}-{r['high']})" for r in result["rows"] if r["method"] == method]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def untuned(result: dict) -> str:
    rows = result["rows"]
    lines = [
        f"**And with the reader as it came?** {rows[0]['task']}, {rows[0]['items']} questions, read by the untuned "
        "decoder (`laconic eval --adapter none`).\n",
        "| method | delivered | EM | F1 (95 %) |",
        "|---|---|---|---|",
    ]
    for row in rows:
        f1 = row["f1"]
        lines.append(
            f"| {row['method']} | {row['delivered_factor']:.2f}x | {row['em']['mean']:.1f} | "
            f"{f1['mean']:.1f} ({f1['low']:.1f}-{f1['high']:.1f}) |"
        )
    return "\n".join(lines)


def answers(result: dict) -> str:
    rows = [row for row in result["rows"] if row["items"]]
    against = references(result)
    heads = ["method", "delivered", "EM", "F1 (95 %)", *(f"F1 - {name} (95 %, paired)" for name in against)]
    lines = [
        f"**Is the answer right?** {rows[0]['task']}, {max(row['items'] for row in rows)} questions; every row is "
        "read by the same tuned decoder (`laconic eval`).\n",
        "| " + " | ".join([*heads, "evidence recall"]) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for row in rows:
        f1 = row["f1"]
        found = f"{row['recall']['mean']:.1f}" if "recall" in row else "-"
        apart = "".join(f"{difference(row, name)} | " for name in against)
        lines.append(
            f"| {row['method']} | {row['delivered_factor']:.2f}x | {row['em']['mean']:.1f} | "
            f"{f1['mean']:.1f} ({f1['low']:.1f}-{f1['high']:.1f}) | {apart}{found} |"
        )
    for method, version in {(row["method"], row["version"]) for row in rows if row["version"]}:
        if version not in CURRENT:
            lines.append(f"\nThe rows of {method} are those of an earlier adapter (`{version}`).")
    by_dtype: dict[str, list[str]] = {}
    for row in rows:
        methods = by_dtype.setdefault(row["dtype"].removeprefix("torch."), [])
        if row["method"] not in methods:
            methods.append(row["method"])
    if len(by_dtype) > 1:
        parts = "; ".join(f"{', '.join(methods)} in {dtype}" for dtype, methods in by_dtype.items())
        lines.append(f"\nComputed on two machines: {parts}.")
    left_out = max(row["skipped"] for row in rows)
    if left_out:
        lines.append(
            f"\n{left_out} questions stand in documents beyond the window: the full prompt skips them, and "
            "differences to it leave them out."
        )
    return "\n".join(lines)


def ablation(result: dict) -> str:
    lines = [
        "**What finds the evidence?** The same measurement, parts of RAM's relevance switched off one by one "
        f"({result['rows'][0]['items']} questions, recall in %; `benchmarks/scripts/ram_ablation.py`).\n",
        "| RAM | 4x | 8x | 16x |\n|---|---|---|---|",
    ]
    for variant in dict.fromkeys(row["variant"] for row in result["rows"]):
        cells = [f"{row['recall']}" for row in result["rows"] if row["variant"] == variant]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    if result.get("adapter") not in CURRENT:
        lines.append("\nThe trained rows are those of an earlier adapter, without the window term.")
    return "\n".join(lines)


def speed(result: dict) -> str:
    lines = [
        f"**How long until the first token?** {result['environment']['cpus']} CPU cores, "
        f"RAM at {result['factor']}x, seconds (`make bench`).\n",
        "| tokens | RAM | full prompt | MiB above the loaded model, RAM | full prompt | encoder against a plain "
        "forward pass |\n|---|---|---|---|---|---|",
    ]
    cells = {(row["tokens"], row["method"]): row for row in result["rows"]}
    for tokens in sorted({row["tokens"] for row in result["rows"]}):
        own, full = cells.get((tokens, "ram")), cells.get((tokens, "full"))
        first = [f"{r['first_token_s']:.1f}" if r else "not run" for r in (own, full)]
        peak = [f"{r['growth_mb']:.0f}" if r else "not run" for r in (own, full)]
        pace = f"{100 * own['plain_forward_s'] / own['encode_warm_s']:.0f} %" if own else "not run"
        lines.append(f"| {tokens:,} | " + " | ".join([*first, *peak, pace]) + " |")
    return "\n".join(lines)


def main() -> None:
    parts = []
    sections = (
        ("evidence_recall.json", recall),
        ("ram_ablation.json", ablation),
        ("squad_articles.json", answers),
        ("nq_multidoc.json", answers),
        ("nq_untuned.json", untuned),
        ("ram_speed.json", speed),
    )
    for name, draw in sections:
        result = load(name)
        if result is not None:
            parts.append(draw(result))
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(before + START + "\n" + "\n\n".join(parts) + "\n" + END + after)


if __name__ == "__main__":
    main()
