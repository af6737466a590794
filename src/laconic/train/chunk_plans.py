"""Where a training text is cut into chunks (section 3): a memory must not depend on where a chunk happened to end.

Every plan has chunks of at most ``full`` tokens that add up to the text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

#: fewest tokens of a chunk that is drawn
LEAST = 4

Plan = list[int]


def fixed(tokens: int, full: int) -> Plan:
    """Full chunks, then the rest: how a text is read."""
    rest = tokens % full
    return [full] * (tokens // full) + [rest] * (rest > 0)


def right(tokens: int, full: int) -> Plan:
    """The rest first, then full chunks."""
    return fixed(tokens, full)[::-1]


def at_random(tokens: int, full: int, most: int, draw: random.Random) -> Plan:
    """A number of chunks and their sizes by chance, token by token.

    Args:
        most: chunks that a text may have.
    """
    fewest = -(-tokens // full)
    count = draw.randint(fewest, max(fewest, min(tokens // LEAST, most)))
    plan = [min(LEAST, tokens // count)] * count
    for _ in range(tokens - sum(plan)):
        open_ = [number for number, size in enumerate(plan) if size < full]
        plan[draw.choice(open_)] += 1
    return plan


def uniform(tokens: int, full: int, most: int) -> Plan:
    """As many chunks as a text may have, of nearly one size."""
    count = max(-(-tokens // full), min(most, tokens))
    return [tokens // count + (number < tokens % count) for number in range(count)]


def boundary(ends: Sequence[bool], full: int) -> Plan:
    """Each chunk up to the last end of a sentence or clause that fits, or full where there is none.

    Args:
        ends: of each token, whether a sentence or clause may end with it.
    """
    plan, start = [], 0
    while start < len(ends):
        stop = min(start + full, len(ends))
        if stop < len(ends):
            stop = next((at for at in range(stop, start, -1) if ends[at - 1]), stop)
        plan.append(stop - start)
        start = stop
    return plan


#: kinds of plans by name: (text, chunk's tokens, most chunks, generator, what ends a clause) -> plan
PLANS: dict[str, Callable[[Sequence[int], int, int, random.Random, Callable[[int], bool]], Plan]] = {
    "fixed": lambda ids, full, most, draw, ends: fixed(len(ids), full),
    "right": lambda ids, full, most, draw, ends: right(len(ids), full),
    "random": lambda ids, full, most, draw, ends: at_random(len(ids), full, most, draw),
    "uniform": lambda ids, full, most, draw, ends: uniform(len(ids), full, most),
    "boundary": lambda ids, full, most, draw, ends: boundary([ends(token) for token in ids], full),
}
