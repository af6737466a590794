"""The text of an EPUB book, in reading order.

An EPUB is a zip of XHTML files; its container names a package file, whose spine lists them in order. The standard
library reads all of it (the packages for EPUB are under licences that do not suit this one).
"""

from __future__ import annotations

import posixpath
import zlib
from io import BytesIO
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

from laconic.data.readers.html import read_html
from laconic.errors import DocumentError

#: what unpacking and parsing raise
DAMAGED = (
    BadZipFile, KeyError, ElementTree.ParseError, StopIteration, RuntimeError, OSError, EOFError, zlib.error,
)  # fmt: skip

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"


def read_epub(data: bytes, name: str) -> str:
    """Text of the book's chapters, a blank line between two.

    Raises:
        DocumentError: the file is protected or damaged.
    """
    try:
        with ZipFile(BytesIO(data)) as book:
            chapters = _spine(book)
            protected = _protected(book) & set(chapters)
            texts = [] if protected else [read_html(book.read(chapter), name) for chapter in chapters]
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DocumentError(f"{name} is not a readable EPUB: {reason}.", "Save or fetch the file again.") from error
    if protected:
        raise DocumentError(f"{name} is encrypted (protected against copying).", "Give an unprotected copy.")
    return "\n\n".join(text for text in texts if text)


def _spine(book: ZipFile) -> list[str]:
    """Paths of the chapters in reading order, without the table of contents."""
    container = ElementTree.fromstring(book.read(_CONTAINER))
    package_path = next(container.iterfind(".//{*}rootfile")).attrib["full-path"]
    package = ElementTree.fromstring(book.read(package_path))
    folder = posixpath.dirname(package_path)
    manifest = {item.attrib["id"]: item.attrib for item in package.iterfind(".//{*}item")}
    chapters = []
    for reference in package.iterfind(".//{*}itemref"):
        item = manifest[reference.attrib["idref"]]
        if "html" in item["media-type"] and "nav" not in item.get("properties", "").split():
            chapters.append(posixpath.normpath(posixpath.join(folder, unquote(item["href"]))))
    return chapters


def _protected(book: ZipFile) -> set[str]:
    """Paths of encrypted files; embedded fonts are often among them, and harmless."""
    if _ENCRYPTION not in book.namelist():
        return set()
    listing = ElementTree.fromstring(book.read(_ENCRYPTION))
    return {unquote(reference.attrib["URI"]) for reference in listing.iterfind(".//{*}CipherReference")}
