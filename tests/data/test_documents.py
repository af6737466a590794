"""Every format is read, and what cannot be read says why."""

from __future__ import annotations

import io
import random
import sys
import time
import zipfile
from pathlib import Path

import pytest

from laconic.data.documents import read_document
from laconic.data.readers.html import read_html
from laconic.errors import DocumentError


def write(path: Path, data: bytes | str) -> str:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def pdf_bytes(*pages: str) -> bytes:
    """A minimal PDF: one line of Helvetica a page, a page without text operators for an empty string."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        font = "<< /Font << /F1 3 0 R >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Resources {font} /Contents {5 + 2 * number} 0 R >>"
        )
        stream = f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET" if text else "0 0 300 300 re f"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(f"{number} 0 obj\n{body}\nendobj\n".encode())
    start = out.tell()
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    out.write("".join(f"{offset:010d} 00000 n \n" for offset in offsets).encode())
    out.write(f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode())
    return out.getvalue()


def encrypted_pdf(password: str, algorithm: str) -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_bytes("The lamp was lit."))))
    writer.encrypt(user_password=password, owner_password="owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def docx_bytes() -> bytes:
    from docx import Document

    document = Document()
    document.add_paragraph("Before the table.")
    table = document.add_table(rows=2, cols=2)
    for row, names in zip(table.rows, (("ship", "year"), ("Orleans", "1841")), strict=True):
        for cell, name in zip(row.cells, names, strict=True):
            cell.text = name
    document.add_paragraph("After the table.")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def epub_bytes(encryption: str | None = None) -> bytes:
    """Two chapters whose spine order is not their file order, one with a space in its name, and a contents page."""
    package = """<package xmlns="http://www.idpf.org/2007/opf"><manifest>
        <item id="toc" href="toc.xhtml" media-type="application/xhtml+xml" properties="nav"/>
        <item id="one" href="text/part%20b.xhtml" media-type="application/xhtml+xml"/>
        <item id="two" href="text/a.xhtml" media-type="application/xhtml+xml"/>
        <item id="font" href="font.otf" media-type="font/otf"/>
        </manifest><spine><itemref idref="toc"/><itemref idref="one"/><itemref idref="two"/></spine></package>"""
    files = {
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        "OEBPS/book.opf": package,
        "OEBPS/toc.xhtml": "<html><body><nav>Contents</nav></body></html>",
        "OEBPS/text/a.xhtml": "<html><body><p>The second chapter.</p></body></html>",
        "OEBPS/text/part b.xhtml": "<html><body><h1>One</h1><p>The first chapter.</p></body></html>",
    }
    if encryption is not None:
        files["META-INF/encryption.xml"] = (
            '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><EncryptedData '
            'xmlns="http://www.w3.org/2001/04/xmlenc#"><CipherData><CipherReference '
            f'URI="{encryption}"/></CipherData></EncryptedData></encryption>'
        )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as book:
        for name, text in files.items():
            book.writestr(name, text)
    return out.getvalue()


# --- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".txt", ".md", ".log", ""])
def test_text_is_read_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    document = read_document([write(tmp_path / f"note{suffix}", "One line.\r\nAnother, née ж 中.\n")])
    assert document.text == "One line.\nAnother, née ж 中."
    assert document.name == f"note{suffix}"


LATIN = "The café was closed; “He said it’s naïve,” she wrote. The résumé lay there and he waited for her to come back."
CYRILLIC = "Однажды весною, в час небывало жаркого заката, в Москве появились два гражданина."


@pytest.mark.parametrize(
    ("encoding", "text"),
    [(encoding, LATIN) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252")]
    + [(encoding, CYRILLIC) for encoding in ("utf-8", "cp1251")],
)
def test_encodings_are_recognised(tmp_path: Path, encoding: str, text: str) -> None:
    assert read_document([write(tmp_path / "a.txt", text.encode(encoding))]).text == text


def test_an_accent_at_the_end_of_an_older_encoding_is_no_cut(tmp_path: Path) -> None:
    """Its byte could begin a character of UTF-8."""
    text = "He waited for her to come back, and then they went to the cafe at the corner, the old café"
    assert read_document([write(tmp_path / "a.txt", text.encode("cp1252"))]).text == text


@pytest.mark.parametrize("rest", [b"\xc3", b"\xc2", b"\xe2", b"\xf0"])
def test_text_without_accents_that_ends_inside_one_is_cut(tmp_path: Path, rest: bytes) -> None:
    with pytest.raises(DocumentError, match="ends inside a character: its last 1 bytes"):
        read_document([write(tmp_path / "a.txt", b"The old lamp at the corner of the caf" + rest)])


def test_a_page_of_elements_that_are_not_closed_is_read_at_once() -> None:
    """They lie in each other, thousands deep: too many for recursion, or for looking at all outer ones each time."""
    started = time.perf_counter()
    text = read_html(b"<ul>" + b"<li>one<p>two" * 14_000, "old.html")
    assert text.split() == ["one", "two"] * 14_000
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<ul><li>one<li>two</ul>", "one\ntwo"),
        ("<ul>\n<li>one\n<li>two <b>and</b> more\n<li>three\n</ul>", "one\ntwo and more\nthree"),
        ("<table><tr><td>a\n<td>b\n<tr><td>c <td>d</table>", "a \tb\nc \td"),
        ("<dl><dt>term\n<dd>meaning\n<dt>other</dl>", "term\nmeaning\nother"),
        ("<ul>\n<li>one</li>\n<li>two</li>\n</ul>", "one\ntwo"),
        ("<ul><li><b>one</b> <li>two</ul>", "one\ntwo"),
        ("one<br>two<br> three", "one\ntwo\nthree"),
        ("<pre>a\nb</pre><p>c\nd</p>", "a\nb\n\nc d"),
    ],
)
def test_html_items_begin_a_line_closed_or_not(page: str, text: str) -> None:
    assert read_html(page.encode(), "a.html") == text


def test_html_keeps_paragraphs_apart_and_words_together(tmp_path: Path) -> None:
    page = """<html><head><title>t</title><style>p {}</style></head><body><!-- no -->
        <h1>The  <b>Li</b>ght</h1><p>First
        line,<br>second <em>line</em>.</p><script>no()</script>
        <ul><li>one</li><li>two</li></ul><table><tr><td>a</td><td>b</td></tr></table>
        <pre>x  y
