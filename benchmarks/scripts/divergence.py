"""Does guidance beat reverse KL where student and teacher are far apart? TGPO's claim, with the distance as a knob.

    python benchmarks/scripts/divergence.py --seeds 0 1 2 --out benchmarks/results/divergence.json

A student is warmed up on worked solutions and goes on from its own answers by each objective, on the same problems
(``recipes/tgpo/divergence.yaml``). What brings it away from its teacher (``AWAY``): fewer steps of warming up, or
another prompt in them than it is asked with. Not a higher temperature, at which reverse KL would compare what was drawn
otherwise than the teacher says it. How far apart they are is measured on the first answers: how often both would say
the same, and how likely the teacher finds what the student says.
For each distance and objective: problems solved (greedily, of 32) at the end, over seeds, and by how much more than by
reverse KL from the same seeds; after how many answers reverse KL's final share is first reached; how long answers get,
and how many are cut off. A run that was cut short goes on where it was; trainings that are in the
journal beside the result are not made again, and all of them are in the table, if recipe, backbone, precision and
teacher are the same. So it can be made in several calls: one after the other, or each with its own ``--runs`` and
``--out``, whose journals are then joined.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from laconic.backbone import load_backbone
from laconic.core import persist
from laconic.core.files import write_whole
from laconic.eval.environment import environment
from laconic.eval.journal import Journal
from laconic.eval.progress import draw_progress
from laconic.eval.seeds import mean_with_t_interval
from laconic.train.recipe import load_recipe, run_recipe
from laconic.train.start import saved_folder

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "tgpo" / "divergence.yaml"
CHANGES: dict[str, list[str]] = {
    "tgpo": [],
    "rkl": [],
    "gkd": [],  # beta 0: forward KL
    # a squared log-ratio has another scale than guidance: it has the weights of its paper (2506.02208)
    "kdrl": [
        "stages.0.tgpo.teacher_weight=0.005",
        "stages.0.tgpo.teacher_weight_least=0.001",
        "stages.0.tgpo.teacher_schedule=cosine",
        "stages.0.tgpo.teacher_batches=10",
    ],
    "grpo": ["stages.0.teacher=null"],
}


Log = list[dict[str, Any]]
#: of the last batch of roll-outs
AT_THE_END = {
    "length": "completions/mean_length",
    "cut off": "completions/clipped_ratio",
    "entropy": "entropy",
}


@dataclass(frozen=True)
class Away:
    """How a student comes to be as far from its teacher as it is.

    Attributes:
        steps: of warming up.
        warming: changes of that.
    """

    steps: int
    warming: Sequence[str] = ()


AWAY = {
    "10 steps": Away(10),
    "5 steps": Away(5),
    "no steps": Away(0),
    "40 steps, another prompt": Away(40, warming=[r'vanilla.prompt="Problem: {problem}\nSolution:\n"']),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", default=list(CHANGES), choices=list(CHANGES))
    parser.add_argument("--away", nargs="+", default=list(AWAY), choices=list(AWAY), help="how it is brought away")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every training")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "divergence")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "divergence.json")
    args = parser.parse_args()
    recipe = load_recipe(RECIPE, args.set)
    journal, marks = Journal(args.out), fingerprints(recipe)
    for away, seed, objective in product(args.away, args.seeds, args.objectives):
        learnt(journal, recipe, marks, away, objective, seed, args.runs)
    logs = made(journal, recipe, marks)
    rows = [row for away, own in logs.items() for row in table(away, own)]
    for row in rows:
        print(row)
    places = {line["item"]: line["environment"] for line in journal.done.values()}
    result = {"rows": rows, "recipe": recipe, "marks": marks, "trained in": places}
    result |= {"environment": environment()}
    write_whole(args.out, json.dumps(result, indent=1) + "\n")
    for away, own in logs.items():
        seed = min(min(runs) for runs in own.values())
        first = {name: asked(runs[seed]) for name, runs in own.items() if seed in runs}
        picture = args.out.with_suffix(f".{named(away)}.png")
        draw_progress(first, picture, f"a student warmed up for {away}, seed {seed}")


def fingerprints(recipe: dict[str, Any]) -> dict[str, str]:
    """What a recipe names by a word that may mean something else elsewhere or later."""
    backbone = load_backbone(recipe["backbone"], dtype=recipe["dtype"], device=recipe["device"])
    teacher = recipe["stages"][1]["teacher"]
    found = {"backbone": backbone.content_hash, "dtype": str(backbone.dtype)}
    return found | {"teacher": persist.version(saved_folder(backbone, recipe["method"], teacher)) if teacher else ""}


def learnt(
    journal: Journal,
    recipe: dict[str, Any],
    marks: dict[str, str],
    away: str,
    objective: str,
    seed: int,
    runs: Path,
) -> Log:
    """The log of a training, which is made if the journal has none like it."""
    key, how = key_of(recipe, marks, away, objective, seed), AWAY[away]
    if key not in journal.done:
        print(f"--- {key[1]}", flush=True)
        start = warmed(recipe, how, runs, seed)
        output = runs / f"{objective}-{named(away)}-{seed}"
        run_recipe(learning(recipe, runs), changes(objective, start, output, seed))
        new = whole_log(output / "learn" / "log.jsonl")
        journal.add({"setting": key[0], "item": key[1], "log": new, "environment": environment()})
    log: Log = journal.done[key]["log"]
    return log


def key_of(recipe: dict[str, Any], marks: dict[str, str], away: str, objective: str, seed: int) -> tuple[str, str]:
    """A training in the journal: what it is made of, and its name."""
    told = [recipe | {"output": None, "seed": seed}, asdict(AWAY[away]), CHANGES[objective], marks]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    return digest, f"{away}, {objective}, seed {seed}"


def made(journal: Journal, recipe: dict[str, Any], marks: dict[str, str]) -> dict[str, dict[str, dict[int, Log]]]:
    """The logs of all trainings of this recipe that the journal has, by distance, objective and seed."""
    seeds = sorted({int(item.rpartition(" ")[2]) for _, item in journal.done})
    logs: dict[str, dict[str, dict[int, Log]]] = {}
    for away, objective, seed in product(AWAY, CHANGES, seeds):
        line = journal.done.get(key_of(recipe, marks, away, objective, seed))
        if line is not None:
            logs.setdefault(away, {}).setdefault(objective, {})[seed] = line["log"]
    return logs


def warmed(recipe: dict[str, Any], how: Away, runs: Path, seed: int) -> str | None:
    """The folder of a student that was warmed up so; None for the backbone as it is."""
    if how.steps == 0:
        return None
    prompt = "-prompt" if how.warming else ""
    output = runs / f"warm-{how.steps}{prompt}-{seed}"
    made = written(recipe | {"stages": recipe["stages"][:1]}, output)
    return str(run_recipe(made, [f"stages.0.loop.steps={how.steps}", f"output={output}", f"seed={seed}", *how.warming]))


def named(away: str) -> str:
    """A distance as part of a file's name."""
    return away.replace(",", "").replace(" ", "-")


