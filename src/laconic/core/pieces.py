"""Text that comes in pieces, cut anew where no token spans the cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# a space between two words belongs to the second in every common vocabulary
_GAP = re.compile(r"(?<=\w) (?=\w)")
#: characters without such a gap after which a piece is cut where it ends: a script without spaces
PATIENCE = 20_000


def whole_words(pieces: Iterable[str]) -> Iterator[str]:
    """The same text, its pieces ending before a space between two words: their tokens are those of the whole.

    Where no such space comes for ``PATIENCE`` characters a piece ends anyway, perhaps inside a token.
    """
    held = ""
    for piece in pieces:
        searched = max(len(held) - 1, 0)  # a gap has a character behind it; what was held had none
        held += piece
        gaps = [match.start() for match in _GAP.finditer(held, searched)]
        cut = gaps[-1] if gaps else len(held) * (len(held) > PATIENCE)
        if cut:
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held
