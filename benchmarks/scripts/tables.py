"""Write the measured tables of README.md and docs/results.md from the committed result files.

    python benchmarks/scripts/tables.py

Numbers reach those pages only through here; the README has the first of each method.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import poc_tables
import tgpo_tables

from laconic.core import persist
from laconic.eval import reasoning_report
from laconic.eval.over_tasks import SOLVED
from laconic.eval.report import difference, references
from laconic.methods.registry import shipped_adapters

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CURRENT = {persist.version(folder) for folder in shipped_adapters()}


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


def recalled(title: str, measure: str = "em") -> Callable[[dict], str]:
    """A measure (whole answers) by method and task."""

    def draw(result: dict) -> str:
        tasks = list(dict.fromkeys(row["task"] for row in result["rows"]))
        cells = {(row["method"], row["task"]): row for row in result["rows"]}
        lines = [f"{title}\n", "| method | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
        for method in dict.fromkeys(row["method"] for row in result["rows"]):
            shown = [_share(cells.get((method, task), {"items": 0}), measure) for task in tasks]
            lines.append(f"| {method} | " + " | ".join(shown) + " |")
        return "\n".join(lines)

    return draw


def _share(row: dict, measure: str) -> str:
    if not row["items"]:
        return "-"
    found = row[measure]
    return f"{found['mean']:.0f} ({found['low']:.0f}-{found['high']:.0f}; {row['items']})"


def million(result: dict) -> str:
    rows, tokens = result["rows"], result["notes"]["tokens"]
    lines = [
        f"**And at {tokens:,}?** Five texts, read to their end, with a passkey at another depth each "
        "(`benchmarks/scripts/comet_million.py`).\n",
        "| depth | " + " | ".join(f"{row['depth']:.0%}" for row in rows) + " |",
        "|---" * (len(rows) + 1) + "|",
        "| wanted | " + " | ".join(row["wanted"] for row in rows) + " |",
        "| answered | " + " | ".join(row["answer"] for row in rows) + " |",
    ]
    return "\n".join(lines)


def short_text(result: dict) -> str:
    found, rows = result["notes"]["perplexity"], {row["method"]: row for row in result["rows"]}
    answer = {"sft": rows["full"], "comet": rows["comet"]}
    numbers = range(1, len(found["comet"]) + 1)
    lines = [
        f"**Is short text hurt, and does the memory help to read on?** Perplexity of {result['notes']['texts']} pieces "
        "of books that nothing was trained on, chunk by chunk: CoMeT's behind its memory, the others' alone or "
        f"(`sft, full`) behind all of the text; `sft` is tuned without a memory, "
        f"on a part of CoMeT's examples. F1 (95 %) of {rows['comet']['items']} questions about single "
        "paragraphs of SQuAD (`benchmarks/scripts/comet_short_text.py`).\n",
        "| decoder | " + " | ".join(f"chunk {number}" for number in numbers) + " | SQuAD F1 |",
        "|---" * (len(numbers) + 2) + "|",
    ]
    for name, perplexities in found.items():
        f1 = answer[name]["f1"] if name in answer else None
        shown = f"{f1['mean']:.1f} ({f1['low']:.1f}-{f1['high']:.1f})" if f1 else "-"
        lines.append(f"| {name} | " + " | ".join(f"{one:.2f}" for one in perplexities) + f" | {shown} |")
    return "\n".join(lines)


def comet_speed(result: dict) -> str:
    machine = result["environment"]
    dtype = "bfloat16" if machine["bf16_in_hardware"] else "float32, for want of bfloat16 in hardware"
    runs = max(len(row.get("runs_s", [row["seconds"]])) for row in result["rows"])
    lines = [
        f"**What does reading cost?** {machine['cpus']} CPU cores, {dtype}, one process to a run, "
        f"{'one run' if runs == 1 else f'the median of {runs} runs of short rows'}; "
        "runs differ by up to a half (`benchmarks/scripts/comet_speed.py`).\n",
        "| tokens | read by | seconds | tokens/s | of no memory's | peak MiB | state, KiB |",
        "|---" * 7 + "|",
    ]
    alone = {row["tokens"]: row["seconds"] for row in result["rows"] if row["method"] == "no memory"}
    for row in result["rows"]:
        state = f"{row['state_bytes'] / 1024:.0f}" if "state_bytes" in row else "-"
        share = f"{alone[row['tokens']] / row['seconds']:.0%}" if row["tokens"] in alone else "-"
        lines.append(
            f"| {row['tokens']:,} | {row['method']} | {row['seconds']:.1f} | {row['tokens_per_second']:.0f} | "
            f"{share} | {row['peak_mb']:.0f} | {state} |"
        )
    return "\n".join(lines)


def pipeline_speed(result: dict) -> str:
    lines = [
        f"**Training on a text that {result['processes']} processes share**, forward and back, chunks of 64 tokens: "
        "how much is left of what they do side by side without each other; the schedule's ideal is "
        f"{result['ideal']:.1%}; medians of {result['repeats']}, the least and the most "
        "(`benchmarks/scripts/pipeline_speed.py`).\n",
        "| chunks | one process, s | side by side, s | pipeline, s | utilisation |\n|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['chunks']} | {row['one_process_s']:.1f} | {row['apart_s']:.1f} | {row['pipeline_s']:.1f} | "
            f"{row['utilisation']:.0%} ({row['utilisation_least']:.0%} to {row['utilisation_most']:.0%}) |"
        )
    return "\n".join(lines)


def reasoned(title: str) -> Callable[[dict], str]:
    """Over all tasks, by each method's first seed."""
    return first_seeds(lambda result: f"{title}\n\n{reasoning_report.over_all(result)}")


