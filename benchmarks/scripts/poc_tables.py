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
    carried = [row | {"task": f"{row['task']}, another compressor"} for row in result.get("elsewhere", [])]
    for row in [*result["rows"], *carried]:
        cells = []
        for name in POLICIES:
            # one threshold is for the scores of the compressor it was found for
            cell = "" if name == "threshold" and row in carried else "never compresses"
            if name in row["pr"]:
                value, apart = row["pr"][name]["value"], row["pr"][name]["minus fixed"]
                cell = f"{100 * value:.1f}"
                if name != "fixed":
                    cell += f" ({100 * apart[0]:+.1f}; {100 * apart[1]:+.1f} to {100 * apart[2]:+.1f})"
            if name in row["errors"]:
                cell += f", PPE {row['errors'][name]['ppe']:.3f}"
            cells.append(cell)
        lines.append(f"| {called(row)} | {row['texts']} | " + " | ".join(cells) + " |")
    seeds = [(row["task"], of_seeds(row["errors"])) for row in [*result["rows"], *carried]]
    if any(len(values) > 1 for _, values in seeds):
        told = "; ".join(f"{task} " + ", ".join(f"{value:.3f}" for value in values) for task, values in seeds)
        lines.append(f"\nPPE of the predictor from {len(seeds[0][1])} seeds: {told}.")
    return "\n".join(lines)


def of_seeds(errors: dict) -> list[float]:
    """Errors of the predictor that reads, and of those trained like it from other seeds."""
    return [one["ppe"] for name, one in errors.items() if name.startswith("text")]


def floors(result: dict) -> str:
    """What floors and promises deliver, measured."""
    every = [asked(one) for row in result["rows"] for one in row["delivered"]]
    columns = list(dict.fromkeys(every))
    lines = [
        "**What does a floor deliver?** Texts compressed, read and scored: delivered ratio / mean retention (gains "
        "count as 1) / share of single texts below the floor; delta 0.1 (`benchmarks/scripts/poc.py`).\n",
        "| task | texts | " + " | ".join(columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for row in result["rows"]:
        cells = {
            asked(one): f"{one['ratio']:.2f} / {one['gains as 1']:.2f} / {one['below']:.0%}" for one in row["delivered"]
        }
        texts = row["texts"] - row["score nothing when whole"]
        told = [cells.get(column, "one chunk") for column in columns]
        lines.append(f"| {called(row)} | {texts} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def called(row: dict) -> str:
    """A task, and whether the predictor was trained on texts like it; compressor and reader may have been."""
    return row["task"] + ("" if row.get("seen in training", True) else ", new to the predictor")


def asked(one: dict) -> str:
    return f"{one['floor']:g}, {one['promise']}" + (", each chunk" if one.get("each chunk") else "")


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
        f"{result['what']['dtype'].removeprefix('torch.')}, medians of "
        f"{result['notes']['repeats']} (`laconic profile --json`).\n",
        "| tokens | compress | read | compress, of reading |",
        "|---|---|---|---|",
    ]
    for length, compress, read in zip(result["lengths"], result["compress"], result["read"], strict=True):
        lines.append(f"| {length:,} | {compress:.2f} | {read:.2f} | {compress / read:.0%} |")
    return "\n".join(lines)


def speed(result: dict) -> str:
    lines = [
        f"**What does stating a floor cost?** Seconds on {result['environment']['cpus']} CPU cores, "
        f"{result['dtype'].removeprefix('torch.')}, median and 95th percentile of {result['pieces']} pieces of a book: "
        "the classifier's pass, which any compression needs; predicting and choosing; cutting; the reader's pass over "
        "the whole text (`benchmarks/scripts/poc_speed.py`).\n",
        "| tokens | score | predict | cut | read | predict, of reading | score and cut, of reading |",
        "|" + "---|" * 7,
    ]
    for row in result["rows"]:
        stages = [f"{row[name]['p50']:.3f}, {row[name]['p95']:.3f}" for name in ("score", "predict", "cut", "read")]
        shares = [f"{row[name]:.1%}" for name in ("predict, of reading", "score and cut, of reading")]
        lines.append(f"| {row['tokens']:,} | " + " | ".join([*stages, *shares]) + " |")
    return "\n".join(lines)


def beside(result: dict) -> str:
    cells = {(row["package"], row["dtype"], row["tokens"]): row for row in result["rows"]}
    ways = list(dict.fromkeys((package, dtype) for package, dtype, _ in cells))
    version = result["their versions"]["llmlingua"]
    lines = [
        f"**Beside the package llmlingua {version}**, the same backbone as scorer, ratio {result['ratio']} asked for: "
        "tokens/s, and the ratio delivered (`benchmarks/scripts/llmlingua_speed.py`).\n",
        "| tokens | " + " | ".join(f"{package}, {dtype}" for package, dtype in ways) + " |",
        "|" + "---|" * (len(ways) + 1),
    ]
    for tokens in dict.fromkeys(tokens for *_, tokens in cells):
        own = [cells[(*way, tokens)] for way in ways]
        told = [f"{one['tokens_per_second']:,.0f}, {one['delivered']:.3f}" for one in own]
        lines.append(f"| {tokens:,} | " + " | ".join(told) + " |")
    return "\n".join(lines)
