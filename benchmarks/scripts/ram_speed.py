"""Time to first token and peak memory: RAM at 8x against the full prompt, on the text of a book.

    python benchmarks/scripts/ram_speed.py --lengths 8192 16384 32768 --out benchmarks/results/ram_speed.json

Each (method, length) runs in a process of its own, so peak memory is its own; the peak is that of the run alone, since
loading is forgotten (Linux). The full prompt is prefilled by the same adapted decoder, as RAM's memory is; beyond its
window the text means nothing to it, but its cost is what it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from measuring import alone, forget_peak, sample_book, save, status_mb

from laconic.backbone import load_backbone
from laconic.core.preallocated import preallocated_cache
from laconic.core.segments import segment
from laconic.generation.prefill import prefill
from laconic.methods.ram.model import RAM
from laconic.methods.registry import load_method

QUESTION = "Who bought Solomon Northup in New Orleans?"
FACTOR = 8
REPEATS = 3


def measure(method: str, tokens: int) -> dict[str, float]:
    backbone = load_backbone()
    book = sample_book()
    encoded = backbone.tokenizer(book, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    text = book[: encoded["offset_mapping"][tokens][0]]
    loaded = load_method("ram", backbone)
    ram, decoder = loaded.compressor, loaded.reader.decoder
    assert isinstance(ram, RAM)
    warm = text[:2000]
    with torch.inference_mode():
        ram.compress(warm, QUESTION, ratio=1 / FACTOR)
        decoder(torch.tensor([backbone.token_ids(warm)]), logits_to_keep=1)
        resident = forget_peak()
        started = time.perf_counter()
        prompt = backbone.embed(torch.tensor(loaded.reader.prompt_ids(QUESTION)))
        if method == "ram":
            compressed = ram.compress(text, QUESTION, ratio=1 / FACTOR)
            assert compressed.embeddings is not None
            rows, stages = compressed.embeddings, dict(compressed.seconds)
        else:
            rows, stages = backbone.embed(torch.tensor(backbone.token_ids(text))), {}
        mark = time.perf_counter()
        rows = torch.cat([rows, prompt])
        prefill(decoder, rows[None], preallocated_cache(len(rows), decoder.config))
        ended = time.perf_counter()
        numbers = {
            "context_tokens": len(rows) - len(prompt),
            "first_token_s": ended - started,
            "prefill_s": ended - mark,
            **stages,
        }
        peak = status_mb("VmHWM")
        numbers |= {"resident_mb": resident, "peak_mb": peak, "growth_mb": peak - resident}
        if method == "ram":
            numbers |= throughput(ram, text)
    return numbers


def throughput(ram: RAM, text: str) -> dict[str, float]:
    """Median seconds of the encoder, and of the same K layers over the same tokens in plain batches, its upper bound.

    They take turns, both warm, so that neither has the quieter machine.
    """
    width = ram.config.segment_tokens
    segmented = segment(ram.backbone.tokenizer, text, width)
    rows = torch.tensor(segmented.ids[: len(segmented.ids) // width * width]).view(-1, width)

    def plain() -> None:
        for batch in rows.split(64):
            ram.encoder.body(input_ids=batch, use_cache=False)

    seconds: dict[str, list[float]] = {"encode_warm_s": [], "plain_forward_s": []}
    for _ in range(REPEATS):
        for name, work in (("encode_warm_s", lambda: ram.encode(segmented)), ("plain_forward_s", plain)):
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="*", default=[8192, 16384, 32768])
    parser.add_argument("--ram-only", type=int, nargs="*", default=[65536], help="lengths the full prompt skips")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ram_speed.json"))
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "TOKENS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]))))
        return
    rows = []
    for tokens in [*args.lengths, *args.ram_only]:
        for method in ["ram", "full"] if tokens in args.lengths else ["ram"]:
            rows.append({"method": method, "tokens": tokens, **alone(__file__, method, tokens)})
            print(rows[-1], flush=True)
    save(args.out, "ram_speed", factor=FACTOR, rows=rows)


if __name__ == "__main__":
    main()
