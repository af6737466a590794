"""``laconic think``: solve a problem step by step, show what the cache holds, print the answer and the bill."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from laconic.cli.loading import open_backbone
from laconic.cli.output import print_json
from laconic.core.persist import read_description
from laconic.core.results import peak_memory_mb
from laconic.errors import QuestionError
from laconic.generation.choosing import processors_for
from laconic.generation.thought_rows import Thoughts
from laconic.methods.registry import check_thinker, load_thinker
from laconic.methods.thinking.model import Thinker
from laconic.methods.thinking.solving import Solution, check_stop

_UNFINISHED = {"length": "--max-new-tokens is used up", "window": "the window is full"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for."""

    problem: str
    method: str
    max_new_tokens: int
    temperature: float
    repetition_penalty: float
    stop: list[str]
    seed: int
    backbone: str | None
    adapter: str | None
    dtype: str
    device: str


def run(request: Request, as_json: bool) -> None:
    """Solve and print: steps and bill go to stderr, the answer to stdout, and with ``as_json`` one object alone.

    Raises:
        LaconicError: whatever is wrong with the request.
    """
    check_thinker(request.method)
    if request.problem == "-":
        try:
            request = replace(request, problem=sys.stdin.read())
        except UnicodeDecodeError as error:
            raise QuestionError("What came in is no UTF-8 text.", "Convert it first.") from error
    if not request.problem.strip():
        raise QuestionError("The problem is empty.", "Say what is to be solved.")
    check_stop(request.stop)
    settings = {"temperature": request.temperature, "repetition_penalty": request.repetition_penalty}
    processors_for(**settings, top_k=0, top_p=1.0, exempt=())  # which checks them before anything is loaded
    if request.adapter is not None:
        read_description(request.adapter)
    people = Console(stderr=True, quiet=as_json, highlight=False)
    # a library that prints must not spoil the one JSON object
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        with people.status("load the model"):
            backbone = open_backbone(request.backbone, request.dtype, request.device)
            thinker = load_thinker(request.method, backbone, request.adapter)
        solution = _solve(request, thinker, people)
    if as_json:
        print_json(_as_json(request, backbone.name, solution))
        return
    Console().print(Text(solution.answer, "bold"), soft_wrap=True)
    people.print(_bill(solution))


def _solve(request: Request, thinker: Thinker, people: Console) -> Solution:
    watched = _Watched(thinker, people)
    with watched.live:
        return thinker.solve(
            [request.problem],
            max_new_tokens=request.max_new_tokens,
            temperature=request.temperature,
            repetition_penalty=request.repetition_penalty,
            stop=request.stop,
            seed=request.seed,
            on_text=watched.show,
        )[0]


class _Watched:
    """Shows a step as it is written, beside it the tokens in the cache and per pass, and leaves a line of each."""

    def __init__(self, thinker: Thinker, people: Console) -> None:
        self.people, self.open = people, ""
        self.live = Live(console=people, refresh_per_second=12, transient=True)
        self.end = thinker.config.step_end
        self.guesses = thinker.guesses > 0
        self.before = (1, 0)  # words and passes up to the open step; the first word comes with the prompt

    def show(self, row: int, text: str, bill: Thoughts) -> None:
        self.open += text
        head = Text(f"{bill.live[-1]:>6} in the cache  ", "cyan")
        if self.guesses:
            words, passes = len(bill.live) - self.before[0], bill.forwards - self.before[1]
            head += Text(f"{words / max(passes, 1):.1f} a pass  ", "cyan")
        while self.end in self.open:
            step, _, self.open = self.open.partition(self.end)
            self.before = (len(bill.live), bill.forwards)
            if step.strip():
                self.people.print(head + Text(step.strip(), "dim"))
        self.live.update(head + Text(self.open))


def _as_json(request: Request, backbone: str, solution: Solution) -> dict[str, Any]:
    bill = solution.bill
    return {
        "answer": solution.answer,
        "answer_stated": solution.answer_stated,
        "steps": solution.steps,
        "method": request.method,
        "backbone": backbone,
        "prompt_tokens": solution.prompt_tokens,
        "generated_tokens": len(bill.words),
        "stopped_by": bill.stopped_by,
        "peak_cache_tokens": bill.peak_tokens,
        "peak_fed_tokens": bill.peak_fed,
        "peak_cache_bytes": bill.peak_bytes,
        "dependency": bill.dependency,
        "forwards": bill.forwards,
        "tokens_per_forward": round(bill.tokens_per_forward, 3),
        "seconds": {stage: round(value, 4) for stage, value in solution.seconds.items()},
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }


def _bill(solution: Solution) -> Table:
    bill = solution.bill
    table = Table(title="bill", title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_row("prompt", f"{solution.prompt_tokens:,} tokens")
    table.add_row("written", f"{len(bill.words):,} tokens in {len(solution.steps)} steps")
    uncompressed = solution.prompt_tokens + len(bill.words)
    saved = 1 - bill.peak_tokens / uncompressed
    beside = f"{abs(saved):.0%} {'below' if saved >= 0 else 'above'} the {uncompressed:,} of all that was said"
    table.add_row("peak cache", f"{bill.peak_tokens:,} tokens ({beside}), {bill.peak_bytes / 2**20:.1f} MiB")
    table.add_row("passes", f"{bill.forwards:,}, {bill.tokens_per_forward:.2f} tokens each")
    rate = len(bill.words) / max(solution.seconds.get("decode", 0.0), 1e-9)
    table.add_row("seconds", f"{sum(solution.seconds.values()):.2f}, {rate:.0f} tokens/s")
    if bill.stopped_by in _UNFINISHED:
        table.add_row("unfinished", _UNFINISHED[bill.stopped_by])
    return table
