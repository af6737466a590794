"""The readable text of an HTML page, with its paragraphs kept apart."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, NavigableString

from laconic.data.readers.plain import looks_binary
from laconic.errors import DocumentError

_UNREAD = ("head", "script", "style", "template", "noscript", "svg")
_BREAKS = {"br": "\n", "li": "\n", "tr": "\n", "dt": "\n", "dd": "\n", "td": "\t", "th": "\t"}
_PARAGRAPHS = (
    "p", "div", "section", "article", "header", "footer", "main", "nav", "aside", "h1", "h2", "h3", "h4", "h5", "h6",
    "blockquote", "pre", "ul", "ol", "dl", "table", "figure", "figcaption", "hr",
)  # fmt: skip


def read_html(data: bytes, name: str) -> str:
    """Text of a page; its declared encoding is respected.

    Raises:
        DocumentError: the bytes are no text.
    """
    soup = BeautifulSoup(data, "html.parser")
    for tag in soup(_UNREAD):
        tag.decompose()
    for string in soup.find_all(string=True):
        # white space in HTML source means nothing, except in <pre>; comments are left out by get_text
        if type(string) is NavigableString and string.find_parent("pre") is None:
            string.replace_with(re.sub(r"\s+", " ", string))
    for tag in soup(list(_BREAKS)):
        tag.insert_after(_BREAKS[tag.name])
    for tag in soup(_PARAGRAPHS):
        tag.insert_before("\n\n")
        tag.insert_after("\n\n")
    text = soup.get_text()
    if looks_binary(text):
        raise DocumentError(f"{name} is not an HTML page: it holds binary data.", "Save the page as text.")
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
