"""Word by word beside the package ``llmlingua`` (0.2.2), the same backbone as scorer: seconds, and the ratio delivered.

    python3 -m venv lingua
    lingua/bin/pip install torch==2.13.0 "numpy<2" transformers==4.44.2 accelerate==0.34.2 llmlingua==0.2.2
    python benchmarks/scripts/llmlingua_speed.py --theirs lingua/bin/python --out benchmarks/results/llmlingua.json

It needs an older transformers, so it runs in an environment of its own, one process after the other on the same texts,
each warmed up on a text that is not counted. Tokens are the backbone's, for the package too, which would fetch another
tokenizer from the network to count with. Single runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RATIO = 0.25
LENGTHS = (134, 300, 1152, 2500, 5550)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--theirs", help="Python of the environment with llmlingua")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run-theirs", nargs=2, metavar=("FOLDER", "TEXTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_theirs:
        args.out.write_text(json.dumps(theirs(*args.run_theirs)))
        return
    compare(args.theirs, args.out)


def compare(python: str, out: Path) -> None:
    from laconic.backbone import converted, embedded_gguf, load_backbone
    from laconic.core.files import write_whole
    from laconic.data.documents import read_document
    from laconic.data.loaders import samples_folder
    from laconic.eval.environment import environment
    from laconic.methods.pruning.perplexity import SelfInformation

    backbone = load_backbone(dtype="fp32")
    ids = backbone.token_ids(read_document([str(samples_folder() / "twelve-years-a-slave.txt")]).text)
    texts = [str(backbone.tokenizer.decode(ids[5000 : 5000 + length])) for length in LENGTHS]
    pruner = SelfInformation(backbone)
    pruner.compress(str(backbone.tokenizer.decode(ids[:200])), ratio=RATIO)
    rows: list[dict[str, Any]] = []
    for text in texts:
        begun = time.perf_counter()
        found = pruner.compress(text, ratio=RATIO)
        rows.append(row("laconic", backbone, text, str(found.text), time.perf_counter() - begun))
    scratch = out.with_suffix(".scratch")
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "texts.json").write_text(json.dumps([str(backbone.tokenizer.decode(ids[:200])), *texts]))
    folder = older_copy(converted(embedded_gguf()), scratch / "model")
    command = [
        python,
        __file__,
        "--run-theirs",
        folder,
        str(scratch / "texts.json"),
        "--out",
        str(scratch / "their.json"),
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    their = json.loads((scratch / "their.json").read_text())
    for text, one in zip(texts, their["rows"][1:], strict=True):
        rows.append(row("llmlingua", backbone, text, one["text"], one["seconds"]))
    shutil.rmtree(scratch)
    print(json.dumps(rows, indent=1))
    result = {"rows": rows, "ratio": RATIO, "their versions": their["versions"], "environment": environment()}
    write_whole(out, json.dumps(result, indent=1) + "\n")


def older_copy(folder: Path, target: Path) -> str:
    """The same weights and tokenizer, named as the older transformers knows them."""
    shutil.copytree(folder, target)
    path = target / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(settings))
    return str(target)


def row(name: str, backbone: Any, text: str, left: str, seconds: float) -> dict[str, Any]:
    tokens, kept = backbone.count_tokens(text), backbone.count_tokens(left)
    return {
        "package": name,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "delivered": round(kept / tokens, 4),
        "error": round(abs(kept / tokens - RATIO), 4),
    }


def theirs(folder: str, texts: str) -> dict[str, Any]:
    """In the other environment: the package's own way to compress one context."""
    from importlib.metadata import version

    import tiktoken
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    class Counting:
        def encode(self, text: str, **_: Any) -> list[int]:
            return tokenizer(text, add_special_tokens=False)["input_ids"]

    tiktoken.encoding_for_model = lambda name: Counting()
    from llmlingua import PromptCompressor

    compressor = PromptCompressor(model_name=folder, device_map="cpu", model_config={"torch_dtype": "float32"})
    rows = []
    for text in json.loads(Path(texts).read_text()):
        begun = time.perf_counter()
        found = compressor.compress_prompt([text], rate=RATIO)
        rows.append({"text": found["compressed_prompt"], "seconds": time.perf_counter() - begun})
        print(len(text), rows[-1]["seconds"], flush=True)
    return {"rows": rows, "versions": {name: version(name) for name in ("llmlingua", "transformers", "torch")}}


if __name__ == "__main__":
    main()