z</pre></body></html>"""
    text = read_document([write(tmp_path / "a.html", page)]).text
    assert text == "The Light\n\nFirst line,\nsecond line.\n\none\ntwo\n\na\tb\n\nx  y\nz"


def test_html_respects_its_declared_encoding(tmp_path: Path) -> None:
    page = '<meta charset="windows-1251"><p>Москва</p>'.encode("cp1251")
    assert read_document([write(tmp_path / "a.html", page)]).text == "Москва"


def test_pdf_pages_in_order(tmp_path: Path) -> None:
    document = read_document([write(tmp_path / "a.pdf", pdf_bytes("The lamp was lit.", "", "Then it went out."))])
    assert document.text.split() == ["The", "lamp", "was", "lit.", "Then", "it", "went", "out."]


def test_pdf_that_only_forbids_printing(tmp_path: Path) -> None:
    document = read_document([write(tmp_path / "a.pdf", encrypted_pdf("", "RC4-128"))])
    assert document.text == "The lamp was lit."


def test_docx_paragraphs_and_tables_in_order(tmp_path: Path) -> None:
    document = read_document([write(tmp_path / "a.docx", docx_bytes())])
    assert document.text == "Before the table.\n\nship\tyear\nOrleans\t1841\n\nAfter the table."


@pytest.mark.parametrize("encryption", [None, "OEBPS/font.otf"])
def test_epub_in_spine_order_without_contents(tmp_path: Path, encryption: str | None) -> None:
    document = read_document([write(tmp_path / "a.epub", epub_bytes(encryption))])
    assert document.text == "One\n\nThe first chapter.\n\nThe second chapter."


def test_several_files_are_joined_by_a_blank_line(tmp_path: Path) -> None:
    sources = [write(tmp_path / "a.txt", "One.\n"), write(tmp_path / "b.html", "<p>Two.</p>")]
    document = read_document(sources)
    assert document.text == "One.\n\nTwo."
    assert document.name == "a.txt, b.html"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"From a pipe.", "From a pipe."),
        (pdf_bytes("The lamp was lit."), "The lamp was lit."),
        (docx_bytes(), "Before the table."),
        (epub_bytes(), "One"),
    ],
    ids=["text", "pdf", "docx", "epub"],
)
def test_standard_input_is_known_by_its_content(monkeypatch: pytest.MonkeyPatch, data: bytes, expected: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read_document(["-"]).text.startswith(expected)


# --- what is not ---------------------------------------------------------------------------------------------------


def corrupted(archive: bytes) -> bytes:
    """The same files deflated, the last one's data spoilt."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
        last = max(target.infolist(), key=lambda info: info.header_offset)
        start = last.header_offset + 30 + len(last.filename)
    data = bytearray(packed.getvalue())
    data[start : start + last.compress_size] = bytes([0xFF]) * last.compress_size
    return bytes(data)


