"""The only file that touches what torch and transformers do not promise to keep.

When a release breaks us, it breaks here. Each function says what it leans on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging


def cpu_has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (leans on ``torch.cpu._is_avx512_bf16_supported``)."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def forget_quantisation(model: PreTrainedModel) -> None:
    """Let a de-quantised GGUF model be saved: transformers 5.23 refuses while these marks are on it."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars or advice from transformers while weights load; ours are shown instead."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if was_enabled:
            transformers_logging.enable_progress_bar()
