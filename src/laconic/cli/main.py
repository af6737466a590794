"""The command line. Commands import what they need when they run, so that help is quick."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from laconic.core.files import task_names
from laconic.errors import LaconicError

app = typer.Typer(
    name="laconic",
    help="Language models made cheap on long inputs and on long reasoning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Backbone = Annotated[str | None, typer.Option(help="Model folder, .gguf file or hub name", show_default="SmolLM2-135M")]
Adapter = Annotated[
    str | None, typer.Option(help='Saved method; "none" for the untuned reader', show_default="shipped")
]
Dtype = Annotated[str, typer.Option(help="auto, bf16, fp32 or fp16")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="What chance follows from")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
Floor = Annotated[float | None, typer.Option(help="Share of the quality to keep: 0.9")]
Promise = Annotated[str, typer.Option(help="What the floor means: mean, risk or quantile")]
Delta = Annotated[float, typer.Option(help="Risk that is left, for risk and quantile")]
Predictor = Annotated[str | None, typer.Option(help="Saved predictor for --floor", show_default="shipped")]
Auto = Annotated[
    bool, typer.Option("--auto", help="Leave the text alone where compressing costs more time than it saves")
]
Protect = Annotated[str, typer.Option(help="Never cut: numbers,names,quotes,code,urls")]
Classifier = Annotated[
    str | None, typer.Option(help="Saved classifier, or LLMLingua-2's folder", show_default="shipped")
]


@app.command()
def ask(
    document: Annotated[
        list[str],
        typer.Argument(
            help="Files (.txt .md .html .pdf .docx .epub), a .memory, or -", default_factory=list, show_default=False
        ),
    ],
    question: Annotated[str, typer.Argument(help="The question")],
    method: Annotated[str | None, typer.Option(help="See `laconic methods`", show_default="ram")] = None,
    factor: Annotated[str, typer.Option(help="How many times shorter; auto: the mildest that fits")] = "auto",
    budget: Annotated[int | None, typer.Option(help="Most context tokens for --factor auto")] = None,
    floor: Floor = None,
    promise: Promise = "mean",
    delta: Delta = 0.1,
    predictor: Predictor = None,
    auto: Auto = False,
    backbone: Backbone = None,
    adapter: Adapter = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer")] = 64,
    dtype: Dtype = "auto",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else")] = False,
) -> None:
    """Answer a question about a document of any length."""
    from laconic.cli.ask import run
    from laconic.cli.ask_request import Request

    # the parser gives a lone argument to the question; who wrote one may have forgotten either
    if not document:
        raise LaconicError(
            f"A document and a question are needed, and only {question!r} is given.",
            'Write `laconic ask BOOK.txt "What ...?"`.',
        )
    request = Request(
        document, question, method, factor, budget, backbone, adapter, max_new_tokens, dtype, device,
        floor, promise, delta, predictor, auto,
    )  # fmt: skip
    run(request, as_json)


@app.command()
def compress(
    document: Annotated[list[str], typer.Argument(help="Files (.txt .md .html .pdf .docx .epub), or - for stdin")],
    query: Annotated[str | None, typer.Option("--query", "-q", help="What will be asked of it")] = None,
    floor: Floor = None,
    ratio: Annotated[float | None, typer.Option(help="Share of the tokens to keep: 0.25")] = None,
    budget: Annotated[int | None, typer.Option(help="Most tokens to keep")] = None,
    promise: Promise = "mean",
    delta: Delta = 0.1,
    policy: Annotated[str, typer.Option(help="safe, or first: the first crossing of a curve")] = "safe",
    each_chunk: Annotated[
        bool, typer.Option("--each-chunk", help="With a floor: cut each part of the text as hard as it bears")
    ] = False,
    method: Annotated[str, typer.Option(help="classifier, selfinfo, contrastive, bm25 or embedding")] = "classifier",
    protect: Protect = "",
    auto: Auto = False,
    out: Annotated[Path | None, typer.Option("--output", "-o", help="File for the text", show_default="stdout")] = None,
    predictor: Predictor = None,
    classifier: Classifier = None,
    backbone: Backbone = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else")] = False,
) -> None:
    """Shorten a document to a quality floor, a ratio or a budget, as text for any language model."""
    from laconic.cli.compress import Request, run

    request = Request(
        documents=document,
        query=query,
        floor=floor,
        ratio=ratio,
        budget=budget,
        promise=promise,
        delta=delta,
        policy=policy,
        each_chunk=each_chunk,
        method=method,
        protect=_kinds(protect),
        auto=auto,
        out=out,
        predictor=predictor,
        classifier=classifier,
        backbone=backbone,
        dtype=dtype,
        device=device,
    )
    run(request, as_json)


@app.command()
def read(
    document: Annotated[list[str], typer.Argument(help="Files (.txt .md .html .pdf .docx .epub), or - for stdin")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Memory file to write, ending in .memory")],
    append: Annotated[bool, typer.Option("--append", help="Add to what the file has read already")] = False,
    backbone: Backbone = None,
    adapter: Adapter = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else")] = False,
) -> None:
    """Read documents of any length into a memory file, to be asked later; goes on where it was interrupted."""
    from laconic.cli.read import run

    run(document, out, append, backbone, adapter, dtype, device, as_json)


@app.command()
def think(
    problem: Annotated[str, typer.Argument(help="What is to be solved, or - for stdin")],
    method: Annotated[
        str, typer.Option(help="vanilla, lightthinker, hybridthinker, memosight; anchors, with an --adapter")
    ] = "hybridthinker",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest solution")] = 1024,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest word each time")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: words said before become less likely")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the solution; may be given again")] = None,
    seed: Seed = 0,
    backbone: Backbone = None,
    adapter: Annotated[str | None, typer.Option(help="Saved method", show_default="shipped")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else")] = False,
) -> None:
    """Solve a problem step by step; all methods but vanilla compress finished steps."""
    from laconic.cli.think import Request, run

    request = Request(
        problem=problem,
        method=method,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        repetition_penalty=repetition_penalty,
        stop=stop or [],
        seed=seed,
        backbone=backbone,
        adapter=adapter,
        dtype=dtype,
        device=device,
    )
    run(request, as_json)


@app.command("eval")
def eval_(
    task: Annotated[
        list[str],
        typer.Argument(
            help="Task names, or .jsonl files with document, question, answers; of problems: question, answer",
            callback=task_names,
        ),
    ],
    method: Annotated[str, typer.Option(help="Names, separated by commas; all read, or all reason")] = "ram,bm25",
    factor: Annotated[str | None, typer.Option(help="Factors, separated by commas", show_default="4,8")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Items a task, drawn evenly over its documents", show_default="all; 50 puzzles"),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Methods the others are compared to, item by item", show_default="full")
    ] = None,
    out: Annotated[Path, typer.Option("--json", help="Where to write the result")] = Path("runs/eval.json"),
    data: Annotated[str | None, typer.Option(help="Folder of the task files", show_default="$LACONIC_DATA")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, show_default="32; of methods that reason 512")] = None,
    seed: Seed = 0,
    backbone: Backbone = None,
    adapter: Adapter = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Compare methods on tasks at several factors; a run that was cut off goes on where it stopped.

    Methods that reason (vanilla, hybridthinker, ...) are asked problems, which have no factors.
    """
    from laconic.cli import evaluate, evaluate_reasoning

    methods = method.split(",")
    if evaluate_reasoning.reasons(methods):
        evaluate_reasoning.run(
            task, methods, out, limit=limit, data=data, batch_size=batch_size, max_new_tokens=max_new_tokens or 512,
            seed=seed, backbone=backbone, adapter=adapter, dtype=dtype, device=device,
            of_reading={"factor": factor, "against": against},
        )  # fmt: skip
        return
    evaluate.run(
        task, methods, factor or "4,8", out, limit=limit, data=data, batch_size=batch_size,
        max_new_tokens=max_new_tokens or 32, seed=seed, backbone=backbone, adapter=adapter,
        against=against.split(",") if against else [], dtype=dtype, device=device,
    )  # fmt: skip


