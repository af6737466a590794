"""What learning from own answers gives back of what compression took: TGPO and its rivals from one start.

The student is vanilla's adapter with HybridThinker's memory, which knows nothing yet; the teacher is vanilla.

    python benchmarks/scripts/healing.py --arms tgpo written rkl grpo --out benchmarks/results/healing.json

Each objective trains the student of ``recipes/tgpo/cpu.yaml`` on the same problems, with as many answers of each.
``written`` is supervised fine-tuning on worked solutions, as many a step as others have answers in an update, for
``--written-steps`` steps: choose as many as take the seconds of ``tgpo`` (its log says how many). Asked are problems
nobody was trained on: of the uncompressed teacher, the student before, and the student after. What is recovered is the
share of the gap between the first two, over all tasks together, with an interval over problems. One seed says nothing
of others. A run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
import yaml
from measuring import VANILLA_START

from laconic.backbone import Backbone, load_backbone
from laconic.core.files import write_whole
from laconic.eval.journal import Line
from laconic.eval.progress import draw_progress, read_log
from laconic.eval.reasoning import evaluate_reasoning, items_of, reasoning_task
from laconic.methods.hybridthinker.model import HybridThinker
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
    # a squared log-ratio has another scale than guidance: it has the weights of its paper (2506.02208)
    "kdrl": [
        "stages.0.tgpo.teacher_weight=0.005",
        "stages.0.tgpo.teacher_weight_least=0.001",
        "stages.0.tgpo.teacher_schedule=cosine",
        "stages.0.tgpo.teacher_batches=21",
    ],
    "gkd": [],
    "grpo": ["stages.0.teacher=null"],
    "luffy": ["stages.0.teacher=null", "stages.0.given=1"],
}
#: supervised fine-tuning
WRITTEN = "written"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["tgpo", WRITTEN], choices=[*CHANGES, WRITTEN])
    parser.add_argument("--written-steps", type=int, default=100)
    parser.add_argument("--tasks", nargs="+", default=["shuffle-4", "variables-4", "machine-4"])
    parser.add_argument("--limit", type=int, default=32, help="problems of each task")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every training")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "healing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "healing.json")
    args = parser.parse_args()
    backbone = load_backbone()
    recipe = load_recipe(RECIPE, args.set)
    methods, training = {}, {}
    for arm in args.arms:
        print(f"--- {arm}", flush=True)
        output = args.runs / f"{arm}-{args.seed}"
        changes = [f"seed={args.seed}", f"output={output}"]
        if arm == WRITTEN:
            folder = run_recipe(supervised(recipe, args.written_steps, args.runs), changes)
        else:
            folder = run_recipe(RECIPE, [*args.set, *changes, f"stages.0.objective={arm}", *CHANGES[arm]])
        lines = (output / "heal" / "log.jsonl").read_text().splitlines()
        training[arm] = [json.loads(line) for line in lines]
        methods[f"after {arm}"] = load_thinker("hybridthinker", backbone, folder)
    whole: dict[str, Thinker] = {"uncompressed": load_thinker("vanilla", backbone, VANILLA_START)}
    before = started(recipe | {"seed": args.seed}, backbone, args.runs / "start")
    tasks = {name: reasoning_task(name, args.limit) for name in args.tasks}
    result = evaluate_reasoning(
        whole | {"before": before} | methods,
        tasks,
        args.out,
        max_new_tokens=300,
        batch_size=args.batch_size,
        notes={"limit": args.limit, "seed": args.seed, "recipe": recipe, "written_steps": args.written_steps},
    )
    items = items_of(result, tasks, args.out)
    result["recovered"] = [recovered(items, name) for name in methods]
    result["training"] = training
    write_whole(args.out, json.dumps(result, indent=1) + "\n")
    for line in result["recovered"]:
        print(line)
    logs = {arm: read_log(args.runs / f"{arm}-{args.seed}" / "heal" / "log.jsonl") for arm in args.arms}
    shown = {arm: log for arm, log in logs.items() if log}  # supervised training asks nothing on its way
    draw_progress(shown, args.out.with_suffix(".png"), "Vanilla becomes HybridThinker on its own answers")


def supervised(recipe: dict[str, Any], steps: int, runs: Path) -> Path:
    """The same student on written solutions."""
    own = recipe["stages"][0]
    stage = {name: own[name] for name in ("name", "task", "difficulty", "soft_rate")}
    each = own["rows"] * own["answers"] // own["updates"]
    stage |= {"segmenter": None, "limit": 1024, "rows": each, "pack": None}
    stage["loop"] = own["loop"] | {"steps": steps}
    path = runs / f"{WRITTEN}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, yaml.safe_dump(recipe | {"stages": [stage]}))
    return path


def started(recipe: dict[str, Any], backbone: Backbone, folder: Path) -> Thinker:
    """The student as training finds it, saved first so that result files can name its weights."""
    torch.manual_seed(recipe["seed"])
    student = HybridThinker(backbone, HybridThinker.options.from_dict(recipe["hybridthinker"]))
    take_over(student, recipe["start"], print)
    student.save_pretrained(folder, dtype=torch.bfloat16)
    return load_thinker("hybridthinker", backbone, folder)


def recovered(items: dict[str, dict[str, Line]], name: str, draws: int = 2000) -> dict[str, Any]:
    """What a training gave back, over all tasks: answers and steps in % before, after and uncompressed; the share of
    the gap, with a 95 % interval by drawing problems anew (null where the gap may be none)."""
    before_after = [items[who] for who in ("before", name, "uncompressed")]
    problems = [key for key in before_after[0] if all(key in own for own in before_after)]
    line: dict[str, Any] = {"method": name, "problems": len(problems)}
    for measure in ("right", "steps_right"):
        values = [[float(own[key][measure]) for own in before_after] for key in problems]
        line[measure] = dict(zip(("before", "after", "uncompressed"), _percent(values), strict=True))
        draw, shares = random.Random(0), []
        for _ in range(draws):
            low, after, high = _percent([draw.choice(values) for _ in values])
            shares.append((after - low) / (high - low) if high > low else None)
        known = sorted(share for share in shares if share is not None)
        before, after, whole = _percent(values)
        sure = len(known) == len(shares)
        line[measure]["recovered"] = round((after - before) / (whole - before), 3) if sure else None
        line[measure]["interval"] = [round(known[int(q * len(known))], 3) for q in (0.025, 0.975)] if sure else None
    return line


def _percent(values: list[list[float]]) -> list[float]:
    return [round(100 * sum(column) / len(values), 2) for column in zip(*values, strict=True)]


if __name__ == "__main__":
    main()
