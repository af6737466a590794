"""What each part of RAM's relevance is worth: evidence recall with the parts switched off one by one.

    python benchmarks/scripts/ram_ablation.py --limit 380 --out benchmarks/results/ram_ablation.json

The trained rows share one adapter, trained with everything on; a part is switched off when the document is read, so
they say what this adapter loses without it, not what a training run without it would reach. The untrained rows are the
plain scores of the backbone's first layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from evidence_recall import arguments, measure

from laconic.backbone import Backbone
from laconic.methods.ram.config import RAMConfig
from laconic.methods.ram.model import RAM
from laconic.methods.registry import load_method

PLAIN: dict[str, Any] = {"lexical": False, "neighbours": False, "window": 0, "row_segments": 1, "skim_share": 1.0}
UNTRAINED: dict[str, dict[str, Any]] = {
    "untrained, mean (the paper's score)": {**PLAIN, "score": "mean"},
    "untrained, maxsim": PLAIN,
}
# of the trained one: weights set to zero, and changes of configuration
SWITCHED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "trained, all parts": ((), {}),
    "without BM25": (("lexical_weight",), {}),
    "without neighbours": (("neighbour_weight",), {}),
    "without the window": (("window_weight",), {}),
    "without BM25 and neighbours": (("lexical_weight", "neighbour_weight"), {}),
    "one segment to a row": ((), {"row_segments": 1}),
    "a vector for every segment": ((), {"skim_share": 1.0}),
}


def variants(backbone: Backbone, adapter: str | None) -> Iterator[tuple[str, RAM]]:
    for label, changes in UNTRAINED.items():
        torch.manual_seed(0)
        yield label, RAM(backbone, RAMConfig(**changes)).eval()
    for label, (off, changes) in SWITCHED.items():
        ram = load_method("ram", backbone, adapter).compressor
        assert isinstance(ram, RAM)
        ram.config = replace(ram.config, **changes)
        with torch.no_grad():
            for weight in off:
                getattr(ram.relevance, weight).zero_()
        yield label, ram


def main() -> None:
    args = arguments(__doc__, "ram_ablation").parse_args()
    measure(args, "ram_ablation", "variant", lambda backbone: variants(backbone, args.adapter))


if __name__ == "__main__":
    main()
