"""What reading costs CoMeT: time and memory at any length, beside the same backbone without a memory and in full.

    python benchmarks/scripts/comet_speed.py --out benchmarks/results/comet_speed.json

Each run has a process of its own, so that peak memory is its own; loading is forgotten (Linux). ``comet`` reads
as ``laconic read`` does; ``one by one`` has no two chunks under way; ``no memory`` runs the backbone on each chunk
alone; ``full`` is full attention in pieces. Time and memory do not depend on what the weights learnt, so a CoMeT
that was never trained stands for the one that ships; LoRA is folded in, as it is where an adapter is loaded.
"""

from __future__ import annotations

import argparse
import json
from itertools import cycle, islice
from pathlib import Path

import torch
from measuring import alone, cost, sample_book, save

from laconic.backbone import Backbone, load_backbone
from laconic.core.preallocated import preallocated_cache
from laconic.generation.prefill import prefill
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.model import CoMeT
from laconic.methods.comet.reader import PORTION_CHUNKS
from laconic.methods.comet.stream import ChunkStream

CONFIG = CoMeTConfig(global_slots=16, fifo_slots=64, train="memory")
#: chunks before the clock starts: the queue is full behind them
WARM = CONFIG.fifo_slots * CONFIG.stride // CONFIG.chunk_tokens + 2
METHODS = ("comet", "one by one", "no memory", "full")


@torch.inference_mode()
def measure(method: str, tokens: int) -> dict[str, float]:
    backbone = load_backbone()
    ids = torch.tensor(list(islice(cycle(backbone.token_ids(sample_book())), tokens)))
    warm = ids[: WARM * CONFIG.chunk_tokens]
    if method == "full":
        in_full(backbone, warm)
        numbers = cost(lambda: in_full(backbone, ids))
    elif method == "no memory":
        apart(backbone, warm)
        numbers = cost(lambda: apart(backbone, ids))
    else:
        comet, workers = CoMeT(backbone, CONFIG), 1 if method == "one by one" else None
        read(ChunkStream(comet, workers=workers), warm)
        stream = ChunkStream(comet, workers=workers)
        numbers = cost(lambda: read(stream, ids))
        slots, queue = CONFIG.global_slots * 4, CONFIG.fifo_slots * backbone.model.dtype.itemsize
        numbers["state_bytes"] = stream.memory.nbytes
        numbers["state_formula_bytes"] = len(comet.stack) * backbone.width * (slots + queue)
    return {"tokens_per_second": tokens / numbers["seconds"], **numbers}


def read(stream: ChunkStream, ids: torch.Tensor) -> None:
    for part in ids.split(CONFIG.chunk_tokens * PORTION_CHUNKS):
        stream.read([part])


def apart(backbone: Backbone, ids: torch.Tensor) -> None:
    for chunk in ids.split(CONFIG.chunk_tokens):
        backbone.model(input_ids=chunk[None], use_cache=False, logits_to_keep=1)


def in_full(backbone: Backbone, ids: torch.Tensor) -> None:
    prefill(backbone.model, backbone.embed(ids)[None], preallocated_cache(len(ids), backbone.model.config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="*", default=[16_384, 32_768], help="of all methods")
    parser.add_argument("--comet-only", type=int, nargs="*", default=[262_144], help="lengths that others skip")
    parser.add_argument("--repeats", type=int, default=5, help="of short rows, which take turns: the median counts")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/comet_speed.json"))
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "TOKENS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]))))
        return
    rows = []
    for tokens in [*args.lengths, *args.comet_only]:
        runs: dict[str, list[dict[str, float]]] = {}
        for turn in range(args.repeats if tokens in args.lengths else 1):
            for method in METHODS if tokens in args.lengths else METHODS[:1]:
                if turn and method == "full":  # so long that it averages by itself
                    continue
                runs.setdefault(method, []).append(alone(__file__, method, tokens))
                print(method, tokens, runs[method][-1], flush=True)
        for method, found in runs.items():
            middle = sorted(found, key=lambda run: run["seconds"])[len(found) // 2]
            rows.append({"method": method, "tokens": tokens, **middle, "runs_s": [run["seconds"] for run in found]})
    save(args.out, "comet_speed", config=CONFIG.to_dict(), rows=rows)


if __name__ == "__main__":
    main()
