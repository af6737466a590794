"""What a text must not lose: numbers, names, quotes, code and addresses, found by their looks."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from laconic.core.segments import Range
from laconic.errors import LaconicError

#: capitals of all alphabets that have them (regular expressions of Python know no such class)
_CAPITAL = "[" + "".join(letter for letter in map(chr, range(0x3000)) if letter.isupper()) + "]"
_NAME = _CAPITAL + r"[\w’'-]*"
_PATTERNS = {
    "numbers": r"\d+",  # whoever is touched is kept whole
    # a capital that no sentence begins with; a second capital, or one inside, is a name anywhere
    "names": rf"(?<=[^\s.!?:\"”’)\]。！？] ){_NAME}|\b{_NAME}(?: {_NAME})+|\b\w+{_CAPITAL}\w*",
    "quotes": r"\"[^\"\n]+\"|“[^”\n]+”|«[^»\n]+»|„[^“”\n]+[“”]",
    "code": r"```.*?```|`[^`\n]+`|\b\w+\([^()\n]*\)|\b\w+(?:[_.:]{1,2}\w+)+",
    "urls": r"(?:https?|ftp)://\S+|\bwww\.\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]+\.\w[\w.-]*",
}
PROTECTED = tuple(_PATTERNS)
_COMPILED = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in _PATTERNS.items()}


def check_protected(kinds: Collection[str]) -> None:
    """Raise ``LaconicError`` for a kind that there is none of."""
    for kind in kinds:
        if kind not in _PATTERNS:
            raise LaconicError(f"{kind!r} cannot be protected.", f"Choose from: {', '.join(PROTECTED)}.")


def protected_words(text: str, words: Sequence[Range], kinds: Collection[str]) -> list[bool]:
    """Whether each word, by its character span, touches something of these kinds.

    Raises:
        LaconicError: there is no such kind.
    """
    check_protected(kinds)
    spans = sorted(found.span() for kind in kinds for found in _COMPILED[kind].finditer(text))
    touched, place, reach = [], 0, -1
    for start, end in words:  # both rise, so that one walk does
        while place < len(spans) and spans[place][0] < end:
            reach = max(reach, spans[place][1])
            place += 1
        touched.append(reach > start)
    return touched
