"""``laconic label``: what a floor's predictor learns from."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from laconic.cli.loading import open_backbone
from laconic.cli.output import check_writable
from laconic.core.files import names_file
from laconic.data.loaders import evenly, load_file, load_task
from laconic.errors import BudgetError, LaconicError
from laconic.eval.labelling import Plan, build_labels
from laconic.methods.poc.compressors import check_steerable, compressor_digest, load_steerable
from laconic.methods.poc.labels import SPLITS, split_of
from laconic.methods.pruning.protect import check_protected
from laconic.methods.registry import LoadedMethod, load_method, reader_name


def run(
    names: list[str],
    method: str,
    ratios: str,
    out: Path,
    *,
    limit: int | None,
    shard: str,
    split: str | None,
    data: str | None,
    seed: int,
    classifier: str | None,
    protect: tuple[str, ...],
    backbone: str | None,
    adapter: str | None,
    dtype: str,
    device: str,
) -> None:
    """Label texts of tasks.

    Raises:
        LaconicError: whatever is wrong with the arguments or the data, before a model is loaded.
    """
    plan = Plan(_ratios(ratios), _shard(shard), seed)
    if split is not None and split not in (known := [name for name, _ in SPLITS]):
        raise LaconicError(f"{split!r} is no split.", f"Choose one of {', '.join(known)}.")
    if find_spec("rouge_score") is None:
        raise LaconicError("Labels need the package rouge_score.", "Run `pip install 'laconic[eval]'`.")
    check_writable(out)
    check_steerable(method, protect, classifier)
    check_protected(protect)
    drawn = limit if split is None else None  # of a split so many, and not of what happens to be in it
    tasks = {
        name: load_file(name, drawn, seed) if names_file(name) else load_task(name, data, drawn, seed) for name in names
    }
    if split is not None:
        own = {name: [one for one in items if split_of(one.document_id) == split] for name, items in tasks.items()}
        tasks = {name: evenly(items, limit, seed) for name, items in own.items()}
    model = open_backbone(backbone, dtype, device)
    compressor = load_steerable(method, model, protect=protect, classifier=classifier)
    reader = load_method("full", model, adapter).reader
    build_labels(
        LoadedMethod(method, compressor, reader),
        tasks,
        plan,
        out,
        backbone=model.content_hash,
        reader=reader_name(model, adapter),
        compressor=compressor_digest(method, compressor),
    )


def labels_of(shard: str) -> Path:
    """Where labels go if nobody says it: shards of one run must not write over each other."""
    part, parts = _shard(shard)
    return Path("runs", "labels.json" if parts == 1 else f"labels-{part}-of-{parts}.json")


def _ratios(text: str) -> list[float] | int:
    try:
        if text.isdecimal():
            count = int(text)
            if count < 1:
                raise ValueError
            return count
        found = [float(one) for one in text.split(",")]
        if not all(0 < one < 1 for one in found):
            raise ValueError
    except ValueError as error:
        raise BudgetError(
            f"{text!r} is neither a number of ratios nor a list of ratios between 0 and 1.", "Write 8, or 0.1,0.3,0.5."
        ) from error
    return found


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise LaconicError(f"{text!r} is no shard.", "Write 0/2 for the first of two.")
    return int(part), int(parts)
