"""One training loop for every method: Accelerate, AdamW, cosine schedule, checkpoints that resume exactly.

A task makes the batch of any step from the step's number alone, so nothing about the data has to be saved: a run that
was killed continues with the very batches it would have seen.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import Tensor, nn

from laconic.core.files import whole_file, write_whole
from laconic.errors import RecipeError
from laconic.train.checks import above_zero, positive


class Task(Protocol):
    """What a stage of training trains, and on what.

    Attributes:
        module: its ``forward(batch)`` gives the batch's mean loss and a dict of numbers to log; a loss with parts that
            are means over different labels is a vector of them, and their sum is what is minimised.
        synchronise: joins the gradients of processes that all work on one batch; None where each has batches of its own
            and Accelerate joins them.
    """

    module: nn.Module
    synchronise: Callable[[], None] | None

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]: ...

    def batch(self, step: int, rank: int, world: int) -> Any: ...

    def weight(self, batch: Any) -> float | Sequence[float]:
        """What its loss is the mean of, as the number of labels: batches of one step count by it.

        A number for each part, where the loss is a vector.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Length, pace and safety of a run.

    Attributes:
        autocast: compute in bfloat16, whatever the weights are: float32 ones keep the optimiser's small steps.
    """

    steps: int
    learning_rate: float = 1e-4
    warmup_steps: int = 10
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    accumulation: int = 1
    autocast: bool = False
    seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        whole = (self.steps, self.accumulation, self.log_every, self.checkpoint_every)
        if not all(map(positive, whole)):
            raise RecipeError("steps, accumulation, log_every and checkpoint_every must be whole numbers above 0.")
        if self.warmup_steps != 0 and not positive(self.warmup_steps):
            raise RecipeError("warmup_steps must be a whole number, 0 or more.")
        if not isinstance(self.autocast, bool):
            raise RecipeError("autocast must be true or false.")
        if not all(number == 0 or above_zero(number) for number in (self.learning_rate, self.weight_decay)):
            # YAML takes 1e-3 for a text
            raise RecipeError("learning_rate and weight_decay must be numbers, 0 or more.", "Write 1.0e-3.")
        if not above_zero(self.max_grad_norm):
            raise RecipeError("max_grad_norm must be a number above 0: gradients are cut down to it.", "Write 1.0.")

    def pace(self, step: int) -> float:
        """The learning rate's factor at a step: linear warm-up, then a cosine to zero."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def run(task: Task, config: LoopConfig, folder: Path, say: Any = print) -> None:
    """Train ``task`` to the end, from the newest checkpoint in ``folder`` if there is one.

    ``folder`` receives ``checkpoint.pt`` (replaced whole) and ``log.jsonl`` (a line per logged step).
    """
    optimizer = torch.optim.AdamW(task.parameter_groups(config.learning_rate), weight_decay=config.weight_decay)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    # where the recipe put it, not where it could be; a batch may leave some parameters out (a text of one chunk)
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    accelerator = Accelerator(cpu=trained[0].device.type == "cpu", kwargs_handlers=handlers)
    processes = accelerator.num_processes
    rank, world = accelerator.process_index, processes
    set_seed(config.seed)
    checkpoint = folder / "checkpoint.pt"
    first, before, window = _resume(checkpoint, trained, optimizer, processes) if checkpoint.exists() else (0, 0.0, [])
    if first:
        say(f"resuming at step {first} of {config.steps}")
    if task.synchronise is not None:
        module, optimizer = task.module, accelerator.prepare(optimizer)
        rank, world = 0, 1
    else:
        module, optimizer = accelerator.prepare(task.module, optimizer)
    module.train()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.jsonl"
    if accelerator.is_main_process:
        for torn in folder.glob(f"{checkpoint.name}.*.part"):  # by a kill
            torn.unlink()
        forget_future(log, first)
    started = time.monotonic() - before
    for step in range(first, config.steps):
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * config.pace(step)
        batches = [task.batch(step * config.accumulation + part, rank, world) for part in range(config.accumulation)]
        shares = _shares([task.weight(batch) for batch in batches], accelerator, world)
        for part, (batch, share) in enumerate(zip(batches, shares, strict=True)):
            # keyed on the step, so that dropout and sampling resume exactly too
            torch.manual_seed(hash((config.seed, step, part, rank)) % 2**63)
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.autocast):
                loss, numbers = module(batch)
            accelerator.backward((loss * share).sum())
            window.append({"loss": loss.sum().item(), **numbers})
        if task.synchronise is not None:
            task.synchronise()
        norm = accelerator.clip_grad_norm_(trained, config.max_grad_norm)
        if not math.isfinite(float(norm)):
            raise RecipeError(f"The gradient is not finite at step {step}.", "Lower the learning rate.")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            line = {"step": done, "seconds": round(time.monotonic() - started, 1), **_means(window)}
            if accelerator.is_main_process:
                add_line(log, line)
                say("  ".join(f"{key} {value:.4g}" for key, value in line.items()))
            window = []
        if accelerator.is_main_process and (done % config.checkpoint_every == 0 or done == config.steps):
            so_far = {"step": done, "processes": processes, "seconds": time.monotonic() - started, "window": window}
            _save(checkpoint, so_far, trained, optimizer)


