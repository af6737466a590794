"""What does a floor buy? Predictors of quality against each other, on labelled texts that none was trained on.

    laconic label squad_excerpts_dev --limit 120 --ratios 0.05,0.1,0.15,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9 \\
        --out runs/labels/squad_dev.json        # and so on for every task, see recipes/poc/cpu.yaml
    python benchmarks/scripts/poc.py --test runs/labels/squad_dev.json ... --train runs/labels/squad.json ... \\
        --out benchmarks/results/poc.json

Every policy is given floors from 0.5 to 1 and says a ratio for each text; the next gentler ratio that was labelled (or
1) is what it gets, so that all policies choose among the same contexts and nothing is interpolated. Texts that score
nothing when whole have no retention and are left out of prediction errors and violations, and are kept in P@R.
Beside the result: pictures of mean score against delivered ratio, and of single curves around their mean.
"""

from __future__ import annotations

import argparse
import json
import time
from bisect import bisect_left
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from laconic.backbone import load_backbone
from laconic.core.files import write_whole
from laconic.eval.environment import environment
from laconic.eval.tradeoff import Outcomes, best_for_budget, common_range, compare, violations
from laconic.methods.poc.average import AverageCurve
from laconic.methods.poc.compressors import load_steerable
from laconic.methods.poc.labels import Labelled, read_labels, split_of
from laconic.methods.poc.promises import retention_at, tabled
from laconic.methods.poc.rivals import FeatureCurve, Threshold, features
from laconic.methods.poc.selection import Curve, select
from laconic.methods.poc.steering import load_predictor
from laconic.methods.pruning.words import WordPruner, words_of

