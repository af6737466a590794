"""Bills."""

from __future__ import annotations

from laconic.core.results import added


def test_a_stage_that_stands_in_several_bills_counts_in_all() -> None:
    assert added({"load": 1.0, "read": 2.0}, {"read": 3.0, "decode": 4.0}, {"read": 5.0}) == {
        "load": 1.0,
        "read": 10.0,
        "decode": 4.0,
    }
    assert added() == {}
