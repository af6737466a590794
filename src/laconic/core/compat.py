"""The only file that touches what torch and transformers do not promise to keep.

When a release breaks us, it breaks here. Each function says what it leans on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.utils import logging as transformers_logging

from laconic.errors import BackboneError


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


def attention_mask_form(model: PreTrainedModel) -> Literal["dense", "block"]:
    """How the model's attention takes a custom mask (leans on ``config._attn_implementation``).

    Raises:
        BackboneError: it would ignore one.
    """
    name = model.config._attn_implementation
    if name in ("eager", "sdpa"):
        return "dense"
    if name == "flex_attention":
        return "block"
    raise BackboneError(
        f"The attention {name!r} ignores custom masks.",
        'Call model.set_attn_implementation("sdpa"), or "eager" or "flex_attention".',
    )


def layer_windows(model: PreTrainedModel) -> dict[str, int | None]:
    """The sliding window of each type of layer, None where attention is full.

    Leans on ``config.layer_types`` and ``config.sliding_window``, and on models with several types taking their masks
    as a dictionary by type.

    Raises:
        BackboneError: some layers do not attend to the keys of a cache (chunked or linear attention).
    """
    config = model.config
    window = getattr(config, "sliding_window", None)
    # without a list of types upstream slides in all layers or in none
    types = getattr(config, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"]
    unknown = set(types) - {"full_attention", "sliding_attention"}
    if unknown:
        raise BackboneError(
            f"{type(model).__name__} has layers of type {', '.join(sorted(unknown))}.",
            "Use a decoder with full or sliding-window attention in every layer.",
        )
    return {name: window if name == "sliding_attention" else None for name in sorted(set(types))}


def drops_cache(model: PreTrainedModel) -> bool:
    """Whether layers will ignore a cache: they do in training with gradient checkpointing, with a warning at most.

    Leans on the modules' ``gradient_checkpointing`` mark: the model's property of that name was renamed in 5.23.
    """
    return model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def drop_keys(layer: DynamicLayer) -> None:
    """Let go of a layer's keys and values: transformers 5.16 only sets them to zero and kept their length."""
    layer.keys = layer.values = None
    layer.is_initialized = False
