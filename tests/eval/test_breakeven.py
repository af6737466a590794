"""Where compression pays: the arithmetic, the measurement, the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny import tiny_backbone

from laconic.core.segments import Range
from laconic.errors import DataError
from laconic.eval.breakeven import Profile, draw, measure, rising
from laconic.methods.pruning.words import WordPruner

BACKBONE = tiny_backbone("llama")
TEXT = "The keeper wrote down the weather every morning. " * 60
#: reading costs a second a thousand tokens, an answer's token a hundredth, compression a tenth of reading
KNOWN = Profile({}, [1000, 4000], [0.1, 0.4], [1.0, 4.0], [0.01, 0.01])


class FromTheStart(WordPruner):
    def scores(self, text: str, words: Sequence[Range], query: str | None) -> Sequence[float]:
        return [-float(place) for place in range(len(words))]


def test_saved_is_what_reading_costs_less_less_what_compression_costs() -> None:
    assert KNOWN.whole(2000, 10) == pytest.approx(2.0 + 0.1)
    assert KNOWN.saved(2000, 0.5, 0) == pytest.approx(1.0 - 0.2)
    assert KNOWN.saved(2000, 0.5, 10) == pytest.approx(1.0 - 0.2)  # a token costs the same at either length
    assert KNOWN.saved(2000, 0.95, 0) == pytest.approx(0.1 - 0.2)  # it costs more than it saves


def test_beyond_what_was_timed_the_line_goes_on() -> None:
    assert KNOWN.whole(8000, 0) == pytest.approx(8.0)
    assert KNOWN.whole(500, 0) == pytest.approx(0.5)
    quadratic = Profile({}, [1000, 2000], [0.1, 0.2], [1.0, 4.0], [0.01, 0.02])
    assert quadratic.whole(4000, 0) == pytest.approx(16.0)
    assert quadratic.whole(500, 0) == pytest.approx(0.25)  # a straight line would be below nothing
    flat = Profile({}, [1000, 2000], [0.2, 0.1], [1.0, 0.9], [0.01, 0.01])  # a measurement that fell by chance
    assert flat.whole(4000, 0) == pytest.approx(0.95)
    assert Profile({}, [1000], [0.1], [1.0], [0.01]).whole(5, 0) == pytest.approx(1.0)


def test_what_was_timed_by_chance_promises_nothing() -> None:
    # one word takes as long wherever it is said; a text of 13 tokens is not a third quicker than one of 128
    noisy = Profile({}, [128, 512, 2048], [0.0] * 3, [0.08, 0.2, 1.1], [0.040, 0.052, 0.044])
    assert noisy.saved(512, 0.5, 32) == pytest.approx(noisy.saved(512, 0.5, 0) + 32 * (0.048 - (0.040 * 0.048) ** 0.5))
    assert noisy.whole(2048, 1) - noisy.whole(2048, 0) == pytest.approx(0.048)
    each = 0.008 / 384
    assert noisy.whole(13, 1) - noisy.whole(13, 0) == pytest.approx(0.040 - 115 * each)
    assert rising([3.0, 1.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert rising([1.0, 3.0, 2.0, 2.5, 4.0]) == pytest.approx([1.0, 2.5, 2.5, 2.5, 4.0])
    assert rising([1.0, 2.0]) == [1.0, 2.0]


def test_every_stage_is_timed_at_every_length(tmp_path: Path) -> None:
    told: list[str] = []
    found = measure(FromTheStart(BACKBONE), BACKBONE, {"a": "b"}, TEXT, "Who?", [64, 32], repeats=2, say=told.append)
    assert found.lengths == [32, 64]
    assert len(told) == 2
    for column in (found.compress, found.read, found.say):
        assert len(column) == 2
        assert all(seconds > 0 for seconds in column)
    found.save(tmp_path / "deep" / "profile.json")
    assert Profile.load(tmp_path / "deep" / "profile.json") == found
    draw(found, tmp_path / "map.png", 8)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_timed_or_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too short"):
        measure(FromTheStart(BACKBONE), BACKBONE, {}, "The keeper.", "Who?", [64])
    with pytest.raises(DataError, match="window"):
        measure(FromTheStart(BACKBONE), BACKBONE, {}, TEXT * 3, "Who?", [600])
    with pytest.raises(DataError, match="laconic profile"):
        Profile.load(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"format": 1, "what"')
    with pytest.raises(DataError, match="damaged"):
        Profile.load(tmp_path / "cut.json")
