"""The text layer of a PDF."""

from __future__ import annotations

import logging
from io import BytesIO

from laconic.errors import DocumentError


def read_pdf(data: bytes, name: str) -> str:
    """Text of all pages, a blank line between two.

    Raises:
        DocumentError: the file is encrypted, damaged, or pictures of pages only.
    """
    from pypdf import PasswordType, PdfReader
    from pypdf.errors import DependencyError

    # it warns of every small fault it mends by itself
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(BytesIO(data))
        # many files have an empty password, only to forbid printing
        locked = reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED
        pages = [] if locked else [page.extract_text() for page in reader.pages]
    except DependencyError as error:
        if "AES" in str(error):
            raise DocumentError(
                f"{name} is encrypted with AES, and reading it takes one more package.",
                "Run `pip install cryptography`, or save a copy without encryption.",
            ) from error
        raise DocumentError(
            f"{name} takes one more package to read: {error}.", "Install it, or save a copy."
        ) from error
    except Exception as error:  # the parser raises whatever the damage provokes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DocumentError(f"{name} is not a readable PDF: {reason}.", "Save or fetch the file again.") from error
    if locked:
        raise DocumentError(f"{name} is encrypted.", "Save a copy without a password and give that.")
    if not any(page.strip() for page in pages):
        raise DocumentError(
            f"{name} has no text: its pages are scanned pictures or empty.", "Run text recognition (OCR) on it first."
        )
    return "\n\n".join(page.strip() for page in pages)
