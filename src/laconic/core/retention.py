"""Which finished steps stay readable in training: HybridThinker's shortcuts (section 3 of its specification).

If all recent steps could be read in training, the model would copy from them and memory tokens would learn nothing. So
most are hidden at once, and a few, drawn anew each time, stay readable for the horizon that decoding has.
"""

from __future__ import annotations

import random
from typing import Literal

#: share of steps that ``dropout`` leaves readable, as in the paper's code
DROPOUT = 0.2
Shortcuts = Literal["sampled", "all", "contiguous", "dropout", "gap"]


def reaches(steps: int, horizon: int, count: int, mode: Shortcuts, draw: random.Random) -> list[int]:
    """How many following steps may read each of a trace's steps.

    Args:
        horizon: following steps that decoding lets read a step (R).
        count: steps that are drawn to reach that far, of those with so many successors (``sampled``, ``contiguous``).
        mode: ``sampled`` as in the paper. The rest are ablations: ``all`` steps (what decoding does); ``contiguous``,
            as sampled, but no step goes before one that is older; ``dropout``, each step by itself; ``gap``, all
            steps, for a rule that lets a step read one far one alone.

    Returns:
        A number for each step, first to last.
    """
    if mode in ("all", "gap"):
        return [horizon] * steps
    if mode == "dropout":
        return [horizon * (draw.random() < DROPOUT) for _ in range(steps)]
    eligible = max(steps - horizon, 0)
    chosen = set(draw.sample(range(eligible), min(count, eligible)))
    reach = [horizon * (step in chosen) for step in range(steps)]
    if mode == "contiguous":
        until = -1
        for step, own in enumerate(reach):
            until = max(until, step + own)
            reach[step] = until - step
    return reach
