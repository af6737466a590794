"""Where does compression pay on this machine? Seconds to compress, to read and to answer, by length.

What a machine needs is measured at a few lengths and taken to lie on straight lines between them on logarithmic axes;
beyond the longest the last line goes on. A longer text is never quicker, so lengths that were timed the other way
round share their mean. Below the shortest a part of the time does not shrink with the text, which a power of the
length would deny: the higher of that line and a straight one on plain axes stands there, so that savings are not
promised which were not timed.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from laconic.backbone import Backbone
from laconic.core.files import write_whole
from laconic.core.preallocated import preallocated_cache
from laconic.core.results import Stopwatch
from laconic.errors import DataError
from laconic.eval.environment import environment
from laconic.eval.pictures import picture
from laconic.generation.prefill import prefill
from laconic.methods.roles import Compressor

#: tokens said while the decoding of one is timed
SAID = 16
#: runs of each stage at each length; their median counts
REPEATS = 5
FORMAT = 1


@dataclass(frozen=True)
class Profile:
    """Seconds by tokens of the text.

    Attributes:
        what: compressor, reader, device and dtype it holds for.
        lengths: tokens, rising.
        compress: to compress a text of this length, whatever the ratio.
        read: to read it.
        say: one token of an answer behind it.
    """

    what: dict[str, str]
    lengths: list[int]
    compress: list[float]
    read: list[float]
    say: list[float]

    def saved(self, tokens: int, ratio: float, answer: int) -> float:
        """Seconds that compression to ``ratio`` saves, where the answer has so many tokens; negative: it costs."""
        short = self.whole(max(1.0, ratio * tokens), answer)
        return self.whole(tokens, answer) - short - self._at(self.compress, tokens)

    def whole(self, tokens: float, answer: int) -> float:
        """Seconds to read a text as it is and to answer."""
        return self._at(self.read, tokens) + answer * self._at(self.say, tokens)

    def _at(self, timed: Sequence[float], tokens: float) -> float:
        seconds = np.maximum(rising(timed), 1e-9)
        x, y = np.log(self.lengths), np.log(seconds)
        at = math.log(max(tokens, 1.0))
        if len(x) == 1 or x[0] <= at <= x[-1]:
            return float(np.exp(np.interp(at, x, y)))
        near, far = (0, 1) if at < x[0] else (-1, -2)
        power = float(np.exp(y[near] + (y[near] - y[far]) / (x[near] - x[far]) * (at - x[near])))
        if at > x[-1]:
            return power
        each = (seconds[1] - seconds[0]) / (self.lengths[1] - self.lengths[0])
        return max(power, float(seconds[0] - each * (self.lengths[0] - tokens)))

    def save(self, path: Path, notes: dict[str, Any] | None = None) -> None:
        content = {"format": FORMAT, **asdict(self), "environment": environment(), "notes": notes or {}}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Raises ``DataError`` where there is none, or a damaged one."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError("another format")
            return cls(**{name: content[name] for name in ("what", "lengths", "compress", "read", "say")})
        except FileNotFoundError as error:
            raise DataError("This machine has no profile of it yet.", "Make one with `laconic profile`.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}).", "Make it anew with `laconic profile`.") from error


def rising(values: Sequence[float]) -> list[float]:
    """The nearest values (least squares) that never fall: neighbours that do share their mean."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([value])
        while len(pools) > 1 and statistics.fmean(pools[-2]) > statistics.fmean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    return [statistics.fmean(pool) for pool in pools for _ in pool]


def measure(
    compressor: Compressor,
    backbone: Backbone,
    what: dict[str, str],
    text: str,
    question: str,
    lengths: Sequence[int],
    *,
    repeats: int = REPEATS,
    say: Callable[[str], None] = print,
) -> Profile:
    """Time each stage at each length, the median of so many runs; every run has another piece of the text.

    Raises:
        DataError: the text is too short, or the window for the longest length.
    """
    lengths = sorted(set(lengths))
    ids = backbone.token_ids(text)
    if len(ids) < lengths[-1] + 2 * repeats:
        raise DataError(f"A text of {len(ids)} tokens is too short for {lengths[-1]}.", "Give a longer one.")
    if lengths[-1] + SAID > backbone.window:
        raise DataError(f"{lengths[-1]} tokens do not fit the window of {backbone.window}.", "Ask for shorter ones.")
    compressor.compress(text[:2000], question, ratio=0.5)  # what is loaded or compiled at the first use
    rows: list[tuple[float, float, float]] = []
    for length in lengths:
        runs = []
        for number in range(repeats):
            start = number * max(1, (len(ids) - length) // repeats)
            piece = backbone.tokenizer.decode(ids[start : start + length])
            began = time.perf_counter()
            compressor.compress(str(piece), question, ratio=0.5)
            spent = time.perf_counter() - began
            runs.append((spent, *_reading(backbone, ids[start : start + length])))
        rows.append(tuple(statistics.median(column) for column in zip(*runs, strict=True)))
        say(f"{length:,} tokens: compress {rows[-1][0]:.2f} s, read {rows[-1][1]:.2f} s, say {rows[-1][2]:.3f} s")
    compress, read, said = (list(column) for column in zip(*rows, strict=True))
    return Profile(what, lengths, compress, read, said)


@torch.inference_mode()
def _reading(backbone: Backbone, ids: Sequence[int]) -> tuple[float, float]:
    """Seconds to read these tokens, and to say one more."""
    watch = Stopwatch(backbone.device)
    cache = preallocated_cache(len(ids) + SAID)
    embedded = backbone.embed(torch.tensor([list(ids)], device=backbone.device))
    with watch("read"):
        prefill(backbone.model, embedded, cache)
    with watch("say"):
        for _ in range(SAID):
            prefill(backbone.model, embedded[:, -1:], cache)
    return watch.seconds["read"], watch.seconds["say"] / SAID


def draw(profile: Profile, path: Path, answer: int) -> None:
    """The map: length to the right, ratio downwards, green where compression saves time and red where it costs."""
    ratios = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    grid = [
        [profile.saved(length, ratio, answer) / profile.whole(length, answer) for length in profile.lengths]
        for ratio in ratios
    ]
    size = (2.5 + 1.1 * len(profile.lengths), 5)
    with picture(path, figsize=size, layout="constrained") as (figure, axes):
        image = axes.imshow(grid, vmin=-1, vmax=1, cmap="RdYlGn", aspect="auto")
        for row, ratio in enumerate(ratios):
            for column, length in enumerate(profile.lengths):
                seconds = profile.saved(length, ratio, answer)
                axes.text(column, row, f"{seconds:+.2f}", ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(profile.lengths)), [f"{length:,}" for length in profile.lengths])
        axes.set_yticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
        axes.set(
            xlabel="tokens of the text", ylabel="share of them kept", title=f"seconds saved, answers of {answer} tokens"
        )
        figure.colorbar(image, label="share of the time without compression")
