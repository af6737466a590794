"""What a training goes on from: a saved method, or the average of several.

Methods that went on from one, each better at something, often are good at all of it when their weights are averaged
("model soups", arXiv 2203.05482).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from laconic.backbone import Backbone
from laconic.core import persist
from laconic.core.method import TrainedMethod
from laconic.encoder import Encoder
from laconic.errors import AdapterError, RecipeError
from laconic.methods.registry import shipped_adapter

#: the method's own shipped adapter; ``shipped/vanilla`` is that of another method
SHIPPED = "shipped"


def check_start(start: object, path: str | Path) -> None:
    """Raise ``RecipeError`` for what names neither a saved method nor several."""
    several = start if isinstance(start, list) else [start]
    if start is not None and (not several or not all(isinstance(one, str) for one in several)):
        raise RecipeError(f"{path}: start must be null, a saved method, or a list of such.", "Write start: null.")


def take_over(method: TrainedMethod, start: str | list[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Take over the weights of saved methods; what they lack, say a term switched on since, starts fresh.

    Returns:
        How the saved method was made; of several, how each was, by its place in the list.

    Raises:
        AdapterError: one is missing, of another method or backbone, or of other shapes.
    """
    sources = start if isinstance(start, list) else [start]
    folders = [saved_folder(method.backbone, method.name, source) for source in sources]
    made, saved = [], []
    for folder in folders:
        description = persist.read_description(folder)
        if description["method"] not in method.goes_on_from:
            persist.check_method(description, method.name, folder)
        persist.check_backbone(description, method.backbone, folder)
        made.append(description["provenance"])
        saved.append({name: t for name, t in persist.read_tensors(folder).items() if t.numel()})
        method.check_start(description["config"], saved[-1])
    weights = _average(saved, folders)
    own = method.own_parameters()
    for name in sorted(own.keys() & weights.keys()):
        if own[name].shape != weights[name].shape:
            raise AdapterError(
                f"{name} has the shape {list(weights[name].shape)} in {folders[0]}, and {list(own[name].shape)} here.",
                f"Set what gives it its size as {folders[0] / persist.DESCRIPTION} does.",
            )
    fresh = {n: p.detach() for n, p in own.items() if n not in weights}
    made_new = [name for name, own in fresh.items() if own.numel()]
    persist.load_into(method, weights | fresh, method.backbone, folders[0])
    for parameter in method.own_parameters().values():
        parameter.data = parameter.data.float()  # saved as bfloat16, in which small updates of the optimiser are lost
    say(f"start: {' and '.join(f.name for f in folders)}" + (f"; fresh: {', '.join(made_new)}" if made_new else ""))
    return made[0] if isinstance(start, str) else dict(zip(map(str, range(1, len(made) + 1)), made, strict=True))


def saved_folder(backbone: Backbone | Encoder, method: str, source: str) -> Path:
    """Where a saved method is: a folder, ``shipped`` (the one of this name in the package) or ``shipped/another``.

    Raises:
        RecipeError: none of that name is shipped for these weights, or nothing is saved in the folder.
    """
    kind, _, other = source.partition("/")
    if kind != SHIPPED:
        if not (Path(source) / persist.DESCRIPTION).is_file():
            raise RecipeError(
                f"No method is saved in {source}, which the recipe names.",
                "Folders are looked for from where you are. Run the recipe that makes it first, or name another: "
                "start=shipped is the one in the package.",
            )
        return Path(source)
    folder = shipped_adapter(backbone, other or method)
    if folder is None:
        raise RecipeError(f"No adapter for {backbone.name} is shipped.", "Name a folder instead.")
    return folder


def _average(saved: list[dict[str, torch.Tensor]], folders: list[Path]) -> dict[str, torch.Tensor]:
    first, *others = saved
    for other, folder in zip(others, folders[1:], strict=True):
        if {name: t.shape for name, t in other.items()} != {name: t.shape for name, t in first.items()}:
            raise AdapterError(
                f"{folder} has other weights than {folders[0]}: there is no average.", "Name methods of one kind."
            )
    if not others:
        return first
    return {name: torch.stack([one[name].float() for one in saved]).mean(0) for name in first}
