"""What becomes of a student whose teacher ends its texts with another token, where nobody says so?

    python benchmarks/scripts/eos_alignment.py --out benchmarks/results/eos_alignment.json

The teacher is the vanilla adapter that ships, but with two rows of its embeddings exchanged, so that it says what it
always says and ends with ``<|endoftext|>``, on which the student, which ends with ``<|im_end|>``, does not stop. A
base and a chat model of one family are apart like that.

The student (``recipes/tgpo/divergence.yaml``, warmed up for ``--warm`` steps) learns from its own answers twice by
each objective: with the teacher's end taken for its own, as Laconic does unless told otherwise, and with ``aliases:
{}``, which takes tokens for what they are. Published comparisons with reverse KL report answers that grow without end:
this shows how much of that may be ends that are not one. One seed says nothing of others. A run that was cut short
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from divergence import RECIPE, ROOT, Away, asked, changes, learning, warmed, whole_log

from laconic.backbone import load_backbone
from laconic.core.files import write_whole
from laconic.eval.environment import environment
from laconic.eval.pictures import picture
from laconic.methods.registry import load_thinker
from laconic.train.recipe import load_recipe, run_recipe

#: by arm, what a recipe's teacher says besides the model
ARMS: dict[str, str] = {"aligned": "", "not aligned": ", aliases: {}"}
OBJECTIVES = ("tgpo", "rkl")
OTHER_END = "<|endoftext|>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES), choices=OBJECTIVES)
    parser.add_argument("--warm", type=int, default=10, help="steps of warming up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every training")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "eos_alignment")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "eos_alignment.json")
    args = parser.parse_args()
    recipe = load_recipe(RECIPE, args.set)
    teacher = renamed(args.runs / "teacher")
    start = warmed(recipe, Away(args.warm), args.runs, args.seed)
    logs = {}
    for objective in args.objectives:
        for arm, beside in ARMS.items():
            name = f"{objective}, {arm}"
            print(f"--- {name}", flush=True)
            output = args.runs / f"{name.replace(', ', '-').replace(' ', '-')}-{args.seed}"
            named = f"stages.0.teacher={{pretrained: {teacher}{beside}}}"
            run_recipe(learning(recipe, args.runs), [*changes(objective, start, output, args.seed), named])
            logs[name] = whole_log(output / "learn" / "log.jsonl")
    rows = [row(name, log) for name, log in logs.items()]
    for one in rows:
        print(one)
    notes = {"recipe": recipe, "warm": args.warm, "seed": args.seed}
    result = {"rows": rows, "logs": logs, "notes": notes, "environment": environment()}
    write_whole(args.out, json.dumps(result, indent=1) + "\n")
    draw(logs, args.out.with_suffix(".png"))


def renamed(folder: Path) -> Path:
    """A folder with the vanilla that ships, which ends its texts with another token."""
    if not folder.exists():
        backbone = load_backbone()
        own, other = backbone.tokenizer.eos_token_id, backbone.tokenizer.convert_tokens_to_ids(OTHER_END)
        model = load_thinker("vanilla", backbone).decoder
        rows = model.get_input_embeddings().weight.data  # tied: the head's too
        rows[[own, other]] = rows[[other, own]]
        model.generation_config.eos_token_id = other
        backbone.tokenizer.eos_token = OTHER_END
        part = folder.with_name(f"{folder.name}.part")  # a kill leaves no half of a teacher
        backbone.tokenizer.save_pretrained(part)
        model.save_pretrained(part)
        part.rename(folder)
    return folder


def row(name: str, log: list[dict[str, Any]]) -> dict[str, Any]:
    """At the end of a training; lengths and shares are of its last batch of roll-outs."""
    first, last = log[1], log[-1]  # before the first, problems are asked once
    found: dict[str, Any] = {"training": name, "answers": log[-1]["samples"], "seconds": log[-1]["seconds"]}
    found["right before"], found["right after"] = (100 * asked(log)[at]["asked/right"] for at in (0, -1))
    found["length before"] = first["completions/mean_length"]
    found["length after"] = last["completions/mean_length"]
    found["cut off, %"] = 100 * last["completions/clipped_ratio"]
    return found


def draw(logs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    called = {"completions/mean_length": "words of an answer", "completions/clipped_ratio": "cut off at the limit"}
    with picture(path, 1, 3, figsize=(13, 4), layout="constrained") as (figure, axes):
        for name, log in logs.items():
            style = "--" if name.endswith("not aligned") else "-"
            for ax, what in zip(axes, called, strict=False):
                ax.plot([line["samples"] for line in log[1:]], [line[what] for line in log[1:]], style, label=name)
            axes[2].plot([line["samples"] for line in asked(log)], [line["asked/right"] for line in asked(log)], style)
        for ax, label in zip(axes, [*called.values(), "problems solved"], strict=True):
            ax.set(xlabel="answers trained on", ylabel=label, ylim=(0, None))
            ax.grid(alpha=0.3)
        axes[0].legend()
        figure.suptitle("A teacher that ends its texts with another token")


if __name__ == "__main__":
    main()
