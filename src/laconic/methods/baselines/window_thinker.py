"""Reasoning with attention sinks and a recent window (StreamingLLM, arXiv 2309.17453): nothing is trained for it."""

from __future__ import annotations

from typing import Any

from laconic.core.visibility import Rule
from laconic.generation.thinking import Forgets
from laconic.methods.baselines.sink_window import SINK_TOKENS, sinks_and_recent
from laconic.methods.vanilla.model import Vanilla


class WindowThinker(Vanilla):
    """A saved vanilla thinker that reads the first tokens of its prompt and the most recent ones.

    Attributes:
        tokens: held at the most, the sinks included.
    """

    tokens = 128

    @property
    def decoding(self) -> dict[str, Any]:
        return {"tokens": self.tokens}

    @property
    def forgets(self) -> Forgets:
        return "words"

    def rule(self, reach: object) -> Rule:
        return sinks_and_recent(SINK_TOKENS, self.tokens - SINK_TOKENS)
