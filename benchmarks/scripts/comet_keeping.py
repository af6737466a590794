"""Where does CoMeT lose a fact: in the writing, or in the keeping? And does its memory help to read on?

    python benchmarks/scripts/comet_keeping.py --cells 0:0 0:1 0:8 0:24 28:0 --out benchmarks/results/comet_keeping.json

A passkey lies anywhere in one full chunk; so many full chunks of a book before it, so many between it and the question.
A cell ``28:0`` has 28 before and none between. An answer is right when each of its tokens is the likeliest behind the
true ones before it. Several saved methods can be set side by side (``--comet NAME=FOLDER ...``), such as the
method behind each stage of a training.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from measuring import save
from running_text import apart, behind_memory, perplexities, pieces

from laconic.backbone import Backbone, load_backbone
from laconic.data.books import load_books
from laconic.data.generated import BOOKS
from laconic.data.needles import NEEDLES
from laconic.methods.comet.model import CoMeT
from laconic.methods.registry import shipped_adapter
from laconic.train.comet import ReadingStage
from laconic.train.examples import Example, conversation
from laconic.train.reading_examples import token_haystacks

ROOT = Path(__file__).resolve().parents[2]
#: texts read at once
ROWS = 4


def texts(backbone: Backbone, full: int, before: int, between: int, count: int) -> list[Example]:
    books, draw = token_haystacks(backbone, load_books(BOOKS)), random.Random(0)

    def filler(tokens: int) -> list[int]:
        return list(books.cut(tokens, draw)) if tokens else []

    made = []
    for _ in range(count):
        needle = NEEDLES["passkey"](draw)
        said = backbone.token_ids(needle.sentences[0])
        place = draw.randrange(1, full - len(said))
        chunk = [*filler(place), *said, *filler(full - len(said) - place)]
        text = [*filler(full * before), *chunk, *filler(full * between)]
        pairs = [(needle.question, needle.answer)]
        made.append(conversation(backbone, text, [full] * (before + 1 + between), pairs, full))
    return made


@torch.inference_mode()
def passkeys(comet: CoMeT, before: int, between: int, count: int) -> dict[str, float]:
    """Answers that are right, and the mean loss of their tokens."""
    stage = ReadingStage(comet)
    right = loss = 0.0
    examples = texts(comet.backbone, comet.config.chunk_tokens, before, between, count)
    for start in range(0, count, ROWS):
        batch = examples[start : start + ROWS]
        of_batch, numbers = stage(batch)
        right += numbers["exact"] * len(batch)
        loss += of_batch.item() * len(batch) / count
    return {"before": before, "between": between, "right": round(right), "asked": count, "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comet", nargs="*", default=[], metavar="NAME=FOLDER", help="by default what ships")
    parser.add_argument("--cells", nargs="+", required=True, metavar="BEFORE:BETWEEN", help="in full chunks")
    parser.add_argument("--count", type=int, default=12, help="passkeys of each cell")
    parser.add_argument("--texts", type=int, default=10, help="pieces of four chunks of running text")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "comet_keeping.json")
    args = parser.parse_args()
    backbone = load_backbone()
    folders = dict(given.split("=", 1) for given in args.comet) or {"shipped": shipped_adapter(backbone, "comet")}
    methods = {name: CoMeT.from_pretrained(folder, backbone).merge() for name, folder in folders.items()}
    rows = []
    for name, comet in methods.items():
        for before, between in (map(int, cell.split(":")) for cell in args.cells):
            rows.append({"method": name, **passkeys(comet, before, between, args.count)})
            print(rows[-1], flush=True)
    full = next(iter(methods.values())).config.chunk_tokens
    readers = {"untuned": apart(backbone.model, full), **{name: behind_memory(c) for name, c in methods.items()}}
    found = perplexities(readers, pieces(backbone, args.texts, 4 * full), full)
    versions = {name: comet.version for name, comet in methods.items()}
    notes = {"seed": 0, "texts": args.texts, "methods": versions, "backbone": backbone.content_hash}
    save(args.out, "comet_keeping", rows=rows, perplexity=found, notes=notes)


if __name__ == "__main__":
    main()
