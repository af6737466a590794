"""What does a teacher cost? Seconds and memory of a step with guidance beside the same steps of GRPO.

    python benchmarks/scripts/tgpo_costs.py --out benchmarks/results/tgpo_costs.json

The student of ``recipes/tgpo/cpu.yaml`` is trained for some steps by GRPO and by TGPO, each in a process of its own, at
a learning rate that moves nothing, so that both say the same answers and read the same tokens. The teacher's own pass
is timed inside; what is left of the difference is what guidance adds. The teacher is a saved adapter on the student's
backbone: its layers are merged and so its own, embeddings and head are shared. Peaks are those of training alone, once
everything is loaded (Linux). The first step is to warm up. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import alone, forget_peak, save, status_mb

from laconic.methods.tgpo.student_trainer import StudentTrainer
from laconic.methods.tgpo.teacher import LocalTeacher
from laconic.train import policy
from laconic.train.recipe import run_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "tgpo" / "cpu.yaml"
CHANGES: dict[str, list[str]] = {"grpo": ["stages.0.objective=grpo", "stages.0.teacher=null"], "tgpo": []}


class Watched(StudentTrainer):
    """Notes memory before and while it trains, and what its teacher has that the student has not."""

    memory: dict[str, float]

    def train(self, *given: Any, **named: Any) -> Any:
        own = {parameter.data_ptr() for parameter in self.student.decoder.parameters()}
        teacher = self.teacher.model.parameters() if isinstance(self.teacher, LocalTeacher) else ()
        weights = sum(parameter.nbytes for parameter in teacher if parameter.data_ptr() not in own) / 2**20
        Watched.memory = {"teacher_mb": weights, "before_mb": forget_peak()}
        done = super().train(*given, **named)
        Watched.memory["peak_mb"] = status_mb("VmHWM")
        return done


def measure(arm: str, steps: int, together: int) -> dict[str, Any]:
    seconds: list[float] = []
    score = LocalTeacher.score

    def timed(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        found = score(*given, **named)
        seconds.append(time.perf_counter() - begun)
        return found

    LocalTeacher.score = timed  # type: ignore[method-assign]
    policy.StudentTrainer = Watched  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        run_recipe(RECIPE, [f"output={folder}/run", *settings(steps, together), *CHANGES[arm]])
        log = [json.loads(line) for line in (Path(folder) / "run" / "heal" / "log.jsonl").read_text().splitlines()]
    took = {"step_s": "step_time", "words": "completions/mean_length", "reward": "reward"}
    return {name: [line[key] for line in log] for name, key in took.items()} | {"teacher_s": seconds} | Watched.memory


def settings(steps: int, together: int) -> list[str]:
    """What the recipe is changed by: sixteen answers a step, and an update of all of them, so that a step is whole."""
    stage = {"rows": 4, "answers": 4, "updates": 1, "together": together, "ask": 0}
    loop = {"learning_rate": "1.0e-12", "warmup_steps": 0, "steps": steps, "checkpoint_every": steps, "log_every": 1}
    changes = [f"stages.0.{name}={value}" for name, value in stage.items()]
    return [*changes, *(f"stages.0.loop.{name}={value}" for name, value in loop.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--together", type=int, default=8, help="answers in one pass")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tgpo_costs.json")
    parser.add_argument("--one", nargs=3, metavar=("ARM", "STEPS", "TOGETHER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), int(args.one[2]))))
        return
    rows = {arm: alone(__file__, arm, args.steps, args.together) for arm in CHANGES}
    found = added(rows["grpo"], rows["tgpo"])
    print(found)
    save(args.out, "tgpo_costs", rows=rows, added=found, together=args.together)


def added(grpo: dict[str, Any], tgpo: dict[str, Any]) -> dict[str, Any]:
    """What a teacher adds to GRPO: to a step's seconds besides its own pass, step by step with the same answers (their
    median, and all of them), and to the peak besides its weights, as shares; and how many steps had the same answers
    in both, by their lengths and rewards."""
    pairs = list(zip(grpo["step_s"], tgpo["step_s"], tgpo["teacher_s"], strict=True))[1:]
    more = [(guided - teacher) / plain - 1 for plain, guided, teacher in pairs]
    alike = [all(grpo[name][at] == tgpo[name][at] for name in ("words", "reward")) for at in range(len(grpo["words"]))]
    plain, guided, teacher = (round(statistics.median(column), 3) for column in zip(*pairs, strict=True))
    return {
        "grpo_s": plain,
        "tgpo_s": guided,
        "teacher_s": teacher,
        "to_a_step": round(statistics.median(more), 4),
        "to_each_step": [round(one, 4) for one in more],
        "to_the_peak": round(tgpo["peak_mb"] / (grpo["peak_mb"] + tgpo["teacher_mb"]) - 1, 4),
        "steps": len(alike) - 1,
        "alike": sum(alike[1:]),
    }


if __name__ == "__main__":
    main()
