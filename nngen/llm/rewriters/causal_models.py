"""Causal language models of transformers, with peft adapters: loaded, checked and merged."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from nngen.errors import RewriterError
from nngen.files import draft_folder
from nngen.llm import optional_import
from nngen.llm.rewriters.chat import explained, load_tokenizer, place, quiet
from nngen.text import one_line

PRECISIONS = ("auto", "float32", "bfloat16")
_WRITERS = ("CausalLM", "LMHead", "ConditionalGeneration")
_NO_LIMIT = 10**9


def load_config(base: str) -> Any:
    """Load the text configuration of a base, without its weights.

    Raises:
        RewriterError: If it cannot be loaded, or the model does not write text.
    """
    where, extra = place(base)
    with explained(base), quiet():
        config = optional_import("transformers").AutoConfig.from_pretrained(where, trust_remote_code=False, **extra)
    named = config.architectures or []
    if config.is_encoder_decoder or (named and not any(part in name for name in named for part in _WRITERS)):
        kind = one_line(", ".join(named), 60) or config.model_type
        raise RewriterError(f"{base} is a {kind}, not a causal language model, which writes text")
    return config.get_text_config()


def context_of(config: Any) -> int:
    """Return the number of tokens that fit a model's context; a configuration without one sets no limit."""
    names = ("max_position_embeddings", "max_seq_len", "n_ctx")
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), _NO_LIMIT)


def load_model(
    base: str, adapter: Path | None = None, *, device: str = "cpu", precision: str = "auto", quantize: bool = False
) -> Any:
    """Load a causal language model.

    Args:
        base: A hub id, a folder in transformers' layout, or a GGUF file.
        adapter: Folder of a peft adapter tuned on this base.
        device: ``cpu`` or ``cuda``.
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 on CUDA and on CPUs with bfloat16 instructions
            (four times as fast as float32, measured with AVX512-BF16), else float32.
        quantize: Whether the weights are loaded in 4 bits (NF4; needs CUDA and bitsandbytes).

    Raises:
        RewriterError: If the weights cannot be loaded, or the adapter belongs to another base.
    """
    transformers = optional_import("transformers")
    load_config(base)
    where, extra = place(base)
    if extra:
        optional_import("gguf")
    if quantize:
        optional_import("bitsandbytes")
        extra["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    dtype = _dtype(precision, device)
    with explained(base), quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            where, dtype=dtype, device_map=device, trust_remote_code=False, **extra
        )
    if "gguf_file" in extra:
        # The weights are unpacked on loading, yet a model that is marked as quantized cannot be tuned.
        marks = ((model, "hf_quantizer"), (model, "quantization_method"), (model.config, "quantization_config"))
        for owner, name in marks:
            if hasattr(owner, name):
                delattr(owner, name)
        model.is_quantized = False
    if adapter is not None:
        model = adapted(model, adapter, base)
    return model.eval()


def adapted(model: Any, adapter: Path, base: str, *, trainable: bool = False) -> Any:
    """Load a peft adapter onto its base model; ``trainable`` where it is tuned further.

    Raises:
        RewriterError: If the folder is not an adapter, is damaged, or was tuned on another base.
    """
    tuned_on = check_adapter(adapter, base)
    try:
        # peft warns of patterns that it wrote itself.
        with warnings.catch_warnings(action="ignore"):
            return optional_import("peft").PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    except (RuntimeError, KeyError) as error:
        # The name fits and the shapes do not: peft's own message is pages long.
        raise RewriterError(f"{adapter} was tuned on {tuned_on or 'another base'}, not on {base}") from error
    except Exception as error:  # readers of broken files raise anything
        raise RewriterError(f"{adapter} cannot be loaded: {one_line(str(error), 160)}") from error


def merge_adapter(base: str, adapter: Path, out: Path, *, precision: str = "float32", chat_template: str = "") -> None:
    """Write a base with an adapter's changes added to its weights, as a folder in transformers' layout.

    Args:
        base: The base that the adapter was tuned on.
        adapter: Folder of the adapter.
        out: Folder to write, whole or not at all; it must not exist.
        precision: Precision of the weights that are written, as for ``load_model``.
        chat_template: File with a Jinja chat template, for a base that has none.

    Raises:
        RewriterError: If the folder exists, or base and adapter cannot be loaded or do not belong together.
        OSError: If the folder cannot be written.
    """
    if out.exists():
        raise RewriterError(f"{out} exists: choose another folder for the merged model")
    check_adapter(adapter, base)
    tokenizer = load_tokenizer(base, chat_template)
    model = load_model(base, adapter, precision=precision).merge_and_unload()
    with draft_folder(out) as draft, quiet():
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)


def check_adapter(adapter: Path, base: str) -> str:
    """Return the name of the base that an adapter was tuned on; "" where it does not say.

    Raises:
        RewriterError: If the folder is not an adapter, or an adapter for another base.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text())
        tuned_on = str(config.get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise RewriterError(f"{adapter} holds no readable adapter_config.json: it is not a peft adapter") from error
    if tuned_on and Path(tuned_on).name != Path(base).name:
        raise RewriterError(f"{adapter} was tuned on {tuned_on}, not on {base}")
    return tuned_on


def _dtype(precision: str, device: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise RewriterError(f"no precision is called {precision!r}: choose {', '.join(PRECISIONS)}")
    fast = device.startswith("cuda") or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and fast) else torch.float32
