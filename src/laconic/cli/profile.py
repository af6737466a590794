"""``laconic profile``: where compression pays on this machine; and ``--auto``, which goes by it."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from laconic.backbone import Backbone, cache_folder
from laconic.cli.loading import open_backbone
from laconic.cli.output import check_writable
from laconic.data.documents import read_document
from laconic.data.loaders import samples_folder
from laconic.errors import LaconicError
from laconic.eval.breakeven import REPEATS, Profile, draw, measure
from laconic.methods.poc.compressors import load_steerable, unprotecting
from laconic.methods.roles import Compressor

LENGTHS = "32,128,512,2048"
QUESTION = "What is said about the weather?"
#: tokens of an answer that savings are counted for
ANSWER = 32


def run(
    method: str,
    lengths: str,
    answer: int,
    out: Path | None,
    *,
    classifier: str | None,
    backbone: str | None,
    dtype: str,
    device: str,
) -> None:
    """Measure, print the table, and keep it for ``--auto``; with ``out``, leave it there too, with the map.

    Raises:
        LaconicError: whatever is wrong with the arguments.
    """
    try:
        wanted = [int(one) for one in lengths.split(",")]
    except ValueError as error:
        raise LaconicError(f"{lengths!r} is not a list of lengths.", f"Write {LENGTHS}.") from error
    if min(wanted) < 16 or answer < 0:
        raise LaconicError("Lengths must be 16 tokens or more, answers 0 or more.", f"Write {LENGTHS}.")
    if len(set(wanted)) < 2:
        raise LaconicError("One length says nothing of others: lines are drawn between two.", f"Write {LENGTHS}.")
    if out is not None:
        check_writable(out)
    model = open_backbone(backbone, dtype, device)
    compressor = load_steerable(method, model, classifier=classifier)
    text = read_document([str(samples_folder() / "twelve-years-a-slave.txt")]).text
    what = _what(method, model, compressor)
    people = Console(stderr=True)
    profile = measure(compressor, model, what, text, QUESTION, wanted, say=people.print)
    kept = _path(what)
    profile.save(kept)
    Console().print(_table(profile, answer))
    people.print(f"kept for --auto in {kept}")
    if out is not None:
        profile.save(out, {"repeats": REPEATS})
        if find_spec("matplotlib"):
            draw(profile, out.with_suffix(".png"), answer)


def reason_not_to(method: str, backbone: Backbone, compressor: Compressor, tokens: int, ratio: float) -> str | None:
    """Why a text should be left alone; None where compressing it saves time.

    Raises:
        DataError: this machine has no profile of it.
    """
    saved = Profile.load(_path(_what(method, backbone, compressor))).saved(tokens, ratio, ANSWER)
    if saved > 0:
        return None
    return (
        f"compression to {ratio:.3g} is skipped: by this machine's profile it would cost {-saved:.2f} s more than it "
        f"saves ({tokens:,} tokens, an answer of {ANSWER})"
    )


def _what(method: str, backbone: Backbone, compressor: Compressor) -> dict[str, str]:
    return {
        "compressor": unprotecting(method, compressor),
        "backbone": backbone.content_hash,
        "device": str(backbone.device),
        "dtype": str(backbone.dtype),
    }


def _path(what: dict[str, str]) -> Path:
    # a cache may be shared by machines, which profiles are not
    own = what | {"machine": platform.node()}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]
    return cache_folder() / "profiles" / f"{digest}.json"


def _table(profile: Profile, answer: int) -> Table:
    table = Table(title=f"seconds, and those saved with answers of {answer} tokens", title_justify="left")
    columns = ("tokens", "compress", "read", "say one", "saved at 0.1", "0.25", "0.5", "0.75")
    for name in columns:
        table.add_column(name, justify="right")
    for place, length in enumerate(profile.lengths):
        saved = [f"{profile.saved(length, ratio, answer):+.2f}" for ratio in (0.1, 0.25, 0.5, 0.75)]
        seconds = (profile.compress[place], profile.read[place], profile.say[place])
        table.add_row(f"{length:,}", *(f"{value:.3f}" for value in seconds), *saved)
    return table
