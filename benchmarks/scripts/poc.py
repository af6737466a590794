"""What does a floor buy? Predictors of quality against each other, on labelled texts that none was trained on.

    LIST=0.05,0.1,0.15,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9
    laconic label squad_excerpts_dev --limit 100 --ratios $LIST --out benchmarks/labels/squad_dev.json
    laconic label qmsum_excerpts_test --limit 50 --ratios $LIST --out benchmarks/labels/qmsum_test.json
    laconic label nq_multidoc_20_gold_spread --limit 40 --ratios $LIST --out benchmarks/labels/nq.json
    laconic label hotpotqa_train_sample --limit 40 --ratios $LIST --out benchmarks/labels/hotpotqa.json
    laconic label squad_excerpts_dev --method bm25 --limit 60 --ratios $LIST --out benchmarks/labels/squad_dev_bm25.json
    python benchmarks/scripts/poc.py --train benchmarks/labels/{squad,squad_validation,qmsum}.json \\
        --test benchmarks/labels/{squad_dev,qmsum_test,nq,hotpotqa}.json \\
        --elsewhere benchmarks/labels/squad_dev_bm25.json \\
        --seeds runs/poc-cpu-1/method runs/poc-cpu-2/method --out benchmarks/results/poc.json

For P@R every policy is given floors up to 1 and says a ratio for each text; the next gentler ratio that was labelled
(or 1) is what it gets, so that all policies choose among the same contexts and nothing is interpolated. What a floor
and a promise deliver is measured, not looked up: texts are compressed by the whole pipeline, read and scored. How long
a text takes is told too.
``--elsewhere`` has labels of another compressor, to which the predictor, the mean curve and the regression are carried
over as they are, with what the classifier finds. ``--seeds`` are predictors that were trained as the one asked about,
from other seeds; their errors say how far a training matters.
``--train`` needs labels of the validation split too (``laconic label --split validation``), by which the regression's
ridge is picked. Texts that score nothing when whole have no retention; they are left out there and of prediction
errors, and are kept in P@R. Beside the result: pictures of mean score against ratio, and of single curves around their
mean.
"""

from __future__ import annotations

import argparse
import json
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from laconic.backbone import load_backbone
from laconic.core.files import write_whole
from laconic.data.loaders import load_task
from laconic.eval.environment import environment
from laconic.eval.labelling import METRICS, TOGETHER, metric_of
from laconic.eval.pictures import picture
from laconic.eval.tradeoff import Outcomes, best_for_budget, common_range, compare
from laconic.generation.answer import Reader
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.calibration import Promise
from laconic.methods.poc.compressors import compressor_digest, load_steerable
from laconic.methods.poc.labels import Labelled, read_labels, source_of, split_of
from laconic.methods.poc.promises import retention_at, tabled
from laconic.methods.poc.rivals import FeatureCurve, Threshold
from laconic.methods.poc.selection import Curve, select
from laconic.methods.poc.steering import PoC, load_predictor
from laconic.methods.pruning.classifier import Classifier
from laconic.methods.pruning.words import words_of
from laconic.methods.registry import load_method, reader_name

