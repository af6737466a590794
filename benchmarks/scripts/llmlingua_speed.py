"""Word by word beside the package ``llmlingua`` (0.2.2), the same backbone as scorer: seconds, and the ratio delivered.

    python3 -m venv lingua
    lingua/bin/pip install torch==2.13.0 "numpy<2" transformers==4.44.2 accelerate==0.34.2 llmlingua==0.2.2
    python benchmarks/scripts/llmlingua_speed.py --theirs lingua/bin/python --out benchmarks/results/llmlingua.json

It needs an older transformers, so it runs in an environment of its own, one process after the other on the same texts,
each warmed up on a text that is not counted, in float32 and in bfloat16; our word classifier, which needs no scorer,
beside them. Tokens are the backbone's, for the package too, which would fetch another tokenizer from the network to
count with. Single runs; leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RATIO = 0.25
LENGTHS = (134, 300, 1152, 2500, 5550)
QUESTION = "Who bought Solomon Northup in New Orleans?"  # for the classifier; perplexity is asked nothing
DTYPES = ("float32", "bfloat16")
#: how far apart the losses of one scorer may be in two environments
SAME = {"float32": 1e-3, "bfloat16": 0.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--theirs", help="Python of the environment with llmlingua")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run-theirs", nargs=3, metavar=("FOLDER", "TEXTS", "DTYPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_theirs:
        args.out.write_text(json.dumps(theirs(*args.run_theirs)))
        return
    if args.theirs is None or shutil.which(args.theirs) is None:
        parser.error("--theirs must name the Python of an environment with llmlingua; how to make one stands above")
    compare(args.theirs, args.out)


def compare(python: str, out: Path) -> None:
    from laconic.backbone import converted, embedded_gguf, load_backbone
    from laconic.core.files import write_whole
    from laconic.data.documents import read_document
    from laconic.data.loaders import samples_folder
    from laconic.eval.environment import environment
    from laconic.methods.pruning.classifier import Classifier
    from laconic.methods.pruning.perplexity import SelfInformation
    from laconic.methods.pruning.words import WordPruner

    rows: list[dict[str, Any]] = []
    losses = {}
    for dtype in DTYPES:
        backbone = load_backbone(dtype=dtype)
        ids = backbone.token_ids(read_document([str(samples_folder() / "twelve-years-a-slave.txt")]).text)
        warm, *texts = [str(backbone.tokenizer.decode(ids[5000 : 5000 + length])) for length in (200, *LENGTHS)]
        losses[dtype] = loss(backbone.model, backbone.tokenizer, warm)
        pruners: dict[str, WordPruner] = {"laconic, perplexity": SelfInformation(backbone)}
        if dtype == DTYPES[-1]:  # once: it takes bfloat16 where that is quick, whatever the backbone is in
            pruners["laconic, classifier"] = Classifier(backbone)
        for name, pruner in pruners.items():
            pruner.compress(warm, QUESTION, ratio=RATIO)
            for text in texts:
                begun = time.perf_counter()
                found = pruner.compress(text, QUESTION, ratio=RATIO)
                seconds = time.perf_counter() - begun
                rows.append(row(name, dtype, backbone, text, str(found.text), seconds))
    scratch = out.with_suffix(".scratch")
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that failed
    scratch.mkdir(parents=True)
    (scratch / "texts.json").write_text(json.dumps([warm, *texts]))
    folder = older_copy(converted(embedded_gguf()), scratch / "model")
    for dtype in DTYPES:
        told = scratch / f"{dtype}.json"
        asked = ["--run-theirs", folder, str(scratch / "texts.json"), dtype, "--out", str(told)]
        subprocess.run([python, __file__, *asked], check=True, stdout=sys.stderr)
        their = json.loads(told.read_text())
        if abs(losses[dtype] - their["loss"]) > SAME[dtype]:  # an older transformers may read a configuration otherwise
            raise SystemExit(f"The scorers differ: a loss of {losses[dtype]:.4f} here, {their['loss']:.4f} there.")
        for text, one in zip(texts, their["rows"], strict=True):
            rows.append(row("llmlingua", dtype, backbone, text, one["text"], one["seconds"]))
    shutil.rmtree(scratch)
    print(json.dumps(rows, indent=1))
    result = {"rows": rows, "ratio": RATIO, "their versions": their["versions"], "environment": environment()}
    write_whole(out, json.dumps(result, indent=1) + "\n")


def older_copy(folder: Path, target: Path) -> str:
    """The same weights and tokenizer, written as the older transformers and tokenizers read them."""
    shutil.copytree(folder, target)

    def rewrite(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        (target / name).write_text(json.dumps(change(json.loads((target / name).read_text()))))

    def with_joined_merges(tokenizer: dict[str, Any]) -> dict[str, Any]:
        merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
        return tokenizer | {"model": tokenizer["model"] | {"merges": merges}}

    rewrite("tokenizer_config.json", lambda settings: settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
    rewrite("tokenizer.json", with_joined_merges)
    rewrite("config.json", lambda config: config | {"rope_theta": config["rope_parameters"]["rope_theta"]})
    return str(target)


def loss(model: Any, tokenizer: Any, text: str) -> float:
    """The scorer's, by which both environments know that they have the same one."""
    import torch

    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=ids).loss)


def row(name: str, dtype: str, backbone: Any, text: str, left: str, seconds: float) -> dict[str, Any]:
    tokens, kept = backbone.count_tokens(text), backbone.count_tokens(left)
    return {
        "package": name,
        "dtype": dtype,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "delivered": round(kept / tokens, 4),
        "error": round(abs(kept / tokens - RATIO), 4),
    }


def theirs(folder: str, texts: str, dtype: str) -> dict[str, Any]:
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

    compressor = PromptCompressor(model_name=folder, device_map="cpu", model_config={"torch_dtype": dtype})
    rows = []
    warm, *others = json.loads(Path(texts).read_text())
    compressor.compress_prompt([warm], rate=RATIO)
    for text in others:
        begun = time.perf_counter()
        found = compressor.compress_prompt([text], rate=RATIO)
        rows.append({"text": found["compressed_prompt"], "seconds": time.perf_counter() - begun})
        print(len(text), rows[-1]["seconds"], flush=True)
    own = loss(compressor.model, tokenizer, warm)
    return {
        "rows": rows,
        "loss": own,
        "versions": {name: version(name) for name in ("llmlingua", "transformers", "torch")},
    }


if __name__ == "__main__":
    main()
