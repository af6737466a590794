"""Documents of a user: text, Markdown, HTML, PDF, Word, EPUB, several files, or standard input -> plain text."""

from __future__ import annotations

import io
import posixpath
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from laconic.errors import DocumentError

STDIN = "-"


@dataclass(frozen=True)
class Document:
    """A text and where it came from."""

    text: str
    name: str


def read_document(sources: Sequence[str]) -> Document:
    """Read files (or ``-`` for standard input) and join them by blank lines.

    Raises:
        DocumentError: a file is missing, empty, binary, scanned, encrypted, or damaged.
    """
    texts = [_read(source) for source in sources]
    return Document("\n\n".join(texts), ", ".join(sources))


def _read(source: str) -> str:
    if source == STDIN:
        name, data, reader = "standard input", sys.stdin.buffer.read(), _plain
    else:
        path, name = Path(source), source
        if path.is_dir():
            raise DocumentError(f"{name} is a folder.", "Name the files in it.")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DocumentError(f"{name} cannot be read: {error.strerror}.", "Check the path.") from error
        reader = READERS.get(path.suffix.lower(), _plain)
    text = reader(data, name)
    if not text.strip():
        raise DocumentError(f"{name} is empty.", "Give a document with some text in it.")
    return text


def _plain(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        best = (
            None
            if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff"))
            else from_bytes(data).best()
        )
        if best is None:
            raise DocumentError(f"{name} is not text.", "Give text, HTML, PDF, Word (.docx) or EPUB.") from None
        text = str(best)
    if "\0" in text:
        raise DocumentError(f"{name} is a binary file.", "Give text, HTML, PDF, Word (.docx) or EPUB.")
    return text


def _html(data: bytes, name: str) -> str:
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(data, "html.parser")
    for hidden in soup(["script", "style", "head", "nav"]):
        hidden.decompose()
    lines = (line.strip() for line in soup.get_text("\n").splitlines())
    return "\n".join(line for line in lines if line)


def _pdf(data: bytes, name: str) -> str:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError(f"{name} is encrypted.", "Remove its password first.")
        text = "\n\n".join(page.extract_text() for page in reader.pages)
    except (PyPdfError, ValueError, KeyError, RecursionError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError(f"{name} is a damaged PDF: {error}.", "Save it again.") from error
    if not text.strip():
        raise DocumentError(f"{name} holds pictures of pages, no text.", "Run text recognition (OCR) on it first.")
    return text


def _docx(data: bytes, name: str) -> str:
    import docx
    from docx.opc.exceptions import OpcError

    try:
        body = docx.Document(io.BytesIO(data))
    except (OpcError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DocumentError(
            f"{name} is not a Word document, or is damaged or encrypted.", "Save it again as .docx."
        ) from error
    lines = []
    for block in body.iter_inner_content():  # paragraphs and tables in the order of the page
        if isinstance(block, docx.table.Table):
            lines += ["\t".join(cell.text for cell in row.cells) for row in block.rows]
        else:
            lines.append(block.text)
    return "\n".join(lines)


def _epub(data: bytes, name: str) -> str:
    """Chapters in the order of the book's spine."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as book:
            container = ElementTree.fromstring(book.read("META-INF/container.xml"))
            package_path = next(node.attrib["full-path"] for node in container.iter() if node.tag.endswith("rootfile"))
            package = ElementTree.fromstring(book.read(package_path))
            nodes = list(package.iter())
            hrefs = {node.attrib["id"]: node.attrib["href"] for node in nodes if node.tag.endswith("}item")}
            spine = [node.attrib["idref"] for node in nodes if node.tag.endswith("}itemref")]
            folder = posixpath.dirname(package_path)
            chapters = [book.read(posixpath.normpath(posixpath.join(folder, hrefs[part]))) for part in spine]
    except (zipfile.BadZipFile, KeyError, StopIteration, ElementTree.ParseError, RuntimeError) as error:
        raise DocumentError(f"{name} is not an EPUB book, or is damaged or protected.", "Save it again.") from error
    return "\n\n".join(_html(chapter, name) for chapter in chapters)


READERS: dict[str, Callable[[bytes, str], str]] = {
    ".html": _html,
    ".htm": _html,
    ".xhtml": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".epub": _epub,
}
