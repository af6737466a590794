"""How many updates until a student says what its teacher says, by how far apart they begin?

    python benchmarks/scripts/divergence_toy.py --out benchmarks/results/divergence_toy.json

The smallest case that tells guidance from reverse KL (TGPO's specification, section 1): two tokens, a teacher that has
0.99 on one of them, a student that gives it epsilon; gradient steps of 0.5 on the logits, without sampling, until the
student gives it more than a half. Exact divergences of the whole distribution, so nothing here is noise.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from laconic.core.files import write_whole
from laconic.eval.environment import environment
from laconic.losses.distillation import divergence, guidance

TEACHER = torch.tensor([0.99, 0.01], dtype=torch.float64).log()
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "guidance (TGPO)": lambda z: guidance(z.log_softmax(-1)[0]),
    "forward KL": lambda z: divergence(z[None], TEACHER[None], 0.0)[0],
    "JSD, beta 0.5": lambda z: divergence(z[None], TEACHER[None], 0.5)[0],
    "reverse KL": lambda z: divergence(z[None], TEACHER[None], 1.0)[0],
}
STEP, MOST = 0.5, 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsilons", nargs="+", type=float, default=[1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [
        {"loss": name, "updates": {f"{epsilon:g}": updates(loss, epsilon) for epsilon in args.epsilons}}
        for name, loss in LOSSES.items()
    ]
    for row in rows:
        print(row["loss"], row["updates"])
    result = {"rows": rows, "step": STEP, "teacher": 0.99, "environment": environment()}
    write_whole(args.out, json.dumps(result, indent=1) + "\n")


def updates(loss: Callable[[Tensor], Tensor], epsilon: float) -> int | None:
    """How many it takes; None: more than anybody would wait for."""
    z = torch.tensor([math.log(epsilon), math.log1p(-epsilon)], dtype=torch.float64)
    for count in range(1, MOST + 1):
        z = z.requires_grad_()
        (grad,) = torch.autograd.grad(loss(z), z)
        z = (z - STEP * grad).detach()
        if z.softmax(-1)[0] > 0.5:
            return count
    return None


if __name__ == "__main__":
    main()
