"""``laconic write``: a method's own right solutions, for others to be trained on."""

from __future__ import annotations

from pathlib import Path

from laconic.cli.loading import open_backbone
from laconic.cli.output import check_place
from laconic.errors import DataError
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
    if out.suffix != ".jsonl" or str(out) in names:
        raise DataError(f"{out} is no new .jsonl file, as recipes name them.", "Write runs/written.jsonl.")
    check_place(out)
    tasks = {name: problems_to_train_on(name, limit, drawing.seed, data) for name in names}
    thinker = load_thinker(method, open_backbone(backbone, dtype, device), adapter)
    counts = write_solutions(thinker, tasks, out, drawing)
    told = [f"{counts['written']} solutions in {out}", f"{counts['wrong']} wrong ones left out"]
    print(", ".join([*told, *([f"{counts['twice']} written twice"] if counts["twice"] else [])]))
