"""The only file that touches what torch and transformers do not promise to keep.

When a release breaks us, it breaks here. Each function says what it leans on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
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


def drops_cache(model: torch.nn.Module) -> bool:
    """Whether its layers will ignore a cache: they do in training with gradient checkpointing, with a warning at most.

    Leans on the modules' ``gradient_checkpointing`` mark: the model's property of that name was renamed in 5.23.
    """
    return model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def head_takes_slices(model: PreTrainedModel) -> None:
    """Hand the vocabulary head its states in one piece, also where they are cut from longer ones.

    Leans on nothing that could break, and mends what torch 2.13 does on a CPU: of ``[B, T, D]`` cut to the last states,
    as upstream does for every prompt, a linear layer copies its weights once for each row and multiplies those. With
    the backbone that ships, in bfloat16, the head of 16 prompts then takes some two hundred times as long (scratch).
    """
    head = model.get_output_embeddings()
    if head is not None and _in_one_piece not in head._forward_pre_hooks.values():
        head.register_forward_pre_hook(_in_one_piece)


def _in_one_piece(_: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    states, *others = given
    strides = torch.empty(states.shape, device="meta").stride()
    if states.stride() == strides:  # ``is_contiguous`` says yes of a single state, whatever its stride
        return given
    return (states.clone(memory_format=torch.contiguous_format), *others)


def drop_keys(layer: DynamicLayer) -> None:
    """Let go of a layer's keys and values: transformers 5.16 only sets them to zero and kept their length."""
    layer.keys = layer.values = None
    layer.is_initialized = False


def layer_types(model: PreTrainedModel) -> list[str]:
    """The type of each layer, as ``layer_windows`` names them."""
    windows = layer_windows(model)  # refuses types that do not attend to the keys of a cache
    return getattr(model.config, "layer_types", None) or [next(iter(windows))] * model.config.num_hidden_layers


def rotary_embeddings(base: PreTrainedModel, like: Tensor, position: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Cosines and sines for position ids ``[B, T]``, by layer type.

    Leans on ``base.rotary_emb``, which in models with a base frequency per type takes the type as well.

    Args:
        like: any tensor of the dtype and device wanted.

    Raises:
        BackboneError: positions are not rotary, so a layer cannot place hidden states anew.
    """
    rotary = getattr(base, "rotary_emb", None)
    if rotary is None:
        raise BackboneError(f"{type(base).__name__} has no rotary positions.", "Use a decoder such as Llama or Qwen3.")
    types = sorted(set(layer_types(base)))
    if hasattr(rotary, "layer_types"):
        return {name: rotary(like, position, name) for name in types}
    return dict.fromkeys(types, rotary(like, position))


def keys_and_values(layer: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What a decoder layer would put into the cache for hidden states ``[B, M, D]``, and nothing else of its work.

    Leans on the names ``input_layernorm``, ``self_attn``, ``k_proj`` and ``v_proj`` (or ``qkv_proj``) and ``k_norm``.

    Returns:
        Keys and values, each ``[B, N, M, H]``.
    """
    attention = layer.self_attn
    hidden = layer.input_layernorm(hidden)
    shape = (*hidden.shape[:-1], -1, attention.head_dim)
    if hasattr(attention, "qkv_proj"):
        # fused, with the queries first; the module is called whole, for LoRA may be on it
        size = attention.num_key_value_heads * attention.head_dim
        keys, values = (part.reshape(shape) for part in attention.qkv_proj(hidden)[..., -2 * size :].split(size, -1))
    else:
        keys, values = attention.k_proj(hidden).view(shape), attention.v_proj(hidden).view(shape)
    if hasattr(attention, "k_norm"):
        keys = attention.k_norm(keys)
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    return rotate(layer, keys, rotary), values


def rotate(layer: Any, keys: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Keys ``[B, N, M, H]`` turned as the attention of a decoder layer turns them.

    Leans on ``apply_rotary_pos_emb`` in the module of the attention.
    """
    turned: Tensor = sys.modules[type(layer.self_attn).__module__].apply_rotary_pos_emb(keys, keys, *rotary)[1]
    return turned


def rotation_kinds(base: PreTrainedModel) -> set[str]:
    """How a decoder's positions turn its keys (leans on ``rotary_emb.rope_type``, a name or names by layer type)."""
    found = base.rotary_emb.rope_type
    return set(found.values()) if isinstance(found, dict) else {found}


def require_plain_head(model: PreTrainedModel) -> None:
    """Raise ``BackboneError`` where logits are more than the head's product (leans on names in configurations)."""
    config = model.config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1.0):
            raise BackboneError(
                f"{type(model).__name__} changes its logits behind the head ({name}).",
                "Losses and log-probabilities are of plain heads alone: use another model.",
            )
