"""``laconic eval``: methods x tasks x factors into one result file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from laconic.backbone import load_backbone
from laconic.data.loaders import load_file, load_task
from laconic.errors import BudgetError
from laconic.eval.report import table
from laconic.eval.runner import evaluate
from laconic.methods.registry import load_methods, reader_name


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
    dtype: str,
    device: str,
) -> None:
    """Evaluate and print the table."""
    try:
        factors = [float(one) for one in factor.split(",")]
    except ValueError as error:
        raise BudgetError(f"{factor!r} is not a list of factors.", "Write 4,8,16.") from error
    if not all(1 < one < float("inf") for one in factors):
        raise BudgetError("Factors must be above 1.", "The method full needs none.")
    tasks = {
        name: load_file(name, limit, seed) if Path(name).is_file() else load_task(name, data, limit, seed)
        for name in names
    }
    model = load_backbone(backbone, dtype=dtype, device=device)
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
        notes=notes,
    )
    Console().print(table(result))