FLOORS = [round(0.5 + 0.02 * step, 2) for step in range(26)]
PRICES = [0.0, *np.geomspace(0.01, 4.0, 40)]
NAMED = (0.8, 0.9, 0.95, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", nargs="+", required=True, help="files of labels over one list of ratios")
    parser.add_argument("--train", nargs="+", required=True, help="files of labels the predictor was trained on")
    parser.add_argument("--predictor", help="saved predictor [default: shipped]")
    parser.add_argument("--classifier", help="saved classifier [default: shipped]")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    backbone = load_backbone()
    predictor, promises = load_predictor(backbone, args.predictor)
    compressor = load_steerable("classifier", backbone, classifier=args.classifier)
    assert isinstance(compressor, WordPruner)
    trained_on, texts = read_labels(args.train)[1], read_labels(args.test)[1]
    known = [one for one in trained_on if one.labels is not None and split_of(one.document) == "train"]
    labels = [one.labels for one in known if one.labels is not None]
    given = {id(one): described(compressor, one) for one in [*known, *texts]}
    fitted = FeatureCurve.fit(np.stack([given[id(one)][0] for one in known]), labels)
    threshold = Threshold.fit([given[id(one)][1] for one in known], labels)
    average = AverageCurve.of(labels)
    rows, pictures, seconds = [], {}, []
    for task in dict.fromkeys(one.task for one in texts):
        own = [one for one in texts if one.task == task]
        curves: dict[str, list[Curve]] = {"average": [average for _ in own]}
        curves["features"] = [fitted.curve(given[id(one)][0]) for one in own]
        curves["text"] = []
        for one in own:
            begun = time.perf_counter()
            curves["text"].append(tabled(predictor.curve(one.context, one.question)))
            seconds.append((backbone.count_tokens(one.context), time.perf_counter() - begun))
        row, picture = evaluate(task, own, curves, [given[id(one)][1] for one in own], threshold, promises)
        rows.append(row)
        pictures[task] = picture
        print(json.dumps(row["pr"], indent=1), row["errors"], flush=True)
    notes = {
        "test": [Path(name).name for name in args.test],
        "texts trained on": len(known),
        "held out for promises": len(promises.outcomes),
        "predictor": predictor.version,
        "compressor": getattr(compressor, "version", ""),
        "seconds to predict a text (median)": round(float(np.median([one for _, one in seconds])), 4),
        "its tokens (median)": float(np.median([tokens for tokens, _ in seconds])),
    }
    result = {"rows": rows, "notes": notes, "environment": environment()}
    write_whole(args.out, json.dumps(result, indent=1) + "\n")
    draw(pictures, args.out.with_suffix(".png"))


def described(compressor: WordPruner, one: Labelled) -> tuple[Any, list[float]]:
    """Features of a text that the compressor's pass has paid for, and the words' scores."""
    scores = list(compressor.scores(one.context, words_of(one.context), one.question))
    return features(one.context, scores), scores


def evaluate(
    task: str,
    texts: Sequence[Labelled],
    curves: dict[str, list[Curve]],
    scores: Sequence[Sequence[float]],
    threshold: Threshold,
    promises: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    grid = Grid(texts)
    measured = [place for place, one in enumerate(texts) if one.labels is not None]
    errors = {}
    for name, own in curves.items():
        apart = [
            value - min(max(score / texts[place].whole, 0.0), 1.0)
            for place in measured
            for value, score in zip(own[place](grid.ratios), grid.scores[place], strict=True)
        ]
        errors[name] = {"ppe": round(float(np.square(apart).mean()), 5), "mae": round(float(np.abs(apart).mean()), 4)}
    policies = {
        name: grid.outcomes([[select(curve, floor, policy="safe").ratio for curve in own] for floor in FLOORS])
        for name, own in curves.items()
    }
    policies["threshold"] = grid.outcomes([[threshold.ratio(own, floor) for own in scores] for floor in FLOORS])
    policies["fixed"] = grid.outcomes([[ratio] * len(texts) for ratio in grid.ratios])
    for name, one in best_policies(grid).items():
        policies[name] = one
    low, high = common_range(policies)
    pr = {
        name: {"value": round(c.value, 4), "minus fixed": [round(v, 4) for v in (c.difference, c.low, c.high)]}
        for name, c in compare(policies, "fixed").items()
    }
    kept = {}
    for name in ("average", "features", "text", "threshold"):
        below = violations(policies[name], FLOORS)
        kept[name] = {
            str(floor): {
                "ratio": round(float(policies[name].ratios[place].mean()), 4),
                "below": round(below[place][0], 4),
                "mean retention missing": round(below[place][1], 4),
                "score": round(float(policies[name].scores[place].mean()), 4),
            }
            for place, floor in enumerate(FLOORS)
            if floor in NAMED
        }
    row = {
        "task": task,
        "texts": len(texts),
        "score nothing when whole": len(texts) - len(measured),
        "whole": round(float(grid.whole.mean()), 4),
        "errors": errors,
        "range": [round(low, 4), high],
        "pr": pr,
        "floors": kept,
        "promises": promised(grid, curves["text"], promises),
    }
    return row, {"policies": policies, "texts": [one for one in texts if one.labels is not None]}


def promised(grid: Grid, curves: Sequence[Curve], promises: Any) -> dict[str, Any]:
    """What became of promises made for a floor of 0.9 on these texts."""
    found = {}
    for promise in ("mean", "risk", "quantile"):
        aim = 0.9 + promises.margin(0.9, promise, 0.1)
        one = grid.outcomes([[select(curve, aim, policy="safe").ratio if aim <= 1 else 1.0 for curve in curves]])
        known = one.whole > 0
        retention = np.minimum(one.scores[0][known] / one.whole[known], 1.0)
        found[promise] = {
            "margin": round(aim - 0.9, 3),
            "ratio": round(float(one.ratios.mean()), 4),
            "mean retention": round(float(retention.mean()), 4),
            "below the floor": round(float((retention < 0.9 - 1e-9).mean()), 4),
        }
    return found


def best_policies(grid: Grid) -> dict[str, Outcomes]:
    """What could be had at best, knowing the true scores: for a budget."""
    places = np.array(grid.ratios)
    return {"oracle": best_for_budget(places, grid.scores, grid.whole, PRICES)}


class Grid:
    """True scores and delivered ratios of texts at the ratios that all of them were labelled at."""

    def __init__(self, texts: Sequence[Labelled]) -> None:
        self.ratios = sorted(set.intersection(*(set(one.delivered) for one in texts)))
        self.whole = np.array([one.whole for one in texts])
        self.scores = np.array([[one.scores[ratio] for ratio in self.ratios] for one in texts])

    def outcomes(self, chosen: Sequence[Sequence[float]]) -> Outcomes:
        """Of ratios chosen for each floor and text: the next labelled one from there on, or all of the text."""
        known = np.column_stack([self.scores, self.whole])
        grid = np.array([*self.ratios, 1.0])
        places = np.array([[bisect_left(self.ratios, ratio - 1e-9) for ratio in own] for own in chosen])
        return Outcomes(grid[places], known[np.arange(len(self.whole)), places], self.whole)


def draw(pictures: dict[str, Any], path: Path) -> None:
    import matplotlib  # an extra

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(pictures), figsize=(4.4 * len(pictures), 8), layout="constrained", squeeze=False
    )
    for column, (task, picture) in enumerate(pictures.items()):
        for name, one in picture["policies"].items():
            ratios, scores = one.points()
            axes[0, column].plot(ratios, scores, marker=".", label=name, linewidth=1.2)
        axes[0, column].set(title=task, xlabel="delivered ratio", ylabel="score")
        grid = np.linspace(0.05, 1, 40)
        each = [retention_at(one.labels, grid) for one in picture["texts"]]
        for own in each[:60]:
            axes[1, column].plot(grid, np.minimum(own, 1.5), color="grey", alpha=0.2, linewidth=0.8)
        axes[1, column].plot(grid, np.mean(each, axis=0), color="black", label="mean")
        axes[1, column].set(xlabel="ratio", ylabel="retention", title=f"{len(each)} texts")
        for row in (0, 1):
            axes[row, column].grid(alpha=0.3)
            axes[row, column].legend(fontsize=8)
    image = BytesIO()
    figure.savefig(image, format="png", dpi=110)
    pyplot.close(figure)
    write_whole(path, image.getvalue())


if __name__ == "__main__":
    main()
