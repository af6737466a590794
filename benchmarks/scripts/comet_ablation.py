"""What each part of CoMeT's memory is worth: the same small training without it, asked at growing lengths.

    python benchmarks/scripts/comet_ablation.py --out benchmarks/results/comet_ablation.json

Every variant is trained from the same start on the same batches (``recipes/comet/ablation.yaml``) and answers the same
questions. A run that was cut short goes on where it was. The trainings take hours on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from laconic.backbone import load_backbone
from laconic.data.loaders import load_task
from laconic.eval import heatmap
from laconic.eval.report import markdown
from laconic.eval.runner import evaluate
from laconic.methods.registry import load_method
from laconic.train.recipe import run_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "comet" / "ablation.yaml"
#: by name, what is changed in the recipe
VARIANTS: dict[str, list[str]] = {
    "all parts": [],
    "no gate": ["comet.gate=false"],
    "no queue": ["comet.stride=0", "comet.fifo_slots=0", "stages.0.fifo_slots=null", "stages.1.fifo_slots=null"],
    # what the queue drops, nothing could answer: it is never cut short here
    "no global memory": ["comet.global_slots=0", "stages.0.fifo_slots=null", "stages.1.fifo_slots=null"],
}
TASKS = ("passkey-1k", "passkey-2k", "passkey-4k", "passkey-8k", "number-1k-keys3", "number-4k-keys3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "comet_ablation.json")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "comet-ablation")
    parser.add_argument("--limit", type=int, default=50, help="questions of each task")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every training")
    args = parser.parse_args()
    trained = {}
    for name, changes in VARIANTS.items():
        print(f"--- {name}", flush=True)
        folder = args.runs / name.replace(" ", "-")
        trained[name] = run_recipe(RECIPE, [*changes, *args.set, f"output={folder}"])
    backbone = load_backbone()
    result = evaluate(
        {name: load_method("comet", backbone, folder) for name, folder in trained.items()},
        {task: load_task(task, limit=args.limit) for task in TASKS},
        [1.0],
        args.out,
        reader="own",
        backbone=backbone.content_hash,
        against=["all parts"],
        notes={"limit": args.limit, "recipe": RECIPE.name, "set": args.set},
    )
    args.out.with_suffix(".table.md").write_text(markdown(result))
    lines = heatmap.lines_by_method(result, args.out.with_suffix(".items.jsonl"))
    heatmap.draw(lines, args.out.with_suffix(".depths.png"))


if __name__ == "__main__":
    main()
