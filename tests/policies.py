"""Options of a training on own answers that is over in no time, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from laconic.methods.tgpo.config import COMPUTED_AGAIN, TGPOConfig


def quick(folder: Path, **changes: Any) -> TGPOConfig:
    known: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 9,
        "max_steps": 2, "learning_rate": 1e-2, "report_to": [], "use_cpu": True, "logging_steps": 1, "seed": 1,
        "save_strategy": "no", "disable_tqdm": True, "bf16": False, COMPUTED_AGAIN: False,
        "shuffle_dataset": False,
    }  # fmt: skip
    if changes.get("objective") == "rkl":
        known["teacher_schedule"] = "constant"
    return TGPOConfig(**known | changes)
