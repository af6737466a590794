"""Is short text hurt by what CoMeT learnt for long ones? Beside its backbone tuned on the same examples.

    python benchmarks/scripts/comet_short_text.py --comet runs/comet-cpu/method --sft runs/sft-cpu/method \\
        --out benchmarks/results/comet_short_text.json

Texts of one chunk: perplexity of pieces of books that nothing was trained on, and answers from single paragraphs of
SQuAD. The untuned backbone stands beside both.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

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
def perplexities(backbone: Backbone, comet: Path, sft: Path, texts: int) -> dict[str, float]:
    """Of one chunk's tokens, by what reads them."""
    with_memory = CoMeT.from_pretrained(comet, backbone).merge()
    without = SFT.from_pretrained(sft, backbone).merge()
    full = with_memory.config.chunk_tokens
    books, draw = token_haystacks(backbone, load_books(BOOKS)), random.Random(0)
    pieces = [torch.tensor(books.cut(full, draw)) for _ in range(texts)]

    def by_comet(ids: Tensor) -> Tensor:
        ((outputs, _),) = with_memory.chunks([ids], [[full]])
        return with_memory.logits(outputs)

    readers = {
        "untuned": lambda ids: backbone.model(ids[None]).logits[0],
        "sft": lambda ids: without.decoder(ids[None]).logits[0],
        "comet": by_comet,
    }
    return {name: math.exp(sum(surprise(read(ids), ids) for ids in pieces) / texts) for name, read in readers.items()}


def surprise(logits: Tensor, ids: Tensor) -> float:
    """Mean negative log likelihood of a text's tokens but the first, in nats."""
    return nn.functional.cross_entropy(logits[:-1].float(), ids[1:]).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comet", type=Path, required=True)
    parser.add_argument("--sft", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=100, help="pieces of books")
    parser.add_argument("--limit", type=int, default=300, help="questions about paragraphs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "comet_short_text.json")
    args = parser.parse_args()
    backbone = load_backbone()
    found = perplexities(backbone, args.comet, args.sft, args.texts)
    print(found, flush=True)
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
