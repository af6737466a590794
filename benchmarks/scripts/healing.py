"""What learning from own answers gives back of what compression took: TGPO and its rivals from one start.

    python benchmarks/scripts/healing.py --objectives tgpo sft rkl grpo --out benchmarks/results/healing.json

Each objective trains the student of ``recipes/tgpo/cpu.yaml`` on the same problems, with as many answers of each. Asked
are problems nobody was trained on: of the uncompressed teacher, the student before, and the student after. What is
recovered is the share of the gap between the first two. ``sft`` rolls nothing out, so an equal number of answers takes
it less time; the picture shows both. A run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from laconic.backbone import Backbone, load_backbone
from laconic.core.files import write_whole
from laconic.eval.progress import draw_progress, read_log
from laconic.eval.reasoning import evaluate_reasoning, reasoning_task
from laconic.methods.lightthinker.model import LightThinker
from laconic.methods.registry import load_thinker
from laconic.methods.thinking.model import Thinker
from laconic.train.recipe import load_recipe, run_recipe
from laconic.train.start import take_over

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "tgpo" / "cpu.yaml"
#: what a rival needs besides its name
CHANGES: dict[str, list[str]] = {
    "tgpo": [],
    "rkl": [],
    "kdrl": [],
    "gkd": [],
    "grpo": ["stages.0.teacher=null"],
    "sft": ["stages.0.teacher=null", "stages.0.given=4"],
    "luffy": ["stages.0.teacher=null", "stages.0.given=1"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", default=["tgpo", "sft"], choices=list(CHANGES))
    parser.add_argument("--tasks", nargs="+", default=["shuffle-6", "variables-6", "machine-6"])
    parser.add_argument("--limit", type=int, default=32, help="problems of each task")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every training")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "healing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "healing.json")
    args = parser.parse_args()
    backbone = load_backbone()
    logs, methods = {}, {}
    for objective in args.objectives:
        print(f"--- {objective}", flush=True)
        output = args.runs / f"{objective}-{args.seed}"
        changes = [f"stages.0.objective={objective}", f"seed={args.seed}", f"output={output}", *CHANGES[objective]]
        folder = run_recipe(RECIPE, [*changes, *args.set])
        logs[objective] = read_log(output / "heal" / "log.jsonl")
        methods[f"after {objective}"] = load_thinker("lightthinker", backbone, folder)
    recipe = load_recipe(RECIPE, args.set)
    whole: dict[str, Thinker] = {"uncompressed": load_thinker("vanilla", backbone)}
    before = started(recipe, backbone, args.runs / "start")
    tasks = {name: reasoning_task(name, args.limit) for name in args.tasks}
    result = evaluate_reasoning(
        whole | {"before": before} | methods,
        tasks,
        args.out,
        max_new_tokens=300,
        batch_size=args.batch_size,
        notes={"limit": args.limit, "seed": args.seed, "recipe": recipe},
    )
    result["recovered"] = recovered(result["rows"], list(methods))
    result["training"] = logs
    write_whole(args.out, json.dumps(result, indent=1) + "\n")
    for line in result["recovered"]:
        print(line)
    draw_progress(logs, args.out.with_suffix(".png"), "LightThinker from HybridThinker, on its own answers")


def started(recipe: dict[str, Any], backbone: Backbone, folder: Path) -> Thinker:
    """The student as training finds it, saved first so that result files can name its weights."""
    student = LightThinker(backbone, LightThinker.options.from_dict(recipe["lightthinker"]))
    take_over(student, recipe["start"], print)
    student.save_pretrained(folder, dtype=torch.bfloat16)
    return load_thinker("lightthinker", backbone, folder)


def recovered(rows: list[dict[str, Any]], trained: list[str]) -> list[dict[str, Any]]:
    """For each task and training, accuracy before, after and uncompressed in %, and the share of the gap given back."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = {row["method"]: row for row in rows if row["task"] == task}
        for measure in ("accuracy", "steps_right"):
            value = {name: row[measure]["mean"] if measure == "accuracy" else row[measure] for name, row in own.items()}
            gap = value["uncompressed"] - value["before"]
            for name in trained:
                line: dict[str, Any] = {"task": task, "measure": measure, "method": name, "before": value["before"]}
                line |= {"after": value[name], "uncompressed": value["uncompressed"]}
                line["recovered"] = round((value[name] - value["before"]) / gap, 3) if gap > 0 else None
                found.append(line)
    return found


if __name__ == "__main__":
    main()
