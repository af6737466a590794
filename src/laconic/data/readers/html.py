"""The readable text of an HTML page, with its paragraphs kept apart."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bs4 import BeautifulSoup, CData, NavigableString, Tag

from laconic.data.readers.plain import looks_binary
from laconic.errors import DocumentError

_UNREAD = frozenset({"head", "script", "style", "template", "noscript", "svg"})
_BREAKS = {"br": "\n", "li": "\n", "tr": "\n", "dt": "\n", "dd": "\n", "td": "\t", "th": "\t"}
_PARAGRAPHS = frozenset({
    "p", "div", "section", "article", "header", "footer", "main", "nav", "aside", "h1", "h2", "h3", "h4", "h5", "h6",
    "blockquote", "pre", "ul", "ol", "dl", "table", "figure", "figcaption", "hr",
})  # fmt: skip


def read_html(data: bytes, name: str) -> str:
    """Text of a page; its declared encoding is respected.

    Raises:
        DocumentError: the bytes are no text.
    """
    text = "".join(_texts(BeautifulSoup(data, "html.parser")))
    if looks_binary(text):
        raise DocumentError(f"{name} is not an HTML page: it holds binary data.", "Save the page as text.")
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", text.rstrip())
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _texts(page: Tag) -> Iterator[str]:
    """What is read of a page, piece by piece. Elements that are not closed lie in each other, thousands deep."""
    inside_pre, apart = 0, True
    open_elements: list[tuple[Tag, Iterator[object]]] = [(page, iter(page.contents))]
    while open_elements:
        element, children = open_elements[-1]
        child, piece = next(children, None), ""
        if child is None:
            open_elements.pop()
            inside_pre -= element.name == "pre"
            piece = "\n\n" if element.name in _PARAGRAPHS else _BREAKS.get(element.name, "")
        elif isinstance(child, Tag):
            if child.name not in _UNREAD:
                open_elements.append((child, iter(child.contents)))
                inside_pre += child.name == "pre"
                # the item before one may not be closed
                begun = "" if apart or child.name == "br" else _BREAKS.get(child.name, "")
                piece = "\n\n" if child.name in _PARAGRAPHS else begun
        elif type(child) is CData:
            piece = child
        elif type(child) is NavigableString:  # not a comment; white space in HTML source means nothing, except in <pre>
            piece = child if inside_pre else re.sub(r"\s+", " ", child)
        if piece:
            yield piece
            apart = not piece.strip() and (apart or piece != " ")  # a space between words keeps no items apart
