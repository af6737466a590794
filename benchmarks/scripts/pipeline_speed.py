"""The pipeline over chunks on two processes: how much of two processes' work does it turn into speed?

    python benchmarks/scripts/pipeline_speed.py --out benchmarks/results/pipeline_speed.json

Three times, forward and back: one process on all chunks; two processes that do half of them each and do not talk, which
is what the machine can give; two processes in the pipeline. Utilisation is the second over the third, the median of
pairs that ran one after the other, with the least and the most, as a machine has better and worse seconds. The ideal of
the schedule is L / (L + P - 1); ``simulate`` says what is left of it with uneven chunks and slow links, for any number
of processes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from measuring import environment

from laconic.backbone import load_backbone
from laconic.core.files import write_whole
from laconic.methods.comet.config import CoMeTConfig
from laconic.methods.comet.model import CoMeT
from laconic.train.pipeline import ChunkPipeline

CHUNK, ROWS, PROCESSES = 64, 4, 2
REPEATS = 7


def simulate(layers: int, work: Sequence[float], link: float = 0.0) -> float:
    """Utilisation of a forward pass: the work done over the time all processes are held.

    Args:
        work: seconds that each process needs for one layer on its chunks.
        link: seconds from a memory's leaving to its arrival.
    """
    arrived = [0.0] * layers
    finish = 0.0
    for seconds in work:
        clock, left = 0.0, []
        for layer in range(layers):
            clock = max(clock, arrived[layer]) + seconds
            left.append(clock + link)
        arrived, finish = left, max(finish, clock)
    return layers * sum(work) / (len(work) * finish)


def made() -> CoMeT:
    torch.manual_seed(0)
    config = CoMeTConfig(chunk_tokens=CHUNK, global_slots=16, fifo_slots=64)
    return CoMeT(load_backbone(), config).train()


def step(model: CoMeT, rows: list[torch.Tensor], plans: list[list[int]]) -> None:
    total = torch.zeros(())
    for outputs, _ in model.chunks(rows, plans):
        total = total + model.logits(outputs[-1:]).float().square().mean()
    total.backward()


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def texts(chunks: int) -> tuple[list[torch.Tensor], list[list[int]]]:
    rows = list(torch.randint(100, 40_000, (ROWS, chunks * CHUNK)))
    return rows, [[CHUNK] * chunks] * ROWS


def work(rank: int, port: int, chunks: int, out: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    model = made()
    pipeline = ChunkPipeline(model)

    def shared() -> None:
        rows, plans = texts(chunks)
        loss = pipeline.loss(rows, plans, lambda _, outputs: model.logits(outputs[-1:]).float().square().mean())
        loss.backward()

    def apart() -> None:
        step(model, *texts(chunks // PROCESSES))

    def together(task: Callable[[], None]) -> float:
        def everybody() -> None:
            task()
            dist.barrier()

        dist.barrier()
        return timed(everybody)

    pairs = [(together(apart), together(shared)) for _ in range(REPEATS + 1)]
    if rank == 0:
        Path(out).write_text(json.dumps(pairs[1:]))  # the first warms up
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pipeline_speed.json"))
    args = parser.parse_args()
    model = made()
    layers = len(model.stack)
    torch.set_num_threads(1)
    rows = []
    for chunks in args.chunks:
        one = [timed(partial(step, model, *texts(chunks))) for _ in range(3)][1:]
        with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            mp.spawn(work, (port, chunks, f"{folder}/times"), nprocs=PROCESSES)
            pairs = json.loads(Path(folder, "times").read_text())
        shares = sorted(apart / shared for apart, shared in pairs)
        rows.append(
            {
                "chunks": chunks,
                "one_process_s": statistics.median(one),
                "apart_s": statistics.median(apart for apart, _ in pairs),
                "pipeline_s": statistics.median(shared for _, shared in pairs),
                "utilisation": statistics.median(shares),
                "utilisation_least": shares[0],
                "utilisation_most": shares[-1],
            }
        )
        print(rows[-1], flush=True)
    ideal = layers / (layers + PROCESSES - 1)
    result = {
        "benchmark": "pipeline_speed",
        "layers": layers,
        "processes": PROCESSES,
        "repeats": REPEATS,
        "ideal": ideal,
        "rows": rows,
        "simulated": {str(p): simulate(layers, [1.0] * p) for p in (2, 4, 8, 16)},
        "environment": environment() | {"dtype": str(model.decoder.dtype)},
    }
    write_whole(args.out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
