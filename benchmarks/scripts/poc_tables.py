"""PoC's tables for the README; see tables.py."""

from __future__ import annotations

POLICIES = {
    "text": "PoC, reads the text",
    "average": "PoC, mean curve",
    "features": "regression on free features",
    "threshold": "one threshold",
    "fixed": "fixed ratio",
    "oracle": "oracle",
}
FLOORS = ("0.8", "0.9", "0.95", "1.0")


def predicted(result: dict) -> str:
    """Errors of prediction, and the area under score against ratio."""
    lines = [
        f"**Which predictor is worth it?** Labels of {result['notes']['texts trained on']} texts to learn from, "
        f"{result['notes']['held out for promises']} held out. PPE is the mean squared error of predicted retention; "
        "P@R the mean score over delivered ratios, in points, and the paired difference to a fixed ratio (95 %) "
        "(`benchmarks/scripts/poc.py`).\n",
        "| task | texts | " + " | ".join(f"{name}" for name in POLICIES.values()) + " |",
        "|---|---|" + "---|" * len(POLICIES),
    ]
    for row in result["rows"]:
        cells = []
        for name in POLICIES:
            value, apart = row["pr"][name]["value"], row["pr"][name]["minus fixed"]
            cell = f"{100 * value:.1f}"
            if name != "fixed":
                cell += f" ({100 * apart[0]:+.1f}; {100 * apart[1]:+.1f} to {100 * apart[2]:+.1f})"
            if name in row["errors"]:
                cell += f", PPE {row['errors'][name]['ppe']:.3f}"
            cells.append(cell)
        lines.append(f"| {row['task']} | {row['texts']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def floors(result: dict) -> str:
    """What a floor delivers."""
    lines = [
        "**What does a floor deliver?** Mean delivered ratio / share of single texts below the floor / by how much the "
        "mean retention misses it (0: met), PoC that reads the text, nothing promised but the prediction (`mean`).\n",
        "| task | " + " | ".join(f"floor {floor}" for floor in FLOORS) + " |",
        "|---|" + "---|" * len(FLOORS),
    ]
    for row in result["rows"]:
        cells = [row["floors"]["text"][floor] for floor in FLOORS]
        told = [f"{c['ratio']:.2f} / {c['below']:.0%} / {c['mean retention missing']:.2f}" for c in cells]
        lines.append(f"| {row['task']} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def promised(result: dict) -> str:
    """What became of promises."""
    lines = [
        "**Are promises kept?** Floor 0.9, delta 0.1: mean delivered ratio, mean retention (gains counted as 1), share "
        "of texts below.\n",
        "| task | mean | risk | quantile |",
        "|---|---|---|---|",
    ]
    for row in result["rows"]:
        told = [
            f"{one['ratio']:.2f}, {one['mean retention']:.2f}, {one['below the floor']:.0%}"
            for one in (row["promises"][name] for name in ("mean", "risk", "quantile"))
        ]
        lines.append(f"| {row['task']} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def evidence(result: dict) -> str:
    row = {one["factor"]: one for one in result["rows"]}
    told = ", ".join(f"{one['recall']} ({one['low']}-{one['high']}) % at {factor:g}x" for factor, one in row.items())
    return (
        f"**Do the kept words hold the answer?** The classifier on whole SQuAD articles, {result['rows'][0]['items']} "
        f"questions, as in RAM's first table: {told}."
    )


def breakeven(result: dict) -> str:
    lines = [
        f"**Where does it pay?** Seconds on {result['environment']['cpus']} CPU cores, "
        f"{result['what']['dtype'].removeprefix('torch.')}, medians of three (`laconic profile --json`).\n",
        "| tokens | compress | read | compress, of reading |",
        "|---|---|---|---|",
    ]
    for length, compress, read in zip(result["lengths"], result["compress"], result["read"], strict=True):
        lines.append(f"| {length:,} | {compress:.2f} | {read:.2f} | {compress / read:.0%} |")
    return "\n".join(lines)


def beside(result: dict) -> str:
    by_tokens: dict[int, dict[str, dict]] = {}
    for row in result["rows"]:
        by_tokens.setdefault(row["tokens"], {})[row["package"]] = row
    version = result["their versions"]["llmlingua"]
    lines = [
        f"**Beside the package llmlingua {version}**, the same backbone as scorer, ratio {result['ratio']} asked for: "
        "tokens/s and ratio delivered (`benchmarks/scripts/llmlingua_speed.py`).\n",
        "| tokens | laconic, tokens/s | llmlingua | laconic, delivered | llmlingua |",
        "|---|---|---|---|---|",
    ]
    for tokens, pair in by_tokens.items():
        own, other = pair["laconic"], pair["llmlingua"]
        lines.append(
            f"| {tokens:,} | {own['tokens_per_second']:.0f} | {other['tokens_per_second']:.0f} | "
            f"{own['delivered']:.3f} | {other['delivered']:.3f} |"
        )
    return "\n".join(lines)
