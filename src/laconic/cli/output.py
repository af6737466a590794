"""What commands print for programs."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_json(value: Any) -> None:
    """One line of JSON; where it holds what standard output cannot (a file's name that is no text), in ASCII."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")  # a closed output has none
    except UnicodeEncodeError:
        text = json.dumps(value)
    print(text)
