"""``laconic eval``: methods x tasks x factors into one result file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from laconic.cli.loading import open_backbone
from laconic.cli.output import check_writable
from laconic.core.files import names_file, write_whole
from laconic.data.loaders import load_file, load_task
from laconic.errors import BudgetError, LaconicError
from laconic.eval import heatmap
from laconic.eval.report import markdown, plot, tables
from laconic.eval.runner import evaluate
from laconic.methods.registry import check_names, load_methods, reader_name


def run(
    names: list[str],
    methods: list[str],
    factor: str,
    out: Path,
    *,
    limit: int | None,
    data: str | None,
    batch_size: int,
    max_new_tokens: int,
    seed: int,
    backbone: str | None,
    adapter: str | None,
    against: list[str],
    dtype: str,
    device: str,
) -> None:
    """Evaluate, print the table, and leave it beside the result in Markdown and, with matplotlib, as a plot.

    Raises:
        LaconicError: whatever is wrong with the arguments or the data, before a model is loaded.
    """
    try:
        factors = [float(one) for one in factor.split(",")]
    except ValueError as error:
        raise BudgetError(f"{factor!r} is not a list of factors.", "Write 4,8,16.") from error
    if not all(1 < one < float("inf") for one in factors):
        raise BudgetError("Factors must be above 1.", "The method full needs none.")
    check_names(methods)
    check_names(against)
    if missing := [name for name in against if name not in methods]:
        raise LaconicError(f"{missing[0]!r} is to be compared to but not run.", "Name it in --method too.")
    if find_spec("rouge_score") is None:
        raise LaconicError("Evaluation needs the package rouge_score.", "Run `pip install 'laconic[eval]'`.")
    check_writable(out)
    tasks = {
        name: load_file(name, limit, seed) if names_file(name) else load_task(name, data, limit, seed) for name in names
    }
    model = open_backbone(backbone, dtype, device)
    loaded = load_methods(methods, model, adapter)
    notes: dict[str, Any] = {"limit": limit, "seed": seed, "batch_size": batch_size, "dtype": str(model.dtype)}
    result = evaluate(
        loaded,
        tasks,
        factors,
        out,
        reader=reader_name(model, adapter),
        backbone=model.content_hash,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        against=against,
        notes=notes,
    )
    Console().print(*tables(result))
    write_whole(out.with_suffix(".table.md"), markdown(result))
    if find_spec("matplotlib"):
        plot(result, "f1", out.with_suffix(".png"))
        heatmap.draw(heatmap.lines_by_method(result, out.with_suffix(".items.jsonl")), out.with_suffix(".depths.png"))
