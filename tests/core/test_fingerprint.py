"""Adapters carry fingerprints, so what makes one must not change."""

from __future__ import annotations

import torch

from laconic.core.fingerprint import fingerprint

WEIGHTS = [("b", torch.arange(20_000.0).view(100, 200)), ("a", torch.ones(3))]


def test_it_stays_what_it_is() -> None:
    assert fingerprint(WEIGHTS, torch.bfloat16) == "3ddd9df7e1e67097"
    assert fingerprint(reversed(WEIGHTS), torch.bfloat16) == "3ddd9df7e1e67097"
    assert fingerprint([(n, t.double()) for n, t in WEIGHTS], torch.bfloat16) == "3ddd9df7e1e67097"


def test_other_weights_names_and_shapes_are_told_apart() -> None:
    (_, large), small = WEIGHTS
    others = [
        [("b", large + 1), small],
        [("c", large), small],
        [("b", large.view(200, 100)), small],
        [small],
    ]
    assert len({fingerprint(each, torch.float32) for each in [WEIGHTS, *others]}) == 5


def test_what_is_rounded_away_does_not_count() -> None:
    close = [(name, tensor + 1e-6) for name, tensor in WEIGHTS]
    ones, nearly = [WEIGHTS[1]], [close[1]]
    assert fingerprint(ones, torch.bfloat16) == fingerprint(nearly, torch.bfloat16)
    assert fingerprint(ones, torch.float32) != fingerprint(nearly, torch.float32)
