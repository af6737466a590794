"""How long do CoMeT's slots hold what they took in, layer by layer?

    python benchmarks/scripts/comet_fading.py --chunks 24 --out benchmarks/results/comet_fading.json

Pairs of texts of a book differ in nothing but the passkey in their first chunk. Chunk after chunk, the distance of
their slots, in parts of the slots' own length, says what is left of the passkey; and the gates, what is kept of a slot.
Several saved methods can be set side by side (``--comet NAME=FOLDER ...``).
"""

from __future__ import annotations

import argparse
import random
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import save
from torch import Tensor, nn

from laconic.backbone import Backbone, load_backbone
from laconic.data.books import load_books
from laconic.data.generated import BOOKS
from laconic.data.needles import NEEDLES
from laconic.methods.comet.model import CoMeT
from laconic.methods.registry import shipped_adapter
from laconic.train.reading_examples import token_haystacks

ROOT = Path(__file__).resolve().parents[2]


def pairs(backbone: Backbone, count: int, tokens: int, place: int) -> list[list[int]]:
    """Twice as many texts: each two are one text of a book with two passkeys of one length."""
    books, draw = token_haystacks(backbone, load_books(BOOKS)), random.Random(0)
    texts: list[list[int]] = []
    for _ in range(count):
        said = [backbone.token_ids(NEEDLES["passkey"](draw).sentences[0]) for _ in range(2)]
        assert len(said[0]) == len(said[1]), "digits are tokens of their own"
        book = books.cut(tokens - len(said[0]), draw)
        texts += [[*book[:place], *passkey, *book[place:]] for passkey in said]
    return texts


def note(gates: list[Tensor], module: nn.Module, inputs: Any, output: Tensor) -> None:
    gates.append(torch.sigmoid(output))


@torch.inference_mode()
def fading(comet: CoMeT, texts: list[list[int]], chunks: int) -> list[dict[str, Any]]:
    full, memory = comet.config.chunk_tokens, comet.empty_memory(len(texts))
    gates: list[list[Tensor]] = [[] for _ in comet.cells]
    for cell, seen in zip(comet.cells, gates, strict=True):
        assert cell.nets.gate is not None
        cell.nets.gate.register_forward_hook(partial(note, seen))
    rows = []
    for chunk in range(chunks):
        ids = [torch.tensor(text[chunk * full : (chunk + 1) * full]) for text in texts]
        _, memory = comet.read_chunk(ids, memory, [True] * len(texts))
        slots = torch.stack([state.slots for state in memory.layers])  # [L, B, m, D]
        one, other = slots[:, 0::2], slots[:, 1::2]
        apart = ((one - other).norm(dim=-1) / one.norm(dim=-1)).mean((1, 2))
        kept = [seen[-1].mean().item() if chunk else None for seen in gates]  # the first chunk passes no gate
        rows.append({"chunk": chunk, "apart": [round(x, 4) for x in apart.tolist()], "kept": kept})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comet", nargs="*", default=[], metavar="NAME=FOLDER", help="by default what ships")
    parser.add_argument("--chunks", type=int, default=24)
    parser.add_argument("--count", type=int, default=4, help="pairs of texts")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "comet_fading.json")
    args = parser.parse_args()
    backbone = load_backbone()
    folders = dict(given.split("=", 1) for given in args.comet) or {"shipped": shipped_adapter(backbone, "comet")}
    rows, versions = [], {}
    for name, folder in folders.items():
        comet = CoMeT.from_pretrained(folder, backbone).merge()
        texts = pairs(backbone, args.count, args.chunks * comet.config.chunk_tokens, comet.config.chunk_tokens // 2)
        rows += [{"method": name, **row} for row in fading(comet, texts, args.chunks)]
        versions[name] = comet.version
        ends = [row["apart"] for row in rows if row["method"] == name]
        print(name, *(f"{chunk}: {max(ends[chunk]):.2f}" for chunk in range(args.chunks)), flush=True)
    notes = {"seed": 0, "pairs": args.count, "methods": versions, "backbone": backbone.content_hash}
    save(args.out, "comet_fading", rows=rows, notes=notes)


if __name__ == "__main__":
    main()
