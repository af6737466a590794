"""A decoder's layers one at a time, for methods that work between them.

Shapes: B batch, T tokens, D width, N key heads, H head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from laconic.core.compat import keys_and_values, layer_types, rotary_embeddings, rotate, rotation_kinds
from laconic.core.layout import Kind, run
from laconic.core.sharing import layer_list
from laconic.core.visibility import attention_mask, causal
from laconic.errors import BackboneError

Masks = Tensor | BlockMask | dict[str, Tensor | BlockMask]
#: rope types whose angles follow from the longest position of a call
LENGTH_DEPENDENT = {"dynamic", "longrope"}
#: those that only turn
ADDITIVE = {"default", "linear", "llama3"}
#: tokens that are tried out, and by how much of the largest number two ways to compute the same may differ
PROBE, ROUNDING = 8, 0.05
#: the same for what is computed in the same way
EXACT = 1e-3
#: cosines and sines by layer type
Rotary = dict[str, tuple[Tensor, Tensor]]


class LayerStack:
    """The decoder layers of a causal language model, each of them callable by number.

    Running all of them in order and then ``finish`` is what the model itself does.

    Args:
        model: with rotary positions (Llama, Qwen2, Qwen3, Mistral, Gemma3, Phi3 and their like).

    Raises:
        BackboneError: another architecture, or rotations that depend on the text's length.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.base = model.base_model
        self.layers: nn.ModuleList = layer_list(self.base)[1]
        self._types = layer_types(model)
        if not all(hasattr(self.base, part) for part in ("rotary_emb", "norm")):
            raise BackboneError(
                f"{type(model).__name__} has no rotary positions; its layers cannot be run one at a time.",
                "Use a decoder such as Llama, Qwen2, Qwen3, Mistral, Gemma3 or Phi3.",
            )
        if rotation_kinds(self.base) & LENGTH_DEPENDENT:
            raise BackboneError(
                f"{type(model).__name__} turns positions by angles that depend on the length of the text, so that its "
                "parts cannot be computed apart.",
                "Load it with another rope_type, such as yarn or llama3.",
            )

    def __len__(self) -> int:
        return len(self.layers)

    def rotary(self, like: Tensor, position: Tensor) -> Rotary:
        """For position ids [B, T], in the dtype and on the device of ``like``."""
        return rotary_embeddings(self.base, like, position)

    def run(self, index: int, hidden: Tensor, position: Tensor, rotary: Rotary, mask: Masks, cache: Cache) -> Tensor:
        """Layer ``index`` on hidden states [B, T, D], which read what the cache holds of this layer before them."""
        kind = self._types[index]
        return self.layers[index](
            hidden,
            attention_mask=mask[kind] if isinstance(mask, dict) else mask,
            position_ids=position,
            position_embeddings=rotary[kind],
            past_key_values=cache,
        )

    def keys_and_values(self, index: int, hidden: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Keys and values [B, N, T, H] of layer ``index`` for hidden states that only ever are read."""
        return keys_and_values(self.layers[index], hidden, rotary[self._types[index]])

    @property
    def shifts(self) -> bool:
        """Whether turning by a and then by b is turning by a + b: not where lengths change with the angles."""
        return rotation_kinds(self.base) <= ADDITIVE

    def shift(self, index: int, keys: Tensor, by: int) -> Tensor:
        """Keys [B, N, T, H] of layer ``index`` as they would be ``by`` positions later (earlier, if negative).

        Raises:
            BackboneError: the model scales its rotations.
        """
        if not self.shifts:
            raise BackboneError(
                f"{type(self.base).__name__} scales its rotary positions; keys cannot be moved.",
                "Stay within its window.",
            )
        turns = self.rotary(keys, torch.tensor([[by]], device=keys.device))
        return rotate(self.layers[index], keys, turns[self._types[index]])

    def finish(self, hidden: Tensor) -> Tensor:
        """The final norm: from the last layer's output to what the vocabulary head takes."""
        return self.base.norm(hidden)

    @torch.no_grad()
    def verify(self, model: PreTrainedModel) -> None:
        """Run some tokens through the model, and through its layers one at a time, and compare.

        What an architecture does beside its layers (embeddings or logits that are scaled, layers without positions)
        shows in no attribute, and would make a silent difference.

        Raises:
            BackboneError: the two differ.
        """
        embedding = model.get_input_embeddings()
        ids = torch.arange(PROBE, device=embedding.weight.device)[None] % embedding.weight.shape[0]
        if ids.is_meta:
            return
        layout = run(Kind.TEXT, torch.arange(PROBE, device=ids.device)).map(lambda field: field[None])
        cache = Cache(layer_class_to_replicate=DynamicLayer)
        hidden = embedding(ids)
        rotary, mask = self.rotary(hidden, layout.position), attention_mask(model, causal, layout)
        try:
            for index in range(len(self)):
                keys, values = self.keys_and_values(index, hidden, rotary)
                hidden = self.run(index, hidden, layout.position, rotary, mask, cache)
                kept = cache.layers[index]
                if not (_alike(keys, kept.keys) and _alike(values, kept.values)):
                    raise self._strange(model, f"layer {index} has other keys and values than its parts make")
            logits = model.get_output_embeddings()(self.finish(hidden))
        except (BackboneError, torch.OutOfMemoryError):
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self._strange(model, str(error)) from error
        whole = model(input_ids=ids, use_cache=False, output_hidden_states=True)
        # the same sums as the model's own, so that here nothing is rounded
        first, last = whole.hidden_states[0], whole.hidden_states[-1]
        if not _alike(first, embedding(ids), EXACT):
            raise self._strange(model, "it changes what its embeddings are")
        if not _alike(whole.logits, model.get_output_embeddings()(last), EXACT):
            raise self._strange(model, "it changes what its head gives")
        if not _alike(logits, whole.logits):
            raise self._strange(model, "it does something between its layers")

    @staticmethod
    def _strange(model: PreTrainedModel, why: str) -> BackboneError:
        return BackboneError(
            f"The layers of {type(model).__name__} cannot be run one at a time: {why}.",
            "Use a decoder such as Llama, Qwen2, Qwen3, Mistral, Gemma3 or Phi3.",
        )


def _alike(one: Tensor, other: Tensor, rounding: float = ROUNDING) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= rounding * other.abs().max())
