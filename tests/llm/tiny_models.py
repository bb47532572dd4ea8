"""Tiny random language models of many architectures, chat templates and tokenizers, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_REFUSE = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
TEMPLATES = {
    "chatml": _TURNS,
    "refuses-system": _REFUSE + _TURNS,
    "drops-system": _TURNS.replace("<|im_start|>{{ m['role'] }}", "{% if m['role'] != 'system' %}<|im_start|>")
    .replace("<|im_end|>\n{% endfor %}", "<|im_end|>\n{% endif %}{% endfor %}"),
    "alternates": _REFUSE
    + "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    + "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}"
    + _TURNS,
    "llama2": "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] | trim }} <|im_end|>"
    "{% else %}[INST] {{ m['content'] | trim }} [/INST]{% endif %}{% endfor %}",
    "opens-thoughts": _TURNS.replace("assistant\n", "assistant\n<think>\n"),
    "drops-thoughts": _TURNS.replace(
        "assistant\n", "assistant\n{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    ),
    "parts": _TURNS.replace("{{ m['content'] }}", "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}"),
    "broken": "{{ messages[0]['content'] | no_such_filter }}",
    "none": "",
}  # fmt: skip

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 8192}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "mistral": SIZES,
    "qwen2": SIZES,
    "qwen3": {**SIZES, "head_dim": 16},
    "gemma": {**SIZES, "head_dim": 16},
    "gemma2": {**SIZES, "head_dim": 16, "sliding_window": 64},
    "gemma3_text": {**SIZES, "head_dim": 16, "sliding_window": 64},
    "phi": SIZES,
    "phi3": SIZES,
    "gpt2": _GPT,
    "gptj": {**_GPT, "rotary_dim": 8},
    "gpt_neox": SIZES,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "opt": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mamba2": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 4, "head_dim": 16}
    | {"n_groups": 1},
    "recurrent_gemma": {**SIZES, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 64},
    "mixtral": {**SIZES, "num_local_experts": 2},
}  # fmt: skip


def make(
    folder: Path,
    architecture: str = "llama",
    template: str = "chatml",
    *,
    eos: str | None = "<|im_end|>",
    special: bool = True,
    vocabulary: int = 0,
    **config: Any,
) -> Path:
    """Write a model with random weights and a tokenizer of single bytes.

    Args:
        folder: Folder to write.
        architecture: Key of ``ARCHITECTURES``, or a type that transformers knows.
        template: Key of ``TEMPLATES``, or a template.
        eos: Token that ends a text.
        special: Whether the marks of turns are special tokens.
        vocabulary: Number of tokens that the model knows; that of the tokenizer by default.
        **config: Fields of the configuration.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet + marks)}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if special:
        raw.add_special_tokens(marks)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos)
    tokenizer.chat_template = TEMPLATES.get(template, template) or None
    torch.manual_seed(0)
    fields = {**ARCHITECTURES.get(architecture, SIZES), **config}
    fields |= {"vocab_size": vocabulary or len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    settings = transformers.AutoConfig.for_model(architecture, **fields, pad_token_id=None)
    kinds = {"bert": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM"}
    getattr(transformers, kinds.get(architecture, "AutoModelForCausalLM")).from_config(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
