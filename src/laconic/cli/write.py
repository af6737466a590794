"""``laconic write``: a method's own right solutions, for others to be trained on."""

from __future__ import annotations

from pathlib import Path

from laconic.cli.loading import open_backbone
from laconic.cli.output import check_place
from laconic.errors import DataError
from laconic.eval.journal import journal_of
from laconic.eval.writing import Drawing, problems_to_train_on, write_solutions
from laconic.methods.registry import check_thinker, load_thinker


def run(
    names: list[str],
    method: str,
    out: Path,
    drawing: Drawing,
    *,
    limit: int | None,
    data: str | None,
    backbone: str | None,
    adapter: str | None,
    dtype: str,
    device: str,
) -> None:
    """Solve, check, write down.

    Raises:
        LaconicError: whatever is wrong with the arguments or the data, before a model is loaded.
    """
    check_thinker(method)
    journal = journal_of(out)
    if out.suffix != ".jsonl":
        raise DataError(f"{out} is not named as recipes name files.", "Write runs/written.jsonl.")
    if {out.resolve(), journal.resolve()} & {Path(name).resolve() for name in names}:
        raise DataError(f"{out}, or the journal beside it, is one of the files that are read.", "Choose another name.")
    check_place(out)
    if out.exists() and not journal.exists():
        raise DataError(f"{out} is there, and was not written by this command.", "Choose another name.")
    tasks = {name: problems_to_train_on(name, limit, drawing.seed, data) for name in names}
    thinker = load_thinker(method, open_backbone(backbone, dtype, device), adapter)
    counts = write_solutions(thinker, tasks, out, drawing)
    others = {"wrong": "wrong", "unfinished": "not ended", "twice": "said twice"}
    left_out = [f"{counts[name]} {said}" for name, said in others.items() if counts[name]]
    print(f"{counts['written']} solutions in {out}" + (f"; left out: {', '.join(left_out)}" if left_out else ""))