def solved(result: dict) -> str:
    """Over the tasks that vanilla solves, by each method's first seed."""
    names = result["solved"]["tasks"]
    if not 1 < len(names) < len({row["task"] for row in result["rows"]}):
        return ""
    own = reasoning_report.without(reasoning_report.solved(result), result["further"])
    title = (
        f"The same over the tasks ({', '.join(names)}) of whose problems vanilla solves {SOLVED:.0f} % and more; they "
        "are chosen by what it solved here, which flatters it a little:"
    )
    return f"{title}\n\n{reasoning_report.over_all(own).replace('over all tasks', 'over these tasks')}"


def first_seeds(draw: Callable[[dict], str]) -> Callable[[dict], str]:
    return lambda result: draw(reasoning_report.without(result, result["further"]))


def seeds(result: dict) -> str:
    rows = result.get("over_seeds_and_tasks")
    if rows is None:  # one seed says nothing of others
        return ""
    items = sum(row["items"] for row in result["over_seeds"] if row["method"] == rows[0]["method"])
    lines = [
        f"**And trained again?** Each method by its recipe with {rows[0]['seeds']} seeds, asked the same {items} "
        "problems; means over tasks and seeds, with 95 % interval over seeds (Student's t), for these problems and the "
        "adapter that all seeds of a method go on from; differences seed by seed, and those of all seeds together with "
        "the interval over problems, all of them and those of the tasks that vanilla solves "
        "(`benchmarks/scripts/reasoning.py`).\n",
        "| method | right, % | less vanilla | and over problems | of tasks vanilla solves | peak | a pass |",
        "|" + "---|" * 7,
    ]
    for row in rows:
        shown = []
        apart = {"accuracy": row["accuracy"], "seeds": row.get("difference")}
        apart["problems"] = result["over_problems"].get(row["method"])
        apart["solved"] = result["over_solved_problems"].get(row["method"])
        for key, one in apart.items():
            sign = "" if key == "accuracy" else "+"
            shown.append(f"{one['mean']:{sign}.1f} ({one['low']:{sign}.1f} to {one['high']:{sign}.1f})" if one else "-")
        lines.append(f"| {row['method']} | {' | '.join(shown)} | {row['peak']:.0%} | {row['tokens_per_forward']:.2f} |")
    return "\n".join(lines)


def reasoning_speed(result: dict) -> str:
    rows = {row["method"]: row for row in result["rows"]}
    lines = [
        f"**How fast, one problem at a time?** {result['environment']['cpus']} CPU cores, {result['problems']} "
        f"problems of twelve steps, medians of {result['repeats']} runs; `generate` is that of transformers on the "
        "vanilla decoder, bookkeeping what of decoding is spent outside of the decoder "
        "(`benchmarks/scripts/reasoning_speed.py`).\n",
        "| way | tokens/s | of vanilla's | tokens a pass | bookkeeping |",
        "|" + "---|" * 5,
    ]
    for name, row in rows.items():
        faster = row["tokens_per_second"] / rows["vanilla"]["tokens_per_second"]
        more = f"{row['tokens_per_pass']:.2f} | {row['bookkeeping']:.1%}" if "bookkeeping" in row else "- | -"
        lines.append(f"| {name} | {row['tokens_per_second']:.1f} | {faster:.2f}x | {more} |")
    return "\n".join(lines)


PASSKEYS = recalled("**Is a passkey found?** Whole answers in %, with 95 % interval and questions.")
SAVED = reasoned(
    "**What is saved, and is the answer still right?** HybridThinker, MemoSight and LightThinker as they ship; "
    "peaks of the cache are beside vanilla's, `a pass` are tokens; means over tasks "
    "(`benchmarks/scripts/reasoning.py`; steps, tokens and guesses by task: "
    "`benchmarks/results/reasoning.table.md`)."
)
LONG = reasoned(
    "**And over nineteen moves?** Twenty steps, as above (`benchmarks/scripts/reasoning.py`; by task: "
    "`benchmarks/results/reasoning_long.table.md`)."
)