@app.command()
def write(
    task: Annotated[
        list[str],
        typer.Argument(help="shuffle-4 and such, gsm8k_train, or .jsonl files of problems", callback=task_names),
    ],
    out: Annotated[Path, typer.Option("--out", help="Where to write the solutions")] = Path("runs/written.jsonl"),
    method: Annotated[str, typer.Option(help="Who solves; see `laconic methods`")] = "vanilla",
    limit: Annotated[int | None, typer.Option(min=1, help="Problems a task", show_default="all; 50 puzzles")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Solutions drawn of each problem")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest word each time")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest solution")] = 512,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    data: Annotated[str | None, typer.Option(help="Folder of the task files", show_default="$LACONIC_DATA")] = None,
    seed: Seed = 0,
    backbone: Backbone = None,
    adapter: Annotated[str | None, typer.Option(help="Saved method", show_default="shipped")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Write down a method's right solutions for another to be trained on; a run that was cut off goes on."""
    from laconic.cli.write import run
    from laconic.eval.writing import Drawing

    drawing = Drawing(samples, temperature, max_new_tokens, batch_size, seed)
    run(
        task, method, out, drawing, limit=limit, data=data, backbone=backbone, adapter=adapter, dtype=dtype,
        device=device,
    )  # fmt: skip


@app.command()
def label(
    task: Annotated[
        list[str],
        typer.Argument(help="Task names, or .jsonl files with document, question, answers", callback=task_names),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where to write the labels", show_default="runs/labels.json; with the shard's number"
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="The compressor that will be steered")] = "classifier",
    ratios: Annotated[str, typer.Option(help="So many drawn for each text, or a list: 0.1,0.3,0.5")] = "8",
    limit: Annotated[int | None, typer.Option(min=1, help="Texts a task, drawn evenly over its documents")] = None,
    shard: Annotated[str, typer.Option(help="0/2: the first of two runs that share the work")] = "0/1",
    split: Annotated[str | None, typer.Option(help="Only train, validation or calibration", show_default="all")] = None,
    data: Annotated[str | None, typer.Option(help="Folder of the task files", show_default="$LACONIC_DATA")] = None,
    seed: Seed = 0,
    classifier: Classifier = None,
    protect: Protect = "",
    backbone: Backbone = None,
    adapter: Adapter = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Label texts for a predictor: how a reader scores on them whole and compressed; goes on where it was cut off."""
    from laconic.cli.label import labels_of, run

    run(
        task, method, ratios, out or labels_of(shard), limit=limit, shard=shard, split=split, data=data, seed=seed,
        classifier=classifier, protect=_kinds(protect), backbone=backbone, adapter=adapter, dtype=dtype, device=device,
    )  # fmt: skip


@app.command()
def profile(
    method: Annotated[str, typer.Option(help="The compressor")] = "classifier",
    lengths: Annotated[str, typer.Option(help="Tokens, separated by commas")] = "32,128,512,2048",
    answer: Annotated[int, typer.Option(min=0, help="Tokens of an answer")] = 32,
    out: Annotated[Path | None, typer.Option("--json", help="Leave the figures there too, and the map as PNG")] = None,
    classifier: Classifier = None,
    backbone: Backbone = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Measure where compression pays on this machine; `--auto` goes by it."""
    from laconic.cli.profile import run

    run(method, lengths, answer, out, classifier=classifier, backbone=backbone, dtype=dtype, device=device)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, see recipes/")],
    override: Annotated[list[str] | None, typer.Argument(help="key=value, nested keys with dots")] = None,
) -> None:
    """Train a method from a recipe; run it again to go on after a kill."""
    from laconic.train.recipe import run_recipe

    run_recipe(recipe, override or [])


@app.command()
def methods() -> None:
    """List the methods."""
    from laconic.cli.info import show_methods

    show_methods()


@app.command()
def info() -> None:
    """Show versions, device, weights and adapters."""
    from laconic.cli.info import show_info

    show_info()


def _kinds(text: str) -> tuple[str, ...]:
    return tuple(kind.strip() for kind in text.split(",") if kind.strip())


# Typer's click (its own copy in newer versions) is private; what its public BadParameter descends from is not
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line: a user's error is one line and status 2, an interrupt status 130.

    Output that cannot be written (a full disk) is such an error; a reader that has seen enough (``| head``) is none.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict" and sys.stdout.isatty():
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know a text's characters
    try:
        status = app(standalone_mode=False, prog_name="laconic")
        if sys.stdout is not None:  # closed; then nobody wants to hear
            sys.stdout.flush()  # what cannot be written is found out here, and not when Python ends
        sys.exit(status)
    except LaconicError as error:
        _refuse(str(error))
    except _UsageError as error:
        if len(sys.argv) == 1:  # its message is the whole help
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        command = error.ctx.command_path if error.ctx else "laconic"  # type: ignore[attr-defined]
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        _refuse(f"{message}. See `{command} --help`.")
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except UnicodeEncodeError as error:  # a file or a pipe gets a text as it is, or not at all
        character = error.object[error.start : error.start + 1]
        _refuse(f"The output is {error.encoding} and has no {character!r}. Set PYTHONIOENCODING=utf-8.")
    except OSError as error:
        _leave_output()
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        _refuse(f"{error}.")


def _leave_output() -> None:
    """Python writes what is left when it ends; let it go nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