FLOORS = [step / 400 for step in range(1, 401)]  # close together, so that a policy comes to most ratios that it can
#: of the oracle; negative ones for texts that are answered better when a little is cut
PRICES = [*-np.geomspace(4.0, 0.01, 40), 0.0, *np.geomspace(0.01, 4.0, 40)]
#: what is asked of the whole pipeline: floor and promise
ASKED: tuple[tuple[float, Promise], ...] = (
    (0.8, "mean"), (0.9, "mean"), (0.95, "mean"), (1.0, "mean"), (0.9, "risk"), (0.9, "quantile"),
)  # fmt: skip
#: with a ratio for each chunk instead of one for the text, where texts have several
ASKED_EACH = 0.9
DELTA = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", nargs="+", required=True, help="files of labels over one list of ratios")
    parser.add_argument("--train", nargs="+", required=True, help="files of labels the predictor was trained on")
    parser.add_argument("--elsewhere", nargs="+", default=[], help="files of labels of another compressor")
    parser.add_argument("--seeds", nargs="+", default=[], help="saved predictors of other seeds")
    parser.add_argument("--predictor", help="saved predictor [default: shipped]")
    parser.add_argument("--classifier", help="saved classifier [default: shipped]")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    backbone = load_backbone()
    predictor, promises = load_predictor(backbone, args.predictor)
    compressor = load_steerable("classifier", backbone, classifier=args.classifier)
    assert isinstance(compressor, Classifier)
    reader = load_method("full", backbone).reader
    method = PoC(
        compressor,
        predictor,
        promises,
        compressor_digest=compressor_digest("classifier", compressor),
        reader=reader_name(backbone),
        prompt=reader.template,
    )
    (made, trained_on), (made_too, texts) = read_labels(args.train), read_labels(args.test)
    promises.made.require(made, "The labels trained on")
    promises.made.require(made_too, "The labels to test on")
    carried: list[Labelled] = []
    if args.elsewhere:
        there, carried = read_labels(args.elsewhere)
        promises.made.require(replace(there, compressor=made.compressor), "The labels of another compressor")
        if there.compressor == made.compressor:
            raise SystemExit("--elsewhere is for labels of another compressor.")
    shared = {source_of(one.document) for one in trained_on} & {source_of(one.document) for one in [*texts, *carried]}
    if shared:
        raise SystemExit(f"{len(shared)} documents are in both, {sorted(shared)[0]} say")
    known = [one for one in trained_on if one.labels is not None and split_of(one.document) == "train"]
    labels = [one.labels for one in known if one.labels is not None]
    given = {id(one): described(compressor, one) for one in [*trained_on, *texts, *carried]}
    held = [one for one in trained_on if one.labels is not None and split_of(one.document) == "validation"]
    if not held:
        raise SystemExit("No text of the validation split is labelled: the regression's ridge is picked by those.")
    fitted, ridge = best_features(known, held, given)
    threshold = Threshold.fit([given[id(one)][1] for one in known], labels)
    average = AverageCurve.of(labels)
    rows, pictures, seconds = [], {}, []
    timed: set[str] = set()  # a text may be labelled again with another compressor
    others = []
    for folder in args.seeds:
        other, theirs = load_predictor(backbone, folder)
        promises.made.require(theirs.made, f"The predictor in {folder}")
        others.append(other)
    if len({predictor.version, *(other.version for other in others)}) <= len(others):
        raise SystemExit("A predictor is named twice.")

    def curves_of(own: Sequence[Labelled]) -> dict[str, list[Curve]]:
        curves: dict[str, list[Curve]] = {"average": [average for _ in own]}
        curves["features"] = [fitted.curve(given[id(one)][0]) for one in own]
        curves["text"] = []
        for one in own:
            features = compressor.features(one.context, one.question)  # its own pass, which is remembered
            begun = time.perf_counter()
            curves["text"].append(tabled(method.curve(one.context, one.question)))
            if one.id not in timed:
                timed.add(one.id)
                seconds.append((backbone.count_tokens(one.context), time.perf_counter() - begun))
            for place, other in enumerate(others):
                seeded = curves.setdefault(f"text, other seed {place + 1}", [])
                seeded.append(tabled(other.curve(one.context, one.question, features)))
        return curves

    for task in dict.fromkeys(one.task for one in texts):
        own = [one for one in texts if one.task == task]
        row, picture = evaluate(task, own, curves_of(own), [given[id(one)][1] for one in own], threshold)
        row["seen in training"] = family(task) in {family(one.task) for one in known}
        row["delivered"] = delivered(method, reader, own, answers_of(task))
        rows.append(row)
        pictures[task] = picture
        print(json.dumps(row["pr"], indent=1), row["errors"], flush=True)
    elsewhere = []
    for task in dict.fromkeys(one.task for one in carried):
        own = [one for one in carried if one.task == task]
        elsewhere.append(evaluate(task, own, curves_of(own))[0] | {"compressor": there.compressor})
        print(json.dumps(elsewhere[-1]["pr"], indent=1), elsewhere[-1]["errors"], flush=True)
    notes = {
        "test": [Path(name).name for name in args.test],
        "texts trained on": len(known),
        "held out for promises": len(promises.outcomes),
        "ridge of the regression, best on the validation split": ridge,
        "predictor": predictor.version,
        "compressor": getattr(compressor, "version", ""),
        "seconds to predict a text (median)": round(float(np.median([one for _, one in seconds])), 4),
        "seconds to predict a text (p95)": round(float(np.percentile([one for _, one in seconds], 95)), 4),
        "its tokens (median)": float(np.median([tokens for tokens, _ in seconds])),
    }
    result = {"rows": rows, "elsewhere": elsewhere, "notes": notes, "environment": environment()}
    write_whole(args.out, json.dumps(result, indent=1) + "\n")
    draw(pictures, args.out.with_suffix(".png"))


