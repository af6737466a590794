"""How fast is reasoning one problem at a time, and what of it is bookkeeping?

    python benchmarks/scripts/reasoning_speed.py --out benchmarks/results/reasoning_speed.json

The adapters that ship, greedily, on problems of twelve steps, the answer's included. Vanilla is also run by
``generate`` of transformers, as many words each time: the loop's own overhead is their difference. (In float32 both say
the same words; in bfloat16 they can part.) Bookkeeping is what of decoding is spent
outside of the decoder's forward pass. Figures are medians of several runs; all take turns, so a slow minute hits all.
Leave the machine alone meanwhile: some seven minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measuring import save

from laconic.backbone import load_backbone
from laconic.eval.reasoning import reasoning_task
from laconic.methods.registry import THINKERS, load_thinker, shipped_adapter
from laconic.methods.thinking.model import Thinker

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("machine-11", "arithmetic-11")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1, help="of each task")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "reasoning_speed.json")
    args = parser.parse_args()
    backbone = load_backbone()
    thinkers = {name: load_thinker(name, backbone) for name in THINKERS if shipped_adapter(backbone, name)}
    problems = [p.question for task in TASKS for p in reasoning_task(task, args.problems)]
    ways: dict[str, Callable[[str], dict[str, float]]] = {"generate": Generate(thinkers["vanilla"])}
    ways |= {name: Engine(thinker) for name, thinker in thinkers.items()}
    if "memosight" in thinkers:
        ways["memosight, two passes"] = Engine(thinkers["memosight"], two_passes=True)
    runs: dict[str, list[list[dict[str, float]]]] = {name: [] for name in ways}
    for number, problem in enumerate(problems):
        print(f"problem {number + 1} of {len(problems)}", flush=True)
        for name, way in ways.items():
            way(problem)  # warm
            runs[name].append([])
        for _ in range(args.repeats):
            for name, way in ways.items():
                runs[name][-1].append(way(problem))
    rows = [row(name, found) for name, found in runs.items()]
    for one in rows:
        print(one, flush=True)
    save(args.out, "reasoning speed", rows=rows, problems=len(problems), repeats=args.repeats, tasks=list(TASKS))


def row(name: str, found: list[list[dict[str, float]]]) -> dict[str, Any]:
    """The sums over problems of the medians over runs."""
    keys = found[0][0]
    total = {key: sum(statistics.median(one[key] for one in runs) for runs in found) for key in keys}
    told = {"method": name, "tokens": int(total["tokens"]), "seconds": round(total["seconds"], 3)}
    told["tokens_per_second"] = round(total["tokens"] / total["seconds"], 2)
    if "passes" in total:
        told["tokens_per_pass"] = round((total["tokens"] + total["ends"] - len(found)) / total["passes"], 3)
        told["bookkeeping"] = round(1 - total["forward"] / total["seconds"], 4)
    return told


class Generate:
    """``generate`` of transformers on the vanilla decoder, for as many words as the loop says."""

    def __init__(self, thinker: Thinker) -> None:
        self.thinker = thinker
        self.words: dict[str, int] = {}

    def __call__(self, problem: str) -> dict[str, float]:
        if problem not in self.words:
            self.words[problem] = len(self.thinker.solve([problem], max_new_tokens=512)[0].bill.words)
        ids = torch.tensor([self.thinker.prompt_ids(problem)])
        words = self.words[problem]
        started = time.perf_counter()
        out = self.thinker.decoder.generate(
            ids, attention_mask=torch.ones_like(ids), min_new_tokens=words, max_new_tokens=words, do_sample=False
        )
        seconds = time.perf_counter() - started
        return {"tokens": out.shape[1] - ids.shape[1], "seconds": seconds}


class Engine:
    """The loop of this package."""

    def __init__(self, thinker: Thinker, two_passes: bool = False) -> None:
        self.thinker, self.two_passes = thinker, two_passes

    def __call__(self, problem: str) -> dict[str, float]:
        with timed_forward(self.thinker) as spent:
            started = time.perf_counter()
            bill = self.thinker.solve([problem], max_new_tokens=512, two_passes=self.two_passes)[0].bill
            seconds = time.perf_counter() - started
        ended = bill.end is not None
        forward = sum(spent)
        return {
            "tokens": len(bill.words), "ends": ended, "seconds": seconds, "forward": forward, "passes": bill.forwards
        }  # fmt: skip


@contextmanager
def timed_forward(thinker: Thinker) -> Iterator[list[float]]:
    """The seconds of every forward pass of its decoder."""
    spent: list[float] = []
    forward = thinker.decoder.forward

    def timing(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return forward(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - started)

    thinker.decoder.forward = timing
    try:
        yield spent
    finally:
        del thinker.decoder.forward


if __name__ == "__main__":
    main()
