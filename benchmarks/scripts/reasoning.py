"""What does compressing finished steps save, and what does it cost in answers?

    python benchmarks/scripts/reasoning.py --out benchmarks/results/reasoning.json

Every method is trained by its recipe (``recipes/<method>/cpu.yaml``, vanilla by ``recipes/vanilla/more.yaml``), once
for each seed; where a committed adapter was made by just that recipe and seed, it is taken. Vanilla, HybridThinker and
anchors have equal steps from the same start; MemoSight has more, as it goes on from the HybridThinker that ships, and
LightThinker more again. What stands under ``--once`` is asked as it ships, or trained with the first seed alone. What
evicts without training reads with the first seed's vanilla, whose cache is also what others' are compared with.
Puzzles that are asked were never trained on. Beside the table, a picture of the tokens in the cache while the first
problem of each task is solved. A run that was cut short goes on where it was.

A training takes half an hour on one CPU core in bfloat16 (LightThinker's an hour and a half), answering some eight
minutes a method and seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from measuring import VANILLA

from laconic.backbone import Backbone, load_backbone
from laconic.core import persist
from laconic.core.files import write_whole
from laconic.eval import curves
from laconic.eval.reasoning import evaluate_reasoning, reasoning_task
from laconic.eval.reasoning_report import markdown
from laconic.eval.seeds import over_seeds, over_seeds_and_tasks
from laconic.methods.baselines.heavy_hitters import HeavyHitters
from laconic.methods.baselines.window_thinker import WindowThinker
from laconic.methods.registry import THINKERS, load_thinker, shipped_adapter
from laconic.methods.thinking.model import Thinker
from laconic.train.recipe import load_recipe, run_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {name: f"{name}/{'more' if name == 'vanilla' else 'cpu'}.yaml" for name in (*THINKERS, "anchors")}
SEVERAL, SINGLE = ("vanilla", "hybridthinker", "memosight"), ("lightthinker", "anchors")
#: eleven moves and the answer are twelve steps. Not twelve moves: six rounds of two of them bring a row of four balls,
#: or three cards, back to where they began, and the problem itself says the answer
TASKS = [f"{kind}-11" for kind in ("shuffle", "arithmetic", "variables", "machine", "lists")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(SEVERAL), choices=list(RECIPES), help="by every seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--once", nargs="*", default=list(SINGLE), choices=list(RECIPES), help="by one training each")
    parser.add_argument("--held", nargs="*", type=int, default=[128], help="tokens of a window, of scored eviction")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="shuffle-12 and such, gsm8k_test, ...")
    parser.add_argument("--limit", type=int, default=48, help="problems of each task")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "reasoning")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every training")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "reasoning.json")
    args = parser.parse_args()
    tasks = {name: reasoning_task(name, args.limit) for name in args.tasks}
    backbone = load_backbone()
    first, *others = args.seeds
    methods = {name: trained(name, first, args, backbone) for name in args.methods}
    methods |= {name: once(name, args, backbone) for name in args.once} | evicting(args, backbone)
    pictured = list(methods)
    methods |= {again(name, seed): trained(name, seed, args, backbone) for seed in others for name in args.methods}
    result = evaluate_reasoning(
        methods,
        tasks,
        args.out,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        notes={"limit": args.limit, "seeds": args.seeds, "set": args.set},
    )
    seeds = {name: [name, *(again(name, seed) for seed in others)] for name in args.methods}
    result["over_seeds"] = over_seeds(result["rows"], seeds)
    if "vanilla" in seeds:
        result["over_seeds_and_tasks"] = over_seeds_and_tasks(result["rows"], seeds, "vanilla")
    write_whole(args.out, json.dumps(result, indent=1) + "\n")
    write_whole(args.out.with_suffix(".table.md"), markdown(result) + "\n")
    for name, problems in tasks.items():
        one = {}
        for method in pictured:
            one[method] = methods[method].solve([problems[0].question], max_new_tokens=args.max_new_tokens)[0]
        curves.draw(one, args.out.with_suffix(f".{name}.png"), f"{name}: {problems[0].question[:60]}...")


def once(name: str, args: argparse.Namespace, backbone: Backbone) -> Thinker:
    return (
        load_thinker(name, backbone)
        if shipped_adapter(backbone, name)
        else trained(name, args.seeds[0], args, backbone)
    )


def evicting(args: argparse.Namespace, backbone: Backbone) -> dict[str, Thinker]:
    """The vanilla that was trained on, with less of a cache and no training for it."""
    found: dict[str, Thinker] = {}
    for tokens in args.held:
        for name, kind in (("window", WindowThinker), ("heavy hitters", HeavyHitters)):
            thinker = kind.from_pretrained(VANILLA, backbone).merge()
            thinker.tokens = tokens
            found[f"{name}, {tokens} tokens"] = thinker
    return found


def trained(name: str, seed: int, args: argparse.Namespace, backbone: Backbone) -> Thinker:
    print(f"--- {name}, seed {seed}", flush=True)
    changes = [f"seed={seed}", f"output={args.runs / f'{name}-{seed}'}", *args.set]
    recipe = ROOT / "recipes" / RECIPES[name]
    folder = committed(backbone, name, load_recipe(recipe, changes)) or run_recipe(recipe, changes)
    return load_thinker(name, backbone, folder)


def committed(backbone: Backbone, name: str, recipe: dict[str, Any]) -> Path | None:
    """The adapter in this repository, if it was made by this recipe."""
    folder = VANILLA if name == "vanilla" else shipped_adapter(backbone, name)
    if folder is None:
        return None
    own = persist.read_description(folder)["provenance"].get("recipe")
    return folder if own is not None and own | {"output": recipe["output"]} == recipe else None


def again(name: str, seed: int) -> str:
    """Of a method's further seeds; its first has the method's own name."""
    return f"seed {seed}: {name}"


if __name__ == "__main__":
    main()
