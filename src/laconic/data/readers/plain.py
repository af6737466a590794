"""Plain text in whatever encoding it was saved."""

from __future__ import annotations

import codecs
import unicodedata

from laconic.errors import DocumentError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # before UTF-16, whose mark is the beginning of UTF-32's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HARMLESS = frozenset("\t\n\r\f\v\x1b\x85")
# a stray control character is an accident of conversion, many are a binary file
_CONTROL_SHARE = 0.002
_CHECKED = 200_000
_BEGINNINGS = (b"\xc2", b"\xc3", b"\xe2", b"\xf0")


def read_plain(data: bytes, name: str) -> str:
    """Decode text: by its byte order mark, else as UTF-8, else in the encoding its bytes look like.

    Raises:
        DocumentError: the bytes are no text, or UTF-8 that was cut off inside a character.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = _decoded(data, encoding)
            break
    else:
        text = _decoded(data, "utf-8")
        if text is None and (rest := _cut_off(data)):
            raise DocumentError(
                f"{name} ends inside a character: its last {len(rest)} bytes are the beginning of one.",
                "Fetch the whole file, or drop the rest of it with `iconv -c -f utf-8 -t utf-8`.",
            )
        if text is None and b"\0" not in data:
            text = _guessed(data)
    if text is None or looks_binary(text):
        raise DocumentError(f"{name} is a binary file or in an unknown encoding.", "Convert it to UTF-8 text.")
    return text


def looks_binary(text: str) -> bool:
    """Whether the text has the control characters that no writer types."""
    head = text[:_CHECKED]
    strange = sum(1 for c in head if unicodedata.category(c) == "Cc" and c not in _HARMLESS)
    return "\0" in head or strange > _CONTROL_SHARE * len(head)


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _cut_off(data: bytes) -> bytes:
    """The beginning of a character at the end of UTF-8; nothing where the bytes are rather of another encoding.

    One byte above ASCII behind nothing but ASCII is more likely an accented letter of an older encoding; but for the
    four that begin most of UTF-8's accented letters, dashes, quotes and emoji: hardly any text ends with what these are
    there, two capitals, an \u00e2 and an \u00f0.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(data)
    except UnicodeDecodeError:
        return b""
    rest = decoder.getstate()[0]
    return rest if len(rest) > 1 or not text.isascii() or rest in _BEGINNINGS else b""


def _guessed(data: bytes) -> str | None:
    from charset_normalizer import from_bytes

    matches = list(from_bytes(data))
    if not matches:
        return None
    # ties are in the order of the alphabet, and cp1250 would win over the far commoner cp1252
    best = matches[0]
    ties = [m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
    return str(next((match for match in ties if match.encoding == "cp1252"), best))