def best_features(
    known: Sequence[Labelled], held: Sequence[Labelled], given: dict[int, Any]
) -> tuple[FeatureCurve, float]:
    """The regression whose ridge does best on texts that neither it nor the predictor was fitted to."""
    labels = [one.labels for one in known if one.labels is not None]
    table = np.stack([given[id(one)][0] for one in known])
    fits = {ridge: FeatureCurve.fit(table, labels, ridge=ridge) for ridge in (1.0, 10.0, 100.0, 1000.0, 10_000.0)}

    def error(fit: FeatureCurve) -> float:
        return float(np.mean([e**2 for one in held for e in errors_of(fit.curve(given[id(one)][0]), one)]))

    best = min(fits, key=lambda ridge: error(fits[ridge]))
    return fits[best], best


def errors_of(curve: Curve, one: Labelled) -> list[float]:
    """What was predicted less what is true, gains counted as 1, at each labelled ratio."""
    ratios = sorted(one.scores)
    true = [min(one.scores[ratio] / one.whole, 1.0) for ratio in ratios]
    return [value - other for value, other in zip(curve(ratios), true, strict=True)]


def described(compressor: Classifier, one: Labelled) -> tuple[Any, list[float]]:
    """Features of a text that the compressor's pass has paid for, and the words' scores."""
    scores = list(compressor.scores(one.context, words_of(one.context), one.question))
    return np.array(compressor.features(one.context, one.question)), scores


