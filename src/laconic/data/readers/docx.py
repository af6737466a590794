"""The text of a Word document (.docx): paragraphs and tables in their order."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from laconic.errors import DocumentError

# an encrypted .docx, and every .doc, is wrapped in this older container
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")


def read_docx(data: bytes, name: str) -> str:
    """Text of the document's body.

    Raises:
        DocumentError: the file is encrypted or damaged.
    """
    from docx import Document

    if data.startswith(_OLE):
        raise DocumentError(f"{name} is encrypted or in the old .doc format.", "Save it as .docx without a password.")
    try:
        return "\n\n".join(_blocks(Document(BytesIO(data))))
    except Exception as error:  # the parser raises whatever the damage provokes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DocumentError(f"{name} is not a readable .docx file: {reason}.", "Save or fetch it again.") from error


def _blocks(document: Any) -> Iterator[str]:
    from docx.text.paragraph import Paragraph

    for block in document.iter_inner_content():
        text = block.text if isinstance(block, Paragraph) else "\n".join(_row(row) for row in block.rows)
        if text.strip():
            yield text


def _row(row: Any) -> str:
    # a merged cell comes once for every column it spans
    cells = dict.fromkeys(cell._tc for cell in row.cells)
    own = {cell._tc: cell.text for cell in row.cells}
    return "\t".join(own[cell] for cell in cells)
