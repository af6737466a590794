"""What does a teacher cost? Seconds and memory of a step with guidance beside the same steps of GRPO.

    python benchmarks/scripts/tgpo_costs.py --out benchmarks/results/tgpo_costs.json

The student of ``recipes/tgpo/cpu.yaml`` is trained for some steps by GRPO and by TGPO, each in a process of its own, at
a learning rate that moves nothing, so that both say the same answers and read the same tokens. The teacher's own pass
is timed inside; what is left of the difference is what guidance adds. A process's peak is that of training alone
(Linux); beside a local teacher that shares the student's weights its LoRA is all that is added, so a second row has one
with weights of its own. The first step is to warm up. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import VANILLA_START, alone, forget_peak, save, status_mb

from laconic.backbone import load_backbone
from laconic.methods.registry import load_thinker
from laconic.methods.tgpo.teacher import LocalTeacher
from laconic.train.recipe import run_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "tgpo" / "cpu.yaml"
GRPO, TGPO, OWN = "grpo", "tgpo", "tgpo, teacher with weights of its own"


def measure(arm: str, steps: int, rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        changes = [f"output={folder}/run", "stages.0.loop.learning_rate=1e-12", f"stages.0.together={rows}"]
        changes += [f"stages.0.loop.steps={steps}", f"stages.0.loop.checkpoint_every={steps}", "stages.0.ask=1"]
        changes += [f"stages.0.ask_every={steps}", "stages.0.loop.warmup_steps=0"]
        weights = 0.0
        if arm == GRPO:
            changes += ["stages.0.objective=grpo", "stages.0.teacher=null"]
        if arm == OWN:
            model = _merged(Path(folder) / "teacher")
            changes.append(f"stages.0.teacher={{pretrained: {folder}/teacher}}")
            weights = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
            del model
        asked: list[float] = []
        score = LocalTeacher.score

        def timed(*given: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            try:
                return score(*given, **named)
            finally:
                asked.append(time.perf_counter() - begun)

        LocalTeacher.score = timed  # type: ignore[method-assign]
        resident = forget_peak()
        run_recipe(RECIPE, changes)
        log = [json.loads(line) for line in (Path(folder) / "run" / "heal" / "log.jsonl").read_text().splitlines()]
    took = [line["step_time"] for line in log if "step_time" in line]
    return {
        "step_s": took,
        "teacher_s": asked,
        "words": [line["completions/mean_length"] for line in log if "step_time" in line],
        "resident_mb": resident,
        "peak_mb": status_mb("VmHWM"),
        "teacher_mb": weights,
    }


def _merged(folder: Path) -> Any:
    """The teacher as a model of its own, saved."""
    backbone = load_backbone()
    model = load_thinker("vanilla", backbone, VANILLA_START).decoder
    backbone.tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return model


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
    rows = []
    for arm in (GRPO, TGPO, OWN):
        rows.append({"arm": arm, **alone(__file__, arm, args.steps, args.together)})
        print(rows[-1], flush=True)
    save(args.out, "tgpo_costs", rows=rows, added=added(rows), together=args.together)


def added(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What a teacher adds to GRPO: of a step's median seconds besides its own pass, and of the peak besides its
    weights, as shares."""
    grpo, tgpo, own = rows
    assert grpo["words"] == tgpo["words"] == own["words"], "answers differ, so steps cannot be compared"
    plain, guided = (statistics.median(row["step_s"][1:]) for row in (grpo, tgpo))
    teacher = statistics.median(tgpo["teacher_s"][1:])
    return {
        "step_s, grpo": round(plain, 3),
        "step_s, tgpo": round(guided, 3),
        "teacher_s": round(teacher, 3),
        "step besides the teacher's pass": round((guided - teacher) / plain - 1, 4),
        "peak besides the teacher's weights": round(own["peak_mb"] / (grpo["peak_mb"] + own["teacher_mb"]) - 1, 4),
    }


if __name__ == "__main__":
    main()
