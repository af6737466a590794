"""Is short text hurt by what CoMeT learnt for long ones, and does its memory help to read on?

    python benchmarks/scripts/comet_short_text.py --out benchmarks/results/comet_short_text.json

Beside CoMeT stands its backbone untuned, and tuned without a memory (``sft``) on those of CoMeT's stages that mix all
tasks, ``told`` among them. Perplexity, of pieces of books that nothing was trained on: the first chunk is short text;
later ones CoMeT reads behind its memory, the others alone or (``sft, full``) behind all of the text. Then answers from
single paragraphs of SQuAD.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measuring import SFT_TOLD
from running_text import Reader, apart, behind_memory, perplexities, pieces

from laconic.backbone import load_backbone
from laconic.data.loaders import load_task
from laconic.eval.report import markdown
from laconic.eval.runner import evaluate
from laconic.methods.comet.reader import CoMeTReader
from laconic.methods.registry import load_method, reader_name
from laconic.methods.sft.model import SFT as TunedDecoder

ROOT = Path(__file__).resolve().parents[2]
TASK = "squad_paragraphs_dev"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comet", type=Path, help="a saved CoMeT; without it the one that ships")
    parser.add_argument("--sft", type=Path, default=SFT_TOLD, help="the backbone tuned without a memory")
    parser.add_argument("--texts", type=int, default=100, help="pieces of books")
    parser.add_argument("--chunks", type=int, default=4, help="of each piece")
    parser.add_argument("--limit", type=int, default=300, help="questions about paragraphs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "comet_short_text.json")
    args = parser.parse_args()
    backbone = load_backbone()
    method = load_method("comet", backbone, args.comet)
    assert isinstance(method.reader, CoMeTReader)
    comet, sft = method.reader.comet, TunedDecoder.from_pretrained(args.sft, backbone).merge()
    full = comet.config.chunk_tokens
    readers: dict[str, Reader] = {
        "untuned": apart(backbone.model, full),
        "sft": apart(sft.decoder, full),
        "sft, full": lambda ids: sft.decoder(ids[None]).logits[0].split(full),
        "comet": behind_memory(comet),
    }
    found = perplexities(readers, pieces(backbone, args.texts, args.chunks * full), full)
    result = evaluate(
        {"full": load_method("full", backbone, args.sft), "comet": method},
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
