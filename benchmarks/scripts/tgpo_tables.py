"""TGPO's tables of README.md."""

from __future__ import annotations


def toy(result: dict) -> str:
    rows = result["rows"]
    starts = list(rows[0]["updates"])
    lines = [
        "**How fast does a token come that the student hardly says?** Updates of two tokens until the teacher's (0.99) "
        "is likelier than not, from the probability the student gives it at first "
        "(`benchmarks/scripts/divergence_toy.py`).\n",
        "| loss | " + " | ".join(starts) + " |",
        "|" + "---|" * (len(starts) + 1),
    ]
    lines += [f"| {row['loss']} | " + " | ".join(f"{row['updates'][at]:,}" for at in starts) + " |" for row in rows]
    return "\n".join(lines)


def healed(result: dict) -> str:
    problems, seed = result["recovered"][0]["problems"], result["notes"]["seed"]
    lines = [
        "**What does learning from own answers give back?** Vanilla's adapter with a new memory (HybridThinker), "
        f"puzzles of four moves, {problems} problems nobody was trained on, seed {seed}; the share of what compression "
        "took, with 95 % interval over problems (`benchmarks/scripts/healing.py`).\n",
        "| trained by | seconds | right, %: before, after, uncompressed | recovered | steps right, %: as before | "
        "recovered |",
        "|" + "---|" * 6,
    ]
    for row in result["recovered"]:
        name, seconds = trained(result, row)
        cells = []
        for measure in ("right", "steps_right"):
            cells += [", ".join(three(row[measure])), share(row[measure])]
        lines.append(f"| {name} | {seconds:,.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def healed_again(result: dict) -> str:
    (row,) = result["recovered"]
    name, seconds = trained(result, row)
    told = []
    for called, measure in (("answers", "right"), ("steps", "steps_right")):
        before, after, whole = three(row[measure])
        told.append(f"{called} {before} % right before, {after} after, {whole} uncompressed: {share(row[measure])}")
    return (
        f"Again with seed {result['notes']['seed']}, and steps that are quicker by now ({name}, {seconds:,.0f} s): "
        f"{'; '.join(told)}."
    )


def trained(result: dict, row: dict) -> tuple[str, float]:
    """How a student was, and for how many seconds."""
    arm = row["method"].removeprefix("after ")
    return NAMES.get(arm, arm), result["training"][arm][-1]["seconds"]


def three(measured: dict) -> list[str]:
    return [f"{measured[when]:.0f}" for when in ("before", "after", "uncompressed")]


def share(measured: dict) -> str:
    """What was given back, with its interval."""
    if measured["recovered"] is None:
        return "-"
    low, high = measured["interval"]
    return f"{measured['recovered']:.0%} ({low:.0%} to {high:.0%})"


def far(result: dict) -> str:
    problems = result["recipe"]["stages"][1]["ask"]
    lines = [
        "**Does guidance beat reverse KL where student and teacher are far apart?** Problems solved, in % of "
        f"{problems}, before and after, means of as many seeds as stand there with their 95 % intervals; the "
        "difference to reverse KL is paired by seed; what teacher and student say alike is of the first and the last "
        "answers trained on (`benchmarks/scripts/divergence.py`).\n",
        "| warmed up for | objective, seeds | before | after | more than reverse KL | answers to its end, by seed | "
        "alike, % | words of an answer | cut off, % |",
        "|" + "---|" * 9,
    ]
    for row in result["rows"]:
        reached = ["never" if at is None else f"{at:,}" for at in row.get("answers to rkl's end", [])]
        alike = "-"
        if "teacher/agreement, first" in row:
            alike = f"{100 * row['teacher/agreement, first']:.0f}, {100 * row['teacher/agreement, last']:.0f}"
        who = f"{NAMES[row['objective']]}, {row['seeds']}"
        cells = [row["away"], who, f"{row['before']:.0f}", spread(row["after"], "")]
        cells += [spread(row["minus rkl"], "+") if "minus rkl" in row else "-", ", ".join(reached) or "-", alike]
        lines.append("| " + " | ".join([*cells, f"{row['length']:.0f}", f"{100 * row['cut off']:.0f}"]) + " |")
    return "\n".join(lines)


def ends(result: dict) -> str:
    rows, notes = result["rows"], result["notes"]
    problems = notes["recipe"]["stages"][1]["ask"]
    lines = [
        "**What if the teacher ends its texts with another token?** A student of "
        f"{notes['warm']} steps, {rows[0]['answers']} answers, seed {notes['seed']}; with the teacher's end taken for "
        "the student's, and without; lengths and shares are of the first and the last answers trained on, problems in "
        f"% of {problems} (`benchmarks/scripts/eos_alignment.py`).\n",
        "| trained by | words of an answer: first, last | cut off at last, % | right, %: before, after |",
        "|" + "---|" * 4,
    ]
    for row in rows:
        objective, arm = row["training"].split(", ")
        length, right = ([row[f"{what} {when}"] for when in ("before", "after")] for what in ("length", "right"))
        cells = [f"{length[0]:.0f}, {length[1]:.0f}", f"{row['cut off, %']:.0f}", f"{right[0]:.0f}, {right[1]:.0f}"]
        lines.append("| " + " | ".join([f"{NAMES[objective]}, {arm}", *cells]) + " |")
    return "\n".join(lines)


def spread(values: list, sign: str) -> str:
    """A mean with its interval, if there is one."""
    mean, low, high = values
    return f"{mean:{sign}.1f}" + (f" ({low:{sign}.1f} to {high:{sign}.1f})" if low is not None else "")


def costs(result: dict) -> str:
    added, rows = result["added"], result["rows"]
    told = {arm: f"{min(row['step_s'][1:]):.0f} to {max(row['step_s'][1:]):.0f}" for arm, row in rows.items()}
    time, peak, teacher = f"{added['to_a_step']:+.0%}", f"{added['to_the_peak']:+.1%}", f"{added['teacher_s']:.1f}"
    each = added["to_each_step"]
    return (
        f"**What does a teacher cost?** A step of GRPO takes {added['grpo_s']:.0f} s ({told['grpo']}), the same step "
        f"of TGPO {added['tgpo_s']:.0f} ({told['tgpo']}), of which the teacher's own pass {teacher}: besides that "
        f"{time} in the median of {added['steps']} steps with the same answers ({min(each):+.0%} to {max(each):+.0%}). "
        f"The peak of memory is {peak} of GRPO's and the teacher's weights ({rows['tgpo']['teacher_mb']:.0f} MiB) "
        f"together (`benchmarks/scripts/tgpo_costs.py`; {result['together']} answers in a pass)."
    )


NAMES = {
    "tgpo": "TGPO",
    "written": "worked solutions (SFT)",
    "grpo": "GRPO",
    "rkl": "reverse KL",
    "gkd": "forward KL",
    "kdrl": "KDRL",
}
