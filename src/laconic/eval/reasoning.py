"""Methods that reason x tasks: is the answer right, and what did the cache hold; resumable.

Token counts are what was said: ends of steps are words, memory, restart and foresight tokens are none. The peak is that
of the tokens a row holds in the cache, the block just fed included, without foresight tokens and guesses that did not
stand (``peak_fed`` has them).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from laconic.core.files import names_file, write_whole
from laconic.data.problems import Problem, share_of_steps
from laconic.data.puzzles import PUZZLES, puzzle
from laconic.data.solutions import load_problem_file, load_problems
from laconic.errors import DataError
from laconic.eval import metrics
from laconic.eval.environment import environment
from laconic.eval.journal import Journal, Line
from laconic.eval.over_tasks import over_tasks, solved_tasks
from laconic.eval.watching import watched
from laconic.methods.thinking.model import Thinker
from laconic.methods.thinking.solving import Solution

#: puzzles are asked without end; so many are where nothing else is said
PUZZLES_ASKED = 50
#: how puzzles are named, for messages
FORMS = f"Generated ones look like {', '.join(f'{kind}-12' for kind in PUZZLES)}."
#: what a row is the mean of
MEANS = ("generated_tokens", "steps", "peak_tokens", "peak_fed", "peak_bytes", "dependency")


@dataclass(frozen=True)
class Setting:
    """One cell of the table."""

    task: str
    method: str
    version: str
    config: str  # of the method, as JSON: decoding can differ from training
    backbone: str
    max_new_tokens: int
    repetition_penalty: float
    dtype: str
    device: str

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def reasoning_task(
    name: str, limit: int | None = None, seed: int = 0, folder: str | os.PathLike[str] | None = None
) -> list[Problem]:
    """Problems to ask: ``shuffle-12`` (a puzzle and its moves), a task such as ``gsm8k_test``, or a user's JSON lines.

    Args:
        limit: how many, drawn by ``seed``; None: all there are, of puzzles ``PUZZLES_ASKED``.
        folder: of the tasks' files; None: ``$LACONIC_DATA``.

    Raises:
        DataError: there is no such task, or a line of a user's file is malformed.
    """
    kind, _, difficulty = name.rpartition("-")
    if kind in PUZZLES and difficulty.isdecimal():
        return some_puzzles(name, random.Random(f"asked/{seed}/{name}"), limit or PUZZLES_ASKED, training=False)
    try:
        problems = load_problem_file(name) if names_file(name) else load_problems(name, folder)
    except DataError as error:
        if names_file(name):
            raise
        raise DataError(error.problem, f"{error.remedy} {FORMS}") from error
    return random.Random(f"asked/{seed}").sample(problems, min(limit or len(problems), len(problems)))


def some_puzzles(name: str, draw: random.Random, wanted: int, *, training: bool) -> list[Problem]:
    """So many different puzzles of a kind and a number of moves, ``shuffle-12``; fewer where there are no more."""
    kind, _, difficulty = name.rpartition("-")
    made: dict[str, Problem] = {}
    for _ in range(50 * wanted):  # few rules may leave few problems
        one = puzzle(kind, draw, int(difficulty), training=training, ident=f"{name}-{len(made)}")
        made.setdefault(one.question, one)
        if len(made) == wanted:
            break
    return list(made.values())


def check_fit(thinker: Thinker, tasks: Mapping[str, Sequence[Problem]]) -> None:
    """Raise ``DataError`` for a task without problems, and for a problem that fills the window."""
    for task, problems in tasks.items():
        if not problems:
            raise DataError(f"{task} has no problems.", "Leave it out, or raise the limit.")
        for problem in problems:
            if (tokens := len(thinker.prompt_ids(problem.question))) >= thinker.backbone.window:
                raise DataError(
                    f"The problem {problem.id} of {task} takes {tokens} tokens of {thinker.backbone.window}.",
                    "Shorten it, or leave it out.",
                )


def evaluate_reasoning(
    methods: dict[str, Thinker],
    tasks: dict[str, list[Problem]],
    out: Path,
    *,
    max_new_tokens: int = 1024,
    repetition_penalty: float = 1.0,
    batch_size: int = 16,
    notes: dict[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Solve every task with every method, greedily; the result is written to ``out``, its items beside it.

    Raises:
        DataError: a task has no problems, one of them fills the window, or the result cannot be written.
    """
    for thinker in methods.values():
        check_fit(thinker, tasks)
    journal = Journal(out)
    rows, right = [], dict[str, dict[str, list[bool]]]()
    for task, problems in tasks.items():
        for name, thinker in methods.items():
            backbone = thinker.backbone
            setting = Setting(
                task,
                name,
                thinker.identity,
                json.dumps(thinker.config.to_dict() | thinker.decoding),
                backbone.content_hash,
                max_new_tokens,
                repetition_penalty,
                str(backbone.dtype),
                backbone.device.type,
            )
            left = [p for p in problems if (setting.key, digest_of(p)) not in journal.done]
            left.sort(key=lambda p: len(p.question))
            starts = range(0, len(left), batch_size)
            for start in watched(starts, len(starts), f"{task}  {name}"):
                some = left[start : start + batch_size]
                found = thinker.solve(
                    [p.question for p in some], max_new_tokens=max_new_tokens, repetition_penalty=repetition_penalty
                )
                for problem, solution in zip(some, found, strict=True):
                    journal.add(_line(setting, thinker, problem, solution, len(some)))
            lines = [journal.done[setting.key, digest_of(p)] for p in problems]
            rows.append(_row(setting, lines))
            right.setdefault(name, {})[task] = [line["right"] for line in lines]
            say(_sentence(rows[-1]))
    solved = solved_tasks(rows)
    result = {
        "rows": rows,
        "over_tasks": over_tasks(_together(right, tasks)),
        "solved": {"tasks": solved, "over_tasks": over_tasks(_together(right, solved)) if solved else []},
        "environment": environment(),
        "notes": notes or {},
    }
    write_whole(out, json.dumps(result, indent=1) + "\n")
    return result