def learning(recipe: dict[str, Any], runs: Path) -> Path:
    """The recipe's second stage alone."""
    return written(recipe | {"stages": recipe["stages"][1:]}, runs / "learn")


def written(recipe: dict[str, Any], output: Path) -> Path:
    path = output.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, yaml.safe_dump(recipe))
    return path


def changes(objective: str, start: str | None, output: Path, seed: int) -> list[str]:
    named = [f"stages.0.objective={objective}", f"output={output}", f"seed={seed}"]
    return [*named, f"start={start or 'null'}", *CHANGES[objective]]


def whole_log(path: Path) -> Log:
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(away: str, logs: dict[str, dict[int, Log]]) -> list[dict[str, Any]]:
    """A row for each objective at one distance, from logs by seed."""
    solved = {
        name: {seed: 100 * asked(run)[-1]["asked/right"] for seed, run in runs.items()} for name, runs in logs.items()
    }
    rivals = solved.get("rkl", {})
    goal = _goal(logs.get("rkl", {}))
    rows = []
    for objective, by_seed in logs.items():
        runs = list(by_seed.values())
        row: dict[str, Any] = {"away": away, "objective": objective, "seeds": len(runs)}
        row["before"] = round(100 * fmean(asked(run)[0]["asked/right"] for run in runs), 2)
        row["after"] = _told(list(solved[objective].values()))
        paired = [own - rivals[seed] for seed, own in solved[objective].items() if seed in rivals]
        if paired and objective != "rkl":
            row["minus rkl"] = _told(paired, least=-100.0)
        for name, what in AT_THE_END.items():
            row[name] = round(fmean(run[-1][what] for run in runs), 3)
        for at, place in (("first", 1), ("last", -1)):
            for name in ("teacher/agreement", "teacher/log_prob_of_said"):
                if name in runs[0][place]:
                    row[f"{name}, {at}"] = round(fmean(run[place][name] for run in runs), 4)
        if goal is not None:
            row["answers to rkl's end"] = [reached(run, goal) for run in runs]
        rows.append(row)
    return rows


def _goal(logs: dict[int, Log]) -> float | None:
    """Reverse KL's last share, which others are to reach; None where it is no gain."""
    if not logs:
        return None
    first, last = (fmean(asked(run)[at]["asked/right"] for run in logs.values()) for at in (0, -1))
    return last if last > first else None


def _told(values: Sequence[float], least: float = 0.0) -> list[float | None]:
    """Mean and 95 % interval over seeds, of what lies between ``least`` and 100 %; null where one seed says nothing of
    others."""
    found = mean_with_t_interval(values)
    return [round(max(least, min(100.0, value)), 2) if math.isfinite(value) else None for value in found]


def asked(run: Log) -> Log:
    return [line for line in run if "asked/right" in line]


def reached(run: Log, goal: float) -> int | None:
    """Answers after which so large a share was first solved; None if it never was."""
    return next((line["samples"] for line in asked(run) if line["asked/right"] >= goal), None)


if __name__ == "__main__":
    main()
