"""What each part of CoMeT's memory is worth: what ships, trained a little further without it, asked at growing lengths.

    python benchmarks/scripts/comet_ablation.py --out benchmarks/results/comet_ablation.json

Every variant goes on from the adapter that ships, on the same batches (``recipes/comet/ablation.yaml``), and answers
the same questions; ``all parts`` is trained as far as the others. A run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from laconic.backbone import Backbone, load_backbone
from laconic.core import persist
from laconic.data.loaders import load_task
from laconic.eval import heatmap
from laconic.eval.report import markdown
from laconic.eval.runner import evaluate
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.model import CoMeT
from laconic.methods.registry import load_method
from laconic.train.recipe import run_recipe
from laconic.train.start import SHIPPED, saved_folder

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "comet" / "ablation.yaml"
#: by name, what a variant's configuration has otherwise than what ships
VARIANTS: dict[str, dict[str, Any]] = {
    "all parts": {},
    "no gate": {"gate": False},
    "no queue": {"stride": 0, "fifo_slots": 0},
    "no global memory": {"global_slots": 0},
}
TASKS = ("passkey-1k", "passkey-2k", "passkey-4k")


def without(shipped: Path, changes: dict[str, Any], folder: Path, backbone: Backbone) -> None:
    """Save what ships as far as a method with these changes has a place for it, for a training to go on from."""
    description = persist.read_description(shipped)
    config = replace(CoMeTConfig(**description["config"]), **changes)
    own = persist.own_parameters(CoMeT(backbone, config), backbone)
    kept = {n: t for n, t in persist.read_tensors(shipped).items() if n in own and own[n].shape == t.shape}
    persist.save_method(
        folder,
        method="comet",
        config=config.to_dict(),
        tensors=kept,
        backbone=backbone,
        provenance={"start": persist.version(shipped), "changes": changes},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "comet_ablation.json")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "comet-ablation")
    parser.add_argument("--limit", type=int, default=10, help="questions of each task")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every training")
    args = parser.parse_args()
    backbone, trained = load_backbone(), {}
    shipped = saved_folder(backbone, "comet", SHIPPED)
    for name, changes in VARIANTS.items():
        print(f"--- {name}", flush=True)
        folder = args.runs / name.replace(" ", "-")
        start = folder / f"start-{persist.version(shipped)}"
        if not start.exists():
            without(shipped, changes, start, backbone)
        settings = [f"comet.{option}={str(value).lower()}" for option, value in changes.items()]
        if changes.get("fifo_slots") == 0:  # no queue to cut short
            settings.append("stages.0.fifo_slots=null")
        trained[name] = run_recipe(RECIPE, [*settings, *args.set, f"start={start}", f"output={folder}"])
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