#: by the name of a block on a page: result files, each with what draws it
Blocks = dict[str, list[tuple[str, Callable[[dict], str]]]]
README: Blocks = {
    "numbers": [("evidence_recall.json", recall), ("ram_speed.json", speed)],
    "numbers of CoMeT": [
        ("comet_passkey.json", PASSKEYS),
        ("comet_million.json", million),
        ("comet_speed.json", comet_speed),
    ],
    "numbers of reasoning": [
        ("reasoning.json", SAVED),
        ("reasoning.json", solved),
        ("reasoning_long.json", LONG),
        ("reasoning.json", seeds),
        ("reasoning_speed.json", reasoning_speed),
    ],
    "numbers of PoC": [("poc.json", poc_tables.floors)],
    "numbers of TGPO": [("healing.json", tgpo_tables.healed), ("healing_seed1.json", tgpo_tables.healed_again)],
}
ALL: Blocks = {
    "numbers": [
        ("evidence_recall.json", recall),
        ("ram_ablation.json", ablation),
        ("squad_articles.json", answers),
        ("nq_multidoc.json", answers),
        ("nq_untuned.json", untuned),
        ("ram_speed.json", speed),
    ],
    "numbers of CoMeT": [
        ("comet_passkey.json", PASSKEYS),
        ("comet_million.json", million),
        ("comet_passkey_fresh.json", recalled("**And other keys, not looked at before?** As above, `--seed 1`.")),
        (
            "comet_passkey_rivals.json",
            recalled(
                "**And by others?** Read by the backbone tuned without a memory, which sees as many tokens as CoMeT's "
                "memory and open chunk hold, or (`full`) everything; and by RAM (`benchmarks/scripts/comet_long.py`, "
                "as the next tables)."
            ),
        ),
        (
            "comet_kinds.json",
            recalled(
                "**Facts of other kinds**, 4k tokens: one of three numbers, all values of a name, all names of a "
                "value. Share of what was to be said, as above.",
                "contains",
            ),
        ),
        ("comet_pairs.json", recalled("**And a value by its key?** Whole answers in %, as above.")),
        ("comet_babilong.json", recalled("**A story's facts hidden in a book** (BABILong qa1), as above.")),
        ("comet_babilong_64k.json", recalled("**And at 64k tokens?** As above.")),
        ("comet_babilong_others.json", recalled("**And BABILong's other questions?** As above.")),
        (
            "comet_summaries.json",
            recalled("**Answers of several sentences about long texts**, ROUGE-L in %, as above.", "rouge_l"),
        ),
        ("comet_short_text.json", short_text),
        ("comet_speed.json", comet_speed),
        ("pipeline_speed.json", pipeline_speed),
        (
            "comet_ablation.json",
            recalled("**What is each part worth?** What ships, trained a little further without it, as above."),
        ),
    ],
    "numbers of PoC": [
        ("poc.json", poc_tables.floors),
        ("poc.json", poc_tables.predicted),
        ("evidence_recall_classifier.json", poc_tables.evidence),
        ("breakeven.json", poc_tables.breakeven),
        ("poc_speed.json", poc_tables.speed),
        ("llmlingua.json", poc_tables.beside),
    ],
    "numbers of reasoning": [
        ("reasoning.json", SAVED),
        (
            "reasoning.json",
            first_seeds(recalled("Right, by task, in %, with 95 % interval and problems:", "accuracy")),
        ),
        ("reasoning.json", solved),
        ("reasoning_long.json", LONG),
        (
            "reasoning_long.json",
            first_seeds(recalled("Right, by task, in %, with 95 % interval and problems:", "accuracy")),
        ),
        ("reasoning.json", seeds),
        (
            "reasoning_untrained.json",
            recalled(
                "**And on what nobody was trained on?** GSM8K and LightThinker's questions of BBH and MMLU: right in "
                "%, with 95 % interval and problems.",
                "accuracy",
            ),
        ),
        ("reasoning_speed.json", reasoning_speed),
    ],
    "numbers of TGPO": [
        ("healing.json", tgpo_tables.healed),
        ("healing_seed1.json", tgpo_tables.healed_again),
        ("divergence.json", tgpo_tables.far),
        ("eos_alignment.json", tgpo_tables.ends),
        ("tgpo_costs.json", tgpo_tables.costs),
        ("divergence_toy.json", tgpo_tables.toy),
    ],
}

PAGES = {"README.md": README, "docs/results.md": ALL}


def main() -> None:
    for name, blocks in PAGES.items():
        page = ROOT / name
        page.write_text(filled(page.read_text(), blocks))


def filled(text: str, blocks: Blocks) -> str:
    """A page with its blocks written anew."""
    for block, sections in blocks.items():
        results = [(load(file), draw) for file, draw in sections]
        parts = [part for result, draw in results if result is not None and (part := draw(result))]
        start, end = f"<!-- {block} -->", f"<!-- end of {block} -->"
        before, rest = text.split(start, 1)
        _, after = rest.split(end, 1)
        text = before + start + "\n" + "\n\n".join(parts) + "\n" + end + after
    return text


if __name__ == "__main__":
    main()
