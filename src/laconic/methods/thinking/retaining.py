"""Steps that stay readable for a while after they are finished (HybridThinker, arXiv 2606.03768)."""

from __future__ import annotations

import random

from torch import Tensor

from laconic.core.retention import reaches
from laconic.core.thoughts import finished_words_hidden
from laconic.core.visibility import Rule
from laconic.methods.thinking.config import RetainingConfig
from laconic.methods.thinking.model import Thinker


class RetainingThinker(Thinker):
    """A thinker whose last ``retention`` finished steps can still be read as they were written."""

    config: RetainingConfig

    @property
    def retention(self) -> int:
        return self.config.retention

    @property
    def reads_all(self) -> bool:
        return self.config.shortcut_mode != "gap"

    def training_reaches(self, steps: int, draw: random.Random) -> list[int]:
        c = self.config
        return reaches(steps, c.retention, c.shortcuts, c.shortcut_mode, draw)

    def rule(self, reach: int | Tensor) -> Rule:
        return finished_words_hidden(reach, gap=self.config.shortcut_mode == "gap")
