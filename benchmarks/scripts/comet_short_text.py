"""Is short text hurt by what CoMeT learnt for long ones, and does its memory help to read on?

    python benchmarks/scripts/comet_short_text.py --comet runs/comet-cpu/method --sft runs/sft-cpu/method \\
        --out benchmarks/results/comet_short_text.json

Beside CoMeT stands its backbone tuned on the same examples (``sft``) and untuned. Perplexity, of pieces of books that
nothing was trained on: the first chunk is short text; later ones CoMeT reads behind its memory, the others alone
or (``sft, full``) behind all of the text. Then answers from single paragraphs of SQuAD.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from laconic.backbone import Backbone, load_backbone
from laconic.data.books import load_books
from laconic.data.generated import BOOKS
from laconic.data.loaders import load_task
from laconic.eval.report import markdown
from laconic.eval.runner import evaluate
from laconic.methods.comet.model import CoMeT
from laconic.methods.registry import load_method, reader_name
from laconic.methods.sft.model import SFT
from laconic.train.reading_examples import token_haystacks

ROOT = Path(__file__).resolve().parents[2]
TASK = "squad_paragraphs_dev"


@torch.inference_mode()
def perplexities(backbone: Backbone, comet: Path, sft: Path, texts: int, chunks: int) -> dict[str, list[float]]:
    """Of each chunk's tokens but its first, by what reads them."""
    with_memory = CoMeT.from_pretrained(comet, backbone).merge()
    without = SFT.from_pretrained(sft, backbone).merge()
    full = with_memory.config.chunk_tokens
    books, draw = token_haystacks(backbone, load_books(BOOKS)), random.Random(0)
    pieces = [torch.tensor(books.cut(full * chunks, draw)) for _ in range(texts)]

    def by_comet(ids: Tensor) -> list[Tensor]:
        return [with_memory.logits(outputs) for outputs, _ in with_memory.chunks([ids], [[full] * chunks])]

    readers: dict[str, Callable[[Tensor], Sequence[Tensor]]] = {
        "untuned": lambda ids: [backbone.model(part[None]).logits[0] for part in ids.split(full)],
        "sft": lambda ids: [without.decoder(part[None]).logits[0] for part in ids.split(full)],
        "sft, full": lambda ids: without.decoder(ids[None]).logits[0].split(full),
        "comet": by_comet,
    }
    found = {}
    for name, read in readers.items():
        surprises = [list(map(surprise, read(ids), ids.split(full))) for ids in pieces]
        found[name] = [math.exp(mean(of_chunk)) for of_chunk in zip(*surprises, strict=True)]
        print(name, found[name], flush=True)
    return found


def surprise(logits: Tensor, ids: Tensor) -> float:
    """Mean negative log likelihood of a chunk's tokens but the first, in nats."""
    return nn.functional.cross_entropy(logits[:-1].float(), ids[1:]).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comet", type=Path, required=True)
    parser.add_argument("--sft", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=100, help="pieces of books")
    parser.add_argument("--chunks", type=int, default=4, help="of each piece")
    parser.add_argument("--limit", type=int, default=300, help="questions about paragraphs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "comet_short_text.json")
    args = parser.parse_args()
    backbone = load_backbone()
    found = perplexities(backbone, args.comet, args.sft, args.texts, args.chunks)
    result = evaluate(
        {"full": load_method("full", backbone, args.sft), "comet": load_method("comet", backbone, args.comet)},
        {TASK: load_task(TASK, limit=args.limit)},
        [1.0],
        args.out,
        reader=reader_name(backbone, args.sft),
        backbone=backbone.content_hash,
        notes={"perplexity": found, "texts": args.texts, "limit": args.limit},
    )
    args.out.with_suffix(".table.md").write_text(markdown(result))


if __name__ == "__main__":
    main()