def evaluate(
    task: str,
    texts: Sequence[Labelled],
    curves: dict[str, list[Curve]],
    scores: Sequence[Sequence[float]] = (),
    threshold: Threshold | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    grid = Grid(texts)
    measured = [place for place, one in enumerate(texts) if one.labels is not None]
    errors = {}
    for name, own in curves.items():
        apart = [error for place in measured for error in errors_of(own[place], texts[place])]
        errors[name] = {"ppe": round(float(np.square(apart).mean()), 5), "mae": round(float(np.abs(apart).mean()), 4)}
    policies = {
        name: grid.outcomes([[select(curve, floor, policy="safe").ratio for curve in own] for floor in FLOORS])
        for name, own in curves.items()
        if "seed" not in name  # of those the errors are enough
    }
    if threshold is not None:
        policies["threshold"] = grid.outcomes([[threshold.ratio(own, floor) for own in scores] for floor in FLOORS])
    policies["fixed"] = grid.outcomes([[ratio] * len(texts) for ratio in grid.ratios])
    for name, one in best_policies(grid).items():
        policies[name] = one
    reaching = {name: one for name, one in policies.items() if one.points()[0][0] < 1}  # others never compress
    low, high = common_range(reaching)
    pr = {
        name: {"value": round(c.value, 4), "minus fixed": [round(v, 4) for v in (c.difference, c.low, c.high)]}
        for name, c in compare(reaching, "fixed").items()
    }
    row = {
        "task": task,
        "texts": len(texts),
        "score nothing when whole": len(texts) - len(measured),
        "whole": round(float(grid.whole.mean()), 4),
        "errors": errors,
        "range": [round(low, 4), high],
        "pr": pr,
    }
    return row, {"policies": policies, "texts": [one for one in texts if one.labels is not None]}


def family(task: str) -> str:
    """A task without the part of the data that it is of."""
    return task.rpartition("_")[0]


def answers_of(task: str) -> dict[str, list[str]]:
    """Accepted answers by the item's id."""
    return {item.id: item.answers for item in load_task(task)}


def delivered(
    method: PoC, reader: Reader, texts: Sequence[Labelled], answers: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """What became of each floor and promise: the texts compressed, read and scored."""
    score, longest = METRICS[metric_of(texts[0].task)]
    known = [one for one in texts if one.whole > 0]
    # what is left as it was keeps all, by definition; read again in another batch, bfloat16 may answer otherwise
    read = {(one.id, one.context): one.whole for one in known}
    rows = []
    asked: list[tuple[float, Promise, bool]] = [(floor, promise, False) for floor, promise in ASKED]
    if any(len(method.predictor.chunks(one.context, one.question)) > 1 for one in known):
        asked.append((ASKED_EACH, "mean", True))
    for floor, promise, each in asked:
        found = [
            method.compress(
                one.context, one.question, floor=floor, promise=promise, delta=DELTA, each_chunk=each
            ).compressed
            for one in known
        ]
        left = [
            (one, context) for one, context in zip(known, found, strict=True) if (one.id, str(context.text)) not in read
        ]
        for first in range(0, len(left), TOGETHER):
            some = left[first : first + TOGETHER]
            told = reader.answer_batch([context for _, context in some], [one.question for one, _ in some], longest)
            for (one, context), answer in zip(some, told, strict=True):
                read[one.id, str(context.text)] = score(answer.text, answers[one.id])
        kept = [read[one.id, str(context.text)] / one.whole for one, context in zip(known, found, strict=True)]
        row = {
            "floor": floor,
            "promise": promise,
            "each chunk": each,
            "ratio": float(np.mean([context.delivered_ratio for context in found])),
            "mean retention": float(np.mean(kept)),
            "gains as 1": float(np.mean(np.minimum(kept, 1.0))),
            "below": float(np.mean([retention < floor - 1e-9 for retention in kept])),
        }
        rows.append({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()})
        print(texts[0].task, rows[-1], flush=True)
    return rows


def best_policies(grid: Grid) -> dict[str, Outcomes]:
    """What could be had at best, knowing the true scores: for a budget."""
    return {"oracle": best_for_budget(grid.delivered, grid.scores, grid.whole, PRICES)}


class Grid:
    """True scores and delivered ratios of texts at the ratios that all of them were labelled at."""

    def __init__(self, texts: Sequence[Labelled]) -> None:
        self.ratios = sorted(set.intersection(*(set(one.delivered) for one in texts)))
        self.whole = np.array([one.whole for one in texts])
        self.scores = np.array([[one.scores[ratio] for ratio in self.ratios] for one in texts])
        self.delivered = np.array([[one.delivered[ratio] for ratio in self.ratios] for one in texts])

    def outcomes(self, chosen: Sequence[Sequence[float]]) -> Outcomes:
        """Of ratios chosen for each floor and text: the next labelled one from there on, or all of the text."""
        known = np.column_stack([self.scores, self.whole])
        delivered, rows = np.column_stack([self.delivered, np.ones(len(self.whole))]), np.arange(len(self.whole))
        places = np.array([[bisect_left(self.ratios, ratio - 1e-9) for ratio in own] for own in chosen])
        return Outcomes(delivered[rows, places], known[rows, places], self.whole)


def draw(pictures: dict[str, Any], path: Path) -> None:
    size = (4.4 * len(pictures), 8)
    with picture(path, 2, len(pictures), dpi=110, figsize=size, layout="constrained", squeeze=False) as (_, axes):
        for column, (task, shown) in enumerate(pictures.items()):
            for name, one in shown["policies"].items():
                ratios, scores = one.points()
                axes[0, column].plot(ratios, scores, marker=".", label=name, linewidth=1.2)
            axes[0, column].set(title=task, xlabel="delivered ratio", ylabel="score")
            grid = np.linspace(0.05, 1, 40)
            each = [retention_at(one.labels, list(grid)) for one in shown["texts"]]
            for own in each[:60]:
                axes[1, column].plot(grid, np.minimum(own, 1.5), color="grey", alpha=0.2, linewidth=0.8)
            axes[1, column].plot(grid, np.mean(each, axis=0), color="black", label="mean")
            axes[1, column].set(xlabel="ratio", ylabel="retention", title=f"{len(each)} texts")
            for row in (0, 1):
                axes[row, column].grid(alpha=0.3)
                axes[row, column].legend(fontsize=8)


if __name__ == "__main__":
    main()