def _shares(weights: list[float | Sequence[float]], accelerator: Accelerator, world: int) -> Tensor:
    """What each of a process's batches is worth, so that the step's loss is one mean over all batches of all processes.

    The gradients of processes are averaged, those of a process's batches summed.

    Returns:
        A row for each batch: a number, or one for each part of its loss.
    """
    own = torch.tensor(weights, device=accelerator.device, dtype=torch.float32)
    total = own.sum(0)
    if world > 1:
        total = accelerator.reduce(total, "sum")
    return own * world / total.clamp(min=1e-9)


def _save(path: Path, so_far: dict[str, Any], trained: list[nn.Parameter], optimizer: Any) -> None:
    state = {**so_far, "parameters": [p.detach() for p in trained], "optimizer": optimizer.state_dict()}
    with written(path), whole_file(path) as file:
        torch.save(state, file)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Raise ``RecipeError`` where a file of a training cannot be written; a checkpoint before it stays."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch raises its own where a write fails, and chains the reason
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise RecipeError(
            f"{path} cannot be written: {reason}.",
            "Make room, then run the recipe again: it goes on from its last checkpoint.",
        ) from error


def _resume(
    path: Path, trained: list[nn.Parameter], optimizer: torch.optim.Optimizer, processes: int
) -> tuple[int, float, list[dict[str, float]]]:
    """The steps done, the seconds they took, and what has not been logged of them."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RecipeError(f"{path} is damaged.", "Delete it to start this stage anew.") from error
    if [p.shape for p in trained] != [p.shape for p in state["parameters"]]:
        raise RecipeError(f"{path} belongs to another configuration.", "Choose another output folder, or delete it.")
    if state["processes"] != processes:
        raise RecipeError(
            f"{path} is of a run of {state['processes']} processes, not {processes}: its batches would be others.",
            "Start as many processes, or delete it.",
        )
    with torch.no_grad():
        for parameter, saved in zip(trained, state["parameters"], strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), state["seconds"], state["window"]


def forget_future(path: Path, first: int) -> None:
    """Cut a log back to the checkpoint: steps that will be run again are not logged twice."""
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= first:
                kept.append(line)
        except ValueError:  # torn by the kill
            continue
    with written(path):
        write_whole(path, "".join(line + "\n" for line in kept))


def add_line(path: Path, line: dict[str, Any]) -> None:
    """Add to a log what there is to say of a step."""
    with written(path), path.open("a") as log:
        log.write(json.dumps(line) + "\n")


def _means(window: Iterable[dict[str, float]]) -> dict[str, float]:
    rows = list(window)
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: sum(row[key] for row in rows if key in row) / sum(key in row for row in rows) for key in keys}
