"""What a look at a text has found, in few numbers: for those who predict how far it can be cut.

Free, as the look is taken anyway. Where a few words carry most of what is likely to be needed, a text can be cut hard;
where it is spread evenly, or nothing in it seems to answer, it cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from laconic.core.segments import Range

#: shares of a text's characters, and numbers of its words
SHARES = tuple((place / 20) ** 2 for place in (4, 6, 8, 10, 12, 14, 16))
FIRST = (3, 10, 30)
#: how many numbers a summary has
SIZE = len(SHARES) + len(FIRST)


def summary(words: Sequence[Range], probabilities: Sequence[float]) -> list[float]:
    """Of words and how likely each is needed: what share of all that the likeliest words have that make up so much of
    the text, and the log odds of the likeliest few. ``SIZE`` numbers of about one size, around 0.
    """
    if not len(words):
        return [0.0] * SIZE
    likely = np.clip(np.asarray(probabilities, dtype=float), 1e-6, 1 - 1e-6)
    order = np.argsort(-likely, kind="stable")
    length = np.array([end - start for start, end in words], dtype=float)[order]
    reached = np.concatenate([[0.0], np.cumsum(length) / length.sum()])
    held = np.concatenate([[0.0], np.cumsum(likely[order]) / likely.sum()])
    masses = 4 * (np.interp(SHARES, reached, held) - 0.5)
    means = np.array([likely[order][:count].mean() for count in FIRST])
    return [*masses.tolist(), *(np.log(means / (1 - means)) / 4).tolist()]
