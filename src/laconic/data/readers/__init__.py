"""One file per document format: bytes in, text out."""
