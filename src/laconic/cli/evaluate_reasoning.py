"""``laconic eval`` of methods that reason: methods x tasks into one result file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from laconic.cli.loading import open_backbone
from laconic.cli.output import check_writable
from laconic.core.files import write_whole
from laconic.errors import LaconicError
from laconic.eval import curves
from laconic.eval.reasoning import evaluate_reasoning, reasoning_task
from laconic.eval.reasoning_report import markdown, tables
from laconic.methods.registry import THINKERS, check_thinker, load_thinker


def reasons(methods: list[str]) -> bool:
    """Whether some of these methods reason, so that they are asked problems and not documents."""
    return any(name in THINKERS for name in methods)


def run(
    names: list[str],
    methods: list[str],
    out: Path,
    *,
    limit: int | None,
    data: str | None,
    batch_size: int,
    max_new_tokens: int,
    seed: int,
    backbone: str | None,
    adapter: str | None,
    dtype: str,
    device: str,
    of_reading: dict[str, str | None],
) -> None:
    """Solve, print the tables, leave them beside the result in Markdown and, with matplotlib, pictures of the cache.

    Args:
        of_reading: options that only methods which read know; they must be None.

    Raises:
        LaconicError: whatever is wrong with the arguments or the data, before a model is loaded.
    """
    for name in methods:
        check_thinker(name)
    for option, value in of_reading.items():
        if value is not None:
            raise LaconicError(f"--{option} is for methods that read documents.", "Leave it out.")
    if adapter is not None and len(methods) > 1:
        raise LaconicError("One adapter cannot serve several methods that reason.", "Name one --method, or no adapter.")
    check_writable(out)
    tasks = {name: reasoning_task(name, limit, seed, data) for name in names}
    model = open_backbone(backbone, dtype, device)
    thinkers = {name: load_thinker(name, model, adapter) for name in methods}
    notes: dict[str, Any] = {"limit": limit, "seed": seed, "batch_size": batch_size, "dtype": str(model.dtype)}
    result = evaluate_reasoning(thinkers, tasks, out, max_new_tokens=max_new_tokens, batch_size=batch_size, notes=notes)
    Console().print(*tables(result))
    write_whole(out.with_suffix(".table.md"), markdown(result) + "\n")
    if not find_spec("matplotlib"):
        return
    for number, (name, problems) in enumerate(tasks.items()):
        one = {}
        for method, thinker in thinkers.items():
            one[method] = thinker.solve([problems[0].question], max_new_tokens=max_new_tokens)[0]
        stems = [Path(task).name.partition(".")[0] for task in tasks]  # two files may be called alike
        own = stems[number] if stems.count(stems[number]) == 1 else f"{stems[number]}-{number}"
        curves.draw(one, out.with_suffix(f".{own}.png"), f"{name}: {problems[0].question[:60]}...")
