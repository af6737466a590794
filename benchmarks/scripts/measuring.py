"""What the timing scripts share: a process for each row, its memory, and what it ran on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from laconic.core.compat import cpu_has_fast_bf16
from laconic.core.files import write_whole

#: the embedded backbone tuned without a memory (recipes/sft/cpu.yaml)
SFT = Path(__file__).resolve().parents[1] / "adapters" / "sft-smollm2"
#: the same, trained on by the longest of CoMeT's later stages (recipes/sft/told.yaml, its first)
SFT_TOLD = SFT.with_name("sft-told-smollm2")
#: vanilla as other reasoning methods go on from it (recipes/vanilla/cpu.yaml); what ships was trained on from it
VANILLA_START = SFT.with_name("vanilla-start-smollm2")


def status_mb(field: str) -> float:
    """A field of this process's memory status in MiB (Linux): VmRSS is held now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) / 2**10


def forget_peak() -> float:
    """Start the peak anew: loading a model can take more than running it, and not the same every time."""
    Path("/proc/self/clear_refs").write_text("5")
    return status_mb("VmRSS")


def cost(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of one run, memory before it, and its peak."""
    resident = forget_peak()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "resident_mb": resident, "peak_mb": status_mb("VmHWM")}


def alone(script: str, *arguments: object) -> dict[str, Any]:
    """Run ``script --one ARGUMENTS`` in a process of its own; the last line that it prints is the row, as JSON."""
    command = [sys.executable, script, "--one", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def sample_book() -> str:
    return (files("laconic") / "data/samples/twelve-years-a-slave.txt").read_text(encoding="utf-8")


def environment() -> dict[str, Any]:
    return {
        "date": str(date.today()),
        "cpus": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
        "bf16_in_hardware": cpu_has_fast_bf16(),
        **{name: version(name) for name in ("laconic", "torch", "transformers")},
    }


def save(out: Path, benchmark: str, **contents: Any) -> None:
    """Write a result file."""
    result = {"benchmark": benchmark, **contents, "environment": environment()}
    write_whole(out, json.dumps(result, indent=2) + "\n")
