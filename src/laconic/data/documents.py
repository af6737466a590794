"""Any document a user may have, as text: files of many formats, several at once, or standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from laconic.core.segments import whole_characters
from laconic.errors import DocumentError

STDIN = "-"

# format -> module:function, so that a text file costs no import of a PDF parser
_READERS = {
    "plain": "plain:read_plain",
    "html": "html:read_html",
    "pdf": "pdf:read_pdf",
    "docx": "docx:read_docx",
    "epub": "epub:read_epub",
}
_SUFFIXES = {
    ".txt": "plain", ".md": "plain", ".html": "html", ".htm": "html", ".xhtml": "html",
    ".pdf": "pdf", ".docx": "docx", ".doc": "docx", ".epub": "epub",
}  # fmt: skip


@dataclass(frozen=True)
class Document:
    """A document as the methods read it.

    Attributes:
        text: what evidence offsets point into; line ends are ``\\n``.
        name: its file names, for people.
    """

    text: str
    name: str


def read_document(sources: Sequence[str]) -> Document:
    """Read files (``-`` is standard input) and join them by a blank line.

    Text, Markdown, HTML, PDF, DOCX and EPUB are known by their suffix, anything else by its content.

    Raises:
        DocumentError: a file is missing, empty, binary, scanned, encrypted or damaged.
    """
    if not sources:
        raise DocumentError("No document was given.", "Name a file, or - for standard input.")
    if list(sources).count(STDIN) > 1:
        raise DocumentError("Standard input was named twice.", "It can be read only once: give - once.")
    texts = [_read(source) for source in sources]
    text = "\n\n".join(texts)
    name = ", ".join("standard input" if source == STDIN else Path(source).name for source in sources)
    return Document(text, name)


def _read(source: str) -> str:
    if source == STDIN:
        if sys.stdin is None:
            raise DocumentError("Standard input is closed.", "Pipe a text into it, or name a file.")
        name, data = "standard input", sys.stdin.buffer.read()
    else:
        name, data = source, _bytes_of(Path(source))
    kind = _SUFFIXES.get(Path(source).suffix.lower()) or _kind_by_content(data)
    text = _reader(kind)(data, name) if data.strip() else ""
    text = whole_characters(text.replace("\r\n", "\n").replace("\r", "\n"))
    if not text.strip():
        raise DocumentError(f"{name} is empty.", "Give a document with some text in it.")
    return text.strip("\n")


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise DocumentError(f"{path} is a folder.", f"Name the files in it, as in {path}/*.txt.") from None
    except FileNotFoundError:
        raise DocumentError(
            f"There is no file {path}.", "Check the path; where there is a question, it comes last."
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise DocumentError(f"{path} cannot be read: {reason}.", "Check the path and its permissions.") from error


def _kind_by_content(data: bytes) -> str:
    if data.startswith(b"%PDF-"):
        return "pdf"
    if data.startswith(b"PK"):
        try:
            with ZipFile(BytesIO(data)) as archive:
                names = set(archive.namelist())
        except BadZipFile:
            return "plain"
        if "word/document.xml" in names:
            return "docx"
        if "META-INF/container.xml" in names:
            return "epub"
    return "plain"


def _reader(kind: str) -> Callable[[bytes, str], str]:
    module, _, function = _READERS[kind].partition(":")
    return getattr(import_module(f"laconic.data.readers.{module}"), function)
