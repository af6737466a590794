"""A saved method: a folder with ``method.json``, ``weights.safetensors`` and a pointer to its backbone.

Only the method's own parameters are saved. The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from laconic.backbone import Backbone
from laconic.errors import AdapterError

DESCRIPTION = "method.json"
WEIGHTS = "weights.safetensors"
FORMAT = 1


def own_parameters(method: nn.Module, backbone: Backbone) -> dict[str, nn.Parameter]:
    """The parameters of ``method`` that are not the backbone's, by name."""
    borrowed = {id(p) for p in backbone.model.parameters()}
    return {name: p for name, p in method.named_parameters() if id(p) not in borrowed}


def save_method(
    folder: str | os.PathLike[str],
    *,
    method: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    backbone: Backbone,
    provenance: Mapping[str, Any] | None = None,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Write a method's folder, replacing an older one only when the new one is complete, and nothing but such a one.

    Args:
        provenance: how it was made (recipe, data, steps); for people, never read back.
        beside: more text files, by name.

    Raises:
        AdapterError: the folder cannot be written, or holds something else than a saved method.
    """
    target = Path(folder)
    if target.exists() and not (target / DESCRIPTION).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise AdapterError(f"{target} is there already and is no saved method.", "Choose a new folder.")
    description = {
        "format": FORMAT,
        "method": method,
        "backbone": {"name": backbone.name, "content_hash": backbone.content_hash},
        "config": dict(config),
        "provenance": dict(provenance or {}),
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".saving-", dir=target.parent))
    except OSError as error:
        raise AdapterError(f"{target} cannot be written: {error}.", "Choose a folder you may write to.") from error
    try:
        scratch.chmod(0o755)  # mkdtemp makes it private
        for name, text in {DESCRIPTION: json.dumps(description, indent=2) + "\n", **(beside or {})}.items():
            (scratch / name).write_text(text, encoding="utf-8")
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, scratch / WEIGHTS)
        (scratch / WEIGHTS).chmod(0o644)  # safetensors makes it private too
        if target.exists():
            retired = Path(tempfile.mkdtemp(prefix=".replaced-", dir=target.parent))
            os.replace(target, retired / target.name)
            try:
                os.replace(scratch, target)
            except OSError:
                os.replace(retired / target.name, target)
                raise
            finally:
                if target.exists():
                    shutil.rmtree(retired, ignore_errors=True)
        else:
            os.replace(scratch, target)
    except (OSError, SafetensorError) as error:  # the disk is full, say
        raise AdapterError(f"{target} cannot be written: {error}.", "Make room, or choose another folder.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The ``method.json`` of a saved method.

    Raises:
        AdapterError: there is none, or it is damaged or of a newer format.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise AdapterError(f"{folder} is not a saved method: it has no {DESCRIPTION}.", "Check the path of the folder.")
    try:
        description = json.loads(path.read_text())
        known = description["format"] <= FORMAT
        missing = {"method", "config", "provenance", "backbone"} - set(description)
        missing |= {"name", "content_hash"} - set(description["backbone"])
        if missing:
            raise KeyError(sorted(missing)[0])
        if not all(isinstance(description[part], dict) for part in ("config", "provenance")):
            raise TypeError("config and provenance must be mappings")
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{path} is damaged: {type(error).__name__}: {error}.", "Fetch or train the adapter again."
        ) from error
    if not known:
        raise AdapterError(f"{folder} was saved by a newer version of laconic.", "Upgrade laconic.")
    return description


def read_tensors(folder: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a saved method.

    Raises:
        AdapterError: the file is missing or damaged.
    """
    path = Path(folder) / WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path} is missing or damaged: {error}.", "Fetch or train the adapter again.") from error


def check_method(description: Mapping[str, Any], method: str, folder: str | os.PathLike[str]) -> None:
    """Raise ``AdapterError`` if the folder holds another method."""
    if description["method"] != method:
        raise AdapterError(f"{folder} holds {description['method']}, not {method}.", "Name the right --adapter.")


def check_backbone(description: Mapping[str, Any], backbone: Backbone, folder: str | os.PathLike[str]) -> None:
    """Raise ``AdapterError`` unless the method was made for these very weights."""
    made_for = description["backbone"]
    if made_for["content_hash"] != backbone.content_hash:
        raise AdapterError(
            f"The adapter {folder} was made for {made_for['name']} ({made_for['content_hash']}), "
            f"not for {backbone.name} ({backbone.content_hash}).",
            "Name its own backbone with --backbone, or another adapter with --adapter.",
        )


def load_into(
    method: nn.Module, tensors: Mapping[str, torch.Tensor], backbone: Backbone, folder: str | os.PathLike[str]
) -> None:
    """Copy saved tensors into the method's own parameters; every one must be there, none may be left over.

    Raises:
        AdapterError: names or shapes differ.
    """
    own = own_parameters(method, backbone)
    wrong = sorted(set(own) ^ set(tensors)) or sorted(n for n in own if own[n].shape != tensors[n].shape)
    if wrong:
        raise AdapterError(
            f"The weights in {folder} do not fit its description ({wrong[0]} and {len(wrong) - 1} more).",
            "Fetch or train the adapter again.",
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.data = tensors[name].to(parameter.device)


def version(folder: str | os.PathLike[str]) -> str:
    """What a saved method is, for result files: a digest of its weights and settings.

    The same weights with another temperature or score choose otherwise.
    """
    return digest(folder, "", json.dumps(read_description(folder)["config"], sort_keys=True))


def digest(folder: str | os.PathLike[str], part: str, settings: str = "") -> str:
    """Of the saved tensors whose names begin with ``part``."""
    found = hashlib.sha256(settings.encode())
    for name, tensor in sorted(read_tensors(folder).items()):
        if name.startswith(part):
            found.update(name.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:12]
