"""Tiny random decoders and a tiny tokenizer, built in process: no downloads, seeded, fp32."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from laconic.backbone import Backbone
from laconic.encoder import Encoder

VOCABULARY = 128
_CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "mistral": MistralConfig,
    "gemma3": Gemma3TextConfig,
    "phi3": Phi3Config,
    "gpt2": GPT2Config,
}
ARCHITECTURES = list(_CONFIGS)

_ROPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    # large enough that what attention reads shows in the logits: a wrong mask must not hide below the tolerance
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OWN: dict[str, dict[str, Any]] = {
    # one full layer between two sliding ones; Mistral slides in all
    "gemma3": {
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 12,
        "query_pre_attn_scalar": 8,
    },
    "mistral": {"sliding_window": 24},
}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 512,
    "initializer_range": 0.3,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_model(arch: str = "llama", **overrides: Any) -> PreTrainedModel:
    """A random decoder of 3 layers and width 32, in eval mode; ``overrides`` go to its config.

    Gemma3 and Mistral have sliding windows shorter than most tests' sequences.
    """
    settings = _GPT2 if arch == "gpt2" else _ROPE | _OWN.get(arch, {})
    config = _CONFIGS[arch](**(settings | overrides))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()


_TRAINING_TEXT = (
    "The lighthouse keeper wrote down the weather every morning, and the number of ships that passed.",
    "What is the passkey? The passkey is 48213. Remember it. The grass is green. The sky is blue.",
    "First we add the two numbers, then we divide the sum by three; the answer is twelve.",
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


@cache
def _trained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT, trainer)
    return tokenizer


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a chat template; any text survives the round trip and offsets are exact."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained().to_str()),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def tiny_backbone(arch: str = "llama", **overrides: Any) -> Backbone:
    """``tiny_model`` with ``tiny_tokenizer``, its vocabulary fitted to the tokenizer's."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(arch, **({"vocab_size": len(tokenizer)} | overrides))
    return Backbone(model, tokenizer, f"tiny-{arch}")


@cache
def _wordpieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT, trainer)
    return tokenizer


def tiny_wordpieces() -> PreTrainedTokenizerFast:
    """WordPiece, as encoders in the manner of BERT have; what it does not know becomes one unknown token."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_wordpieces().to_str()),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def tiny_encoder_config(**overrides: Any) -> BertConfig:
    settings: dict[str, Any] = {
        "vocab_size": len(tiny_wordpieces()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    }
    return BertConfig(**(settings | overrides))


def tiny_encoder() -> Encoder:
    """A random encoder of 2 layers and width 32, with a window of 64 tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(tiny_encoder_config()).eval()
    return Encoder(model, tiny_wordpieces(), "tiny-bert")
