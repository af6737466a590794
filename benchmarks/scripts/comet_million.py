"""Is a passkey found anywhere in a million tokens?

    python benchmarks/scripts/comet_million.py --out benchmarks/results/comet_million.json

A text of books that nothing was trained on, and in the middle of each part of it in turn a passkey, in place of as many
of its own tokens. Up to there all these texts are the same, so that much is read once. What has been read is kept in
memory files (``--runs``), and a run that was cut off goes on from them; so are the answers of finished texts. Other
weights and other sizes have a folder of their own there.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from measuring import save

from laconic.backbone import load_backbone
from laconic.core.files import write_whole
from laconic.core.results import Compressed
from laconic.data.books import load_books
from laconic.data.generated import BOOKS
from laconic.data.needles import passkey
from laconic.methods.comet.files import SavedMemory, Source, load_memory, save_memory
from laconic.methods.comet.reader import CoMeTReader
from laconic.methods.comet.stream import ChunkStream
from laconic.methods.registry import load_method
from laconic.train.reading_examples import token_haystacks

ROOT = Path(__file__).resolve().parents[2]
#: chunks that are read between two saves
SAVED_CHUNKS = 64


@dataclass
class Reading:
    """A text that is read from its memory file on, as far as one likes.

    Attributes:
        stream: what has been read of it.
    """

    reader: CoMeTReader
    ids: torch.Tensor
    file: Path
    stream: ChunkStream

    @classmethod
    def of(cls, reader: CoMeTReader, ids: torch.Tensor, file: Path, start: ChunkStream) -> Reading:
        """From its own file if there is one, else from a stream that has read the same so far."""
        return cls(reader, ids, file, load_memory(file, reader.comet).stream if file.exists() else start.fork())

    @property
    def done(self) -> int:
        return int(self.stream.memory.counts.tokens[0]) + self.stream.open[0]

    def up_to(self, end: int) -> None:
        portion = SAVED_CHUNKS * self.reader.comet.config.chunk_tokens
        while self.done < end:
            self.stream.read([self.ids[self.done : min(self.done + portion, end)]])
            source = Source(self.file.stem, "", len(self.ids), self.done)
            save_memory(self.file, SavedMemory(self.stream, [source]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=5)
    parser.add_argument("--comet", type=Path, help="a saved method; by default what ships")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "million")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "comet_million.json")
    args = parser.parse_args()
    backbone = load_backbone()
    method = load_method("comet", backbone, args.comet)
    reader = method.reader
    assert isinstance(reader, CoMeTReader)
    runs = args.runs / f"{method.version}-{backbone.dtype}-{args.tokens}-{args.parts}".replace("/", "-")
    runs.mkdir(parents=True, exist_ok=True)
    full, draw = reader.comet.config.chunk_tokens, random.Random(0)
    plain = torch.tensor(token_haystacks(backbone, load_books(BOOKS)).cut(args.tokens, draw))
    before = Reading.of(reader, plain, runs / "plain.memory", ChunkStream(reader.comet))
    rows = []
    for part in range(args.parts):
        needle = passkey(draw)
        said = torch.tensor(backbone.token_ids(needle.sentences[0]))
        place = round(args.tokens * (part + 0.5) / args.parts)
        answered = runs / f"part{part}.json"
        if not answered.exists():
            # whole chunks, so that nothing is open where texts part
            before.up_to(place // full * full)
            ids = torch.cat([plain[:place], said, plain[place + len(said) :]])
            text = Reading.of(reader, ids, runs / f"part{part}.memory", before.stream)
            text.up_to(args.tokens)
            context = Compressed(args.tokens, text.stream.held[0], 1.0, state=text.stream)
            answer = reader.answer(context, needle.question, 8).text
            row = {"depth": place / args.tokens, "wanted": needle.answer, "answer": answer}
            write_whole(answered, json.dumps({**row, "right": answer == needle.answer}))
        rows.append(json.loads(answered.read_text()))
        print(rows[-1], flush=True)
    notes = {"seed": 0, "tokens": args.tokens, "comet": method.version, "dtype": str(backbone.dtype)}
    save(args.out, "comet_million", rows=rows, notes=notes)


if __name__ == "__main__":
    main()