def _together(right: dict[str, dict[str, list[bool]]], tasks: Iterable[str]) -> dict[str, list[bool]]:
    """By method, one task after the other."""
    return {name: [one for task in tasks for one in own[task]] for name, own in right.items()}


def items_of(result: dict[str, Any], tasks: dict[str, list[Problem]], out: Path) -> dict[str, dict[str, Line]]:
    """What the journal beside a result has of its rows: by method, each problem's line by the problem's digest.

    Args:
        tasks: what the result was made of; the journal may have more of a task.
    """
    names = [one.name for one in fields(Setting)]
    methods = {Setting(**{name: row[name] for name in names}).key: row["method"] for row in result["rows"]}
    found: dict[str, dict[str, Line]] = {row["method"]: {} for row in result["rows"]}
    asked = {digest_of(problem) for problems in tasks.values() for problem in problems}
    for (setting, item), line in Journal(out).done.items():
        if setting in methods and item in asked:
            found[methods[setting]][item] = line
    return found


def expected_peak(thinker: Thinker, prompt: int, words: Sequence[int], ended: bool) -> int:
    """The closed formula of the peak (HybridThinker's specification, invariant 5), for what was said, step by step.

    Args:
        ended: the model said the end itself, so that the last word was fed.
    """
    held, peak, open_, recent = prompt, prompt, 0, list[int]()
    for word in words if ended else words[:-1]:
        open_ += 1
        peak = max(peak, held + sum(recent) + open_)
        if word != thinker.step_end:
            continue
        memory = thinker.memory_count(open_)
        closing = memory + 1 if memory else 0
        peak = max(peak, held + sum(recent) + open_ + closing)
        held += closing + thinker.anchors
        recent.append(open_)
        if thinker.forgets == "steps":
            recent = recent[len(recent) - min(len(recent), thinker.retention) :]
        open_ = 0
    return peak


def digest_of(problem: Problem) -> str:
    """A problem by what it is."""
    content = [problem.id, problem.question, problem.answer, problem.steps]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _line(setting: Setting, thinker: Thinker, problem: Problem, solution: Solution, together: int) -> Line:
    """Of a problem that was solved together with so many: its seconds are its share of theirs."""
    bill = solution.bill
    expected = bill.peak_tokens  # of what forgets word by word there is no formula
    if thinker.forgets != "words":
        expected = expected_peak(thinker, solution.prompt_tokens, bill.words, bill.stopped_by == "end")
    return {
        "setting": setting.key,
        "item": digest_of(problem),
        "id": problem.id,
        "answer": solution.answer,
        "right": problem.solved_by(solution.text),
        "steps_right": share_of_steps(solution.steps, problem.steps),
        "stopped_by": bill.stopped_by,
        "prompt_tokens": solution.prompt_tokens,
        "generated_tokens": len(bill.words),
        "steps": len(solution.steps),
        "peak_tokens": bill.peak_tokens,
        "peak_as_computed": bill.peak_tokens == expected,
        "peak_fed": bill.peak_fed,
        "peak_bytes": bill.peak_bytes,
        "dependency": bill.dependency,
        "forwards": bill.forwards,
        "seconds": round(sum(solution.seconds.values()) / together, 4),
        "offered": bill.offered,
        "accepted": bill.accepted,
    }


def _row(setting: Setting, lines: Sequence[Line]) -> Line:
    row: Line = {**asdict(setting), "items": len(lines)}
    row["accuracy"] = metrics.percent(metrics.score_with_interval([line["right"] for line in lines]))
    row["ended"] = round(100 * sum(line["stopped_by"] == "end" for line in lines) / len(lines), 1)
    row |= {name: round(sum(line[name] for line in lines) / len(lines), 2) for name in MEANS}
    shares = [line["steps_right"] for line in lines if line["steps_right"] is not None]
    row["steps_right"] = round(100 * sum(shares) / len(shares), 1) if shares else None
    row["all_steps_right"] = round(100 * sum(share == 1 for share in shares) / len(shares), 2) if shares else None
    row["seconds"] = round(sum(line["seconds"] for line in lines) / len(lines), 2)
    row["peak_as_computed"] = all(line["peak_as_computed"] for line in lines)
    said, passes = (sum(line[key] for line in lines) for key in ("generated_tokens", "forwards"))
    ends = sum(line["stopped_by"] == "end" for line in lines)  # which a pass says too, and are no words
    row["tokens_per_forward"] = round((said + ends - len(lines)) / max(passes, 1), 3)
    row["acceptance"] = _acceptance(lines)
    return row


def _acceptance(lines: Sequence[Line]) -> list[float]:
    """The share of guesses that stood, of first, second and further words, each where those before it stood."""
    most = max((len(line["offered"]) for line in lines), default=0)
    totals = [
        [sum(line[key][place] for line in lines if place < len(line[key])) for key in ("accepted", "offered")]
        for place in range(most)
    ]
    return [round(stood / made, 4) for stood, made in totals]


def _sentence(row: Line) -> str:
    head = f"{row['task']}  {row['method']}  accuracy {row['accuracy']['mean']:.1f}  items {row['items']}"
    counts = f"tokens {row['generated_tokens']:.0f}  peak {row['peak_tokens']:.0f}"
    return f"{head}  {counts}  per pass {row['tokens_per_forward']:.2f}"