NOISE = random.Random(0).randbytes(4000)

BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.txt", b"", "empty"),
    "white space": ("a.txt", b" \n\t\n", "empty"),
    "white space in html": ("a.html", b"<html><body> <p> </p></body></html>", "empty"),
    "empty pdf file": ("a.pdf", b"", "empty"),
    "noise": ("a.bin", NOISE, "binary"),
    "noise called text": ("a.txt", NOISE, "binary"),
    "noise called html": ("a.html", NOISE, "binary"),
    "noise without nulls": ("a.txt", bytes(b for b in NOISE if b), "binary"),
    "png": ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + NOISE, "binary"),
    "zip": ("a.zip", b"PK\x03\x04" + NOISE, "binary"),
    "utf-8 with nulls": ("a.txt", b"some\0text", "binary"),
    "cut utf-8": ("a.txt", "Москва, конец".encode()[:-1], "inside a character"),
    "cut utf-8 behind ascii": ("a.txt", "The price is 5 €".encode()[:-1], "inside a character"),
    "scanned pdf": ("a.pdf", pdf_bytes("", ""), "scanned"),
    "encrypted pdf": ("a.pdf", encrypted_pdf("secret", "RC4-128"), "encrypted"),
    "damaged pdf": ("a.pdf", pdf_bytes("The lamp was lit.")[40:200], "not a readable PDF"),
    "no pdf": ("a.pdf", b"just text", "not a readable PDF"),
    "damaged docx": ("a.docx", docx_bytes()[:-200], "not a readable .docx"),
    "no docx": ("a.docx", epub_bytes(), "not a readable .docx"),
    "encrypted docx": ("a.docx", bytes.fromhex("d0cf11e0a1b11ae1") + NOISE, "encrypted"),
    "old doc": ("a.doc", bytes.fromhex("d0cf11e0a1b11ae1") + NOISE, ".doc format"),
    "damaged epub": ("a.epub", epub_bytes()[:-100], "not a readable EPUB"),
    "epub with a damaged chapter": ("a.epub", corrupted(epub_bytes()), "not a readable EPUB"),
    "no epub": ("a.epub", docx_bytes(), "not a readable EPUB"),
    "protected epub": ("a.epub", epub_bytes("OEBPS/text/a.xhtml"), "encrypted"),
}


@pytest.mark.parametrize(("name", "data", "problem"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_unreadable_files_say_why(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    source = write(tmp_path / name, data)
    with pytest.raises(DocumentError) as caught:
        read_document([source])
    assert problem in caught.value.problem
    assert source in caught.value.problem
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_cipher_without_its_package_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pypdf

    def unavailable(*_: object) -> None:
        raise pypdf.errors.DependencyError("cryptography>=3.1 is required for AES algorithm")

    monkeypatch.setattr(pypdf, "PdfReader", unavailable)
    with pytest.raises(DocumentError, match=r"is encrypted with AES.*pip install cryptography"):
        read_document([write(tmp_path / "a.pdf", pdf_bytes("The lamp was lit."))])


def test_missing_files_folders_and_nothing_at_all(tmp_path: Path) -> None:
    for sources, problem in [
        ([str(tmp_path / "none.txt")], "There is no file"),
        ([str(tmp_path)], "is a folder"),
        (["x" * 5000], "cannot be read"),
        (["a\0b"], "cannot be read"),
        ([], "No document"),
        (["-", "-"], "twice"),
    ]:
        with pytest.raises(DocumentError, match=problem) as caught:
            read_document(sources)
        assert caught.value.remedy
        assert ".." not in str(caught.value).replace(str(tmp_path), "")


def test_standard_input_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DocumentError, match="is closed"):
        read_document(["-"])
