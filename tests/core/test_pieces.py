"""Text in pieces has the tokens of the whole."""

from __future__ import annotations

import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from laconic.core.pieces import PATIENCE, whole_words

TEXT = "The keeper wrote, every morning, 48213 lines.\n\n  It was  calm;\nthe sea (green) was the sky. " * 3


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_cut_anywhere_it_has_the_same_tokens(cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(TEXT)]
    pieces = list(whole_words(TEXT[a:b] for a, b in pairwise(borders)))
    assert "".join(pieces) == TEXT
    tokenizer = tiny_tokenizer()
    ids = [token for piece in pieces for token in tokenizer(piece, add_special_tokens=False)["input_ids"]]
    assert ids == tokenizer(TEXT, add_special_tokens=False)["input_ids"]


def test_a_script_without_spaces_is_not_held_for_ever() -> None:
    pieces = list(whole_words("夜" * 500 for _ in range(200)))
    assert sum(map(len, pieces)) == 100_000
    assert max(map(len, pieces)) <= PATIENCE + 500


def test_text_without_such_spaces_is_searched_once() -> None:
    """A table's lines, a character at a time: all that is held was searched again for each, which took a minute."""
    text = "".join(f"{n},{n * 7}\n" for n in range(8_000))
    started = time.process_time()
    assert "".join(whole_words(text)) == text
    assert time.process_time() - started < 5


def test_a_space_at_a_pieces_end_is_found_with_the_next() -> None:
    assert list(whole_words(["one ", "two"])) == ["one", " two"]
    assert list(whole_words(["one", " two"])) == ["one", " two"]
