"""What does compressing finished steps save, and what does it cost in answers?

    python benchmarks/scripts/reasoning.py --out benchmarks/results/reasoning.json

``--methods`` are trained by their recipes, part by part (``RECIPES``), once for each seed; where a committed adapter
was made by just the last of them and the seed, it is taken. What stands under ``--once`` is asked as it ships, or
trained with the first seed alone. Vanilla and HybridThinker have equal steps from the same start; MemoSight has more,
as it goes on from the HybridThinker that ships, whatever its seed. What evicts without training reads with the first
seed's vanilla, whose cache is also what others' are compared with. Puzzles that are asked were never trained on. Beside
the table, a picture of the tokens in the cache while the first problem of each task is solved. A run that was cut short
goes on where it was.

Vanilla and HybridThinker take an hour to an hour and a half each on one CPU core in bfloat16, MemoSight most of an
hour, answering some eight minutes a method and seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laconic.backbone import Backbone, load_backbone
from laconic.core import persist
from laconic.core.files import write_whole
from laconic.data.problems import Problem
from laconic.eval import curves
from laconic.eval.reasoning import evaluate_reasoning, items_of, reasoning_task
from laconic.eval.reasoning_report import markdown, without
from laconic.eval.seeds import MOST_SEEDS, over_problems, over_seeds, over_seeds_and_tasks
from laconic.methods.baselines.heavy_hitters import HeavyHitters
from laconic.methods.baselines.window_thinker import WindowThinker
from laconic.methods.registry import load_thinker, shipped_adapter
from laconic.methods.thinking.model import Thinker
from laconic.train.recipe import load_recipe, run_recipe

ROOT = Path(__file__).resolve().parents[2]
#: each part goes on from what the one before it has made
RECIPES = {
    "vanilla": ("vanilla/more", "vanilla/long", "vanilla/finish"),
    "hybridthinker": ("hybridthinker/cpu", "hybridthinker/long", "hybridthinker/finish"),
    "memosight": ("memosight/cpu",),
    "lightthinker": ("hybridthinker/cpu", "lightthinker/cpu"),
    "anchors": ("anchors/cpu", "anchors/long"),
    "hybridthinker, 1 memory token": ("hybridthinker/short",),
}
SEVERAL = ("hybridthinker", "memosight")
SINGLE = ("lightthinker", "anchors", "hybridthinker, 1 memory token")
#: eleven moves and the answer are twelve steps. Not twelve moves: six rounds of two of them bring a row of four balls,
#: or three cards, back to where they began, and the problem itself says the answer
TASKS = [f"{kind}-11" for kind in ("shuffle", "arithmetic", "variables", "machine", "lists")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rest = [name for name in RECIPES if name != "vanilla"]
    parser.add_argument(
        "--methods", nargs="*", default=list(SEVERAL), choices=rest, help="beside vanilla, by every seed"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--once", nargs="*", default=list(SINGLE), choices=rest, help="by one training each")
    parser.add_argument("--held", nargs="*", type=int, default=[128], help="tokens of a window, of scored eviction")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="shuffle-12 and such, gsm8k_test, ...")
    parser.add_argument("--limit", type=int, default=48, help="problems of each task")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "reasoning")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change every training; what ships stays"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "reasoning.json")
    args = parser.parse_args()
    if len(set(args.seeds)) < len(args.seeds) or set(args.methods) & set(args.once):
        parser.error("a seed twice, or a method both under --methods and --once")
    if len(args.seeds) > MOST_SEEDS:
        parser.error(f"there are intervals of {MOST_SEEDS} seeds at the most")
    tasks = {name: reasoning_task(name, args.limit) for name in args.tasks}
    backbone = load_backbone()
    first, *others = args.seeds
    several = ["vanilla", *args.methods]
    folders = {name: trained(name, first, args, backbone) for name in several}
    folders |= {name: shipped_adapter(backbone, name) or trained(name, first, args, backbone) for name in args.once}
    methods = {name: load_thinker(kind_of(name), backbone, folder) for name, folder in folders.items()}
    methods |= evicting(args.held, folders["vanilla"], backbone)
    pictured = list(methods)
    for seed in others:
        for name in several:
            folder = trained(name, seed, args, backbone)
            methods[again(name, seed)] = load_thinker(kind_of(name), backbone, folder)
    noted = {key: getattr(args, key) for key in ("methods", "once", "held", "seeds", "limit", "batch_size", "set")}
    result = evaluate_reasoning(
        methods, tasks, args.out, max_new_tokens=args.max_new_tokens, batch_size=args.batch_size, notes=noted
    )
    if others:
        names = {name: [name, *(again(name, seed) for seed in others)] for name in several}
        result["over_seeds"] = over_seeds(result["rows"], names)
        result["over_seeds_and_tasks"] = over_seeds_and_tasks(result["rows"], names, "vanilla")
        result["over_problems"] = compared(result, tasks, names, args.out)
        easy = {task: tasks[task] for task in result["solved"]["tasks"]}
        result["over_solved_problems"] = compared(result, easy, names, args.out) if easy else {}
    result["further"] = [again(name, seed) for seed in others for name in several]
    write_whole(args.out, json.dumps(result, indent=1) + "\n")
    write_whole(args.out.with_suffix(".table.md"), markdown(without(result, result["further"])) + "\n")
    shown = {name: problems[0].question for name, problems in tasks.items()}
    solved = {
        method: methods[method].solve(list(shown.values()), max_new_tokens=args.max_new_tokens) for method in pictured
    }
    for place, (name, question) in enumerate(shown.items()):
        one = {method: solutions[place] for method, solutions in solved.items()}
        curves.draw(one, args.out.with_suffix(f".{name}.png"), f"{name}: {question[:60]}...")


def compared(
    result: dict[str, Any], tasks: dict[str, list[Problem]], names: dict[str, list[str]], out: Path
) -> dict[str, dict[str, float]]:
    """With vanilla, problem by problem of these tasks, all seeds together."""
    items = items_of(result, tasks, out)
    right = {name: {key: one["right"] for key, one in own.items()} for name, own in items.items()}
    return over_problems(right, names, "vanilla")


def evicting(held: Sequence[int], vanilla: Path, backbone: Backbone) -> dict[str, Thinker]:
    """A saved vanilla with less of a cache, and no training for it."""
    found: dict[str, Thinker] = {}
    for tokens in held:
        for name, kind in (("window", WindowThinker), ("heavy hitters", HeavyHitters)):
            thinker = kind.from_pretrained(vanilla, backbone).merge()
            thinker.tokens = tokens
            found[f"{name}, {tokens} tokens"] = thinker
    return found


def trained(name: str, seed: int, args: argparse.Namespace, backbone: Backbone) -> Path:
    print(f"--- {name}, seed {seed}", flush=True)
    changes = [f"seed={seed}", *args.set]
    parts = {part.replace("/", "-"): ROOT / "recipes" / f"{part}.yaml" for part in RECIPES[name]}
    folder = committed(backbone, name, [load_recipe(recipe, changes) for recipe in parts.values()])
    start: list[str] = []
    for part, recipe in parts.items() if folder is None else ():
        folder = run_recipe(recipe, [*changes, f"output={args.runs / f'{part}-{seed}'}", *start])
        start = [f"start={folder}"]
    assert folder is not None
    return folder


def committed(backbone: Backbone, name: str, recipes: Sequence[dict[str, Any]]) -> Path | None:
    """The adapter in this repository, if it was made by these recipes, one behind the other.

    What the first of several went on from is not compared: it is named by where it was put.
    """
    folder = shipped_adapter(backbone, name)
    if folder is None:
        return None
    made = persist.read_description(folder)["provenance"]
    placed = ("output", "start") if len(recipes) > 1 else ("output",)
    for recipe in reversed(recipes):
        own = made.get("recipe")
        if own is None or own | {key: recipe[key] for key in placed} != recipe:
            return None
        made = made.get("start", {})
    return folder


def kind_of(name: str) -> str:
    """The method of a row that may be made otherwise than it ships."""
    return name.partition(",")[0]


def again(name: str, seed: int) -> str:
    """Of a method's further seeds; its first has the method's own name."""
    return f"seed {seed}: {name}"


if __name__ == "__main__":
    main()
