"""What reading costs CoMeT: time and memory at any length, beside the same backbone without a memory and in full.

    python benchmarks/scripts/comet_speed.py --out benchmarks/results/comet_speed.json

Each row runs in a process of its own, so that peak memory is its own; loading is forgotten (Linux). ``comet`` reads
as ``laconic read`` does; ``side by side`` has two chunks under way; ``no memory`` runs the backbone on each chunk
alone; ``full`` is full attention in pieces. Time and memory do not depend on what the weights learnt, so a CoMeT
that was never trained stands for one that was; LoRA is folded in, as it is where an adapter is loaded.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import cycle, islice
from pathlib import Path

import torch
from measuring import alone, environment, forget_peak, sample_book, status_mb

from laconic.backbone import Backbone, load_backbone
from laconic.cli.read import PORTION_CHUNKS
from laconic.core.files import write_whole
from laconic.core.preallocated import preallocated_cache
from laconic.generation.prefill import prefill
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.stream import ChunkStream

CONFIG = CoMeTConfig(global_slots=16, train="memory")
#: chunks before the clock starts: the queue is full behind them
WARM = CONFIG.fifo_slots * CONFIG.stride // CONFIG.chunk_tokens + 2
METHODS = ("comet", "side by side", "no memory", "full")


@torch.inference_mode()
def measure(method: str, tokens: int) -> dict[str, float]:
    backbone = load_backbone()
    ids = torch.tensor(list(islice(cycle(backbone.token_ids(sample_book())), tokens)))
    if method == "full":
        return full(backbone, ids)
    if method == "no memory":
        return without_memory(backbone, ids)
    comet = CoMeT(backbone, CONFIG)
    stream = ChunkStream(comet, workers=2 if method == "side by side" else 1)
    stream.feed([ids[: WARM * CONFIG.chunk_tokens]])
    stream = ChunkStream(comet, workers=stream.workers)
    resident = forget_peak()
    started = time.perf_counter()
    for part in ids.split(CONFIG.chunk_tokens * PORTION_CHUNKS):
        stream.read([part])
    seconds = time.perf_counter() - started
    peak = status_mb("VmHWM")
    layers, width = len(comet.stack), backbone.width
    formula = layers * width * (CONFIG.global_slots * 4 + CONFIG.fifo_slots * backbone.model.dtype.itemsize)
    return {
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "resident_mb": resident,
        "peak_mb": peak,
        "state_bytes": stream.memory.nbytes,
        "state_formula_bytes": formula,
    }


def without_memory(backbone: Backbone, ids: torch.Tensor) -> dict[str, float]:
    def run(part: torch.Tensor) -> None:
        for chunk in part.split(CONFIG.chunk_tokens):
            backbone.model(input_ids=chunk[None], use_cache=False, logits_to_keep=1)

    run(ids[: WARM * CONFIG.chunk_tokens])
    resident = forget_peak()
    started = time.perf_counter()
    run(ids)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "tokens_per_second": len(ids) / seconds,
        "resident_mb": resident,
        "peak_mb": status_mb("VmHWM"),
    }


def full(backbone: Backbone, ids: torch.Tensor) -> dict[str, float]:
    backbone.model(input_ids=ids[None, :1024], use_cache=False, logits_to_keep=1)
    resident = forget_peak()
    started = time.perf_counter()
    prefill(backbone.model, backbone.embed(ids)[None], preallocated_cache(len(ids), backbone.model.config))
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "tokens_per_second": len(ids) / seconds,
        "resident_mb": resident,
        "peak_mb": status_mb("VmHWM"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="*", default=[16_384, 32_768], help="of all methods")
    parser.add_argument("--comet-only", type=int, nargs="*", default=[262_144], help="lengths that others skip")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/comet_speed.json"))
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "TOKENS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]))))
        return
    rows = []
    for tokens in [*args.lengths, *args.comet_only]:
        for method in METHODS if tokens in args.lengths else METHODS[:1]:
            rows.append({"method": method, "tokens": tokens, **alone(__file__, method, tokens)})
            print(rows[-1], flush=True)
    result = {
        "benchmark": "comet_speed",
        "config": CONFIG.to_dict(),
        "rows": rows,
        "environment": environment(),
    }
    write_whole(args.out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
