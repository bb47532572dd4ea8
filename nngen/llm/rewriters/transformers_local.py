"""Rewriter that runs a transformers model in this process: a hub id, a folder or a GGUF file, with adapters."""

from __future__ import annotations

import contextlib
import inspect
import json
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nngen.errors import RewriterError
from nngen.llm import optional_import
from nngen.llm.rewriters.base import Kind, Reply, Request, Status
from nngen.llm.rewriters.decoding import PlanMatcher, SeededSampling, tokenizer_for_grammar
from nngen.text import one_line

PRECISIONS = ("auto", "float32", "bfloat16")


def load_tokenizer(base: str) -> Any:
    """Load the tokenizer of a base: a hub id, a folder in transformers' layout, or a GGUF file.

    Raises:
        RewriterError: If it cannot be loaded, or has no chat template.
    """
    where, extra = _place(base)
    with _explained(base), _quiet():
        tokenizer = optional_import("transformers").AutoTokenizer.from_pretrained(where, **extra)
    if not tokenizer.chat_template:
        raise RewriterError(f"{base} has no chat template: take its instruction-tuned variant")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    base: str,
    adapter: Path | None = None,
    *,
    device: str = "cpu",
    precision: str = "auto",
    quantize: bool = False,
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
    where, extra = _place(base)
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
    with _explained(base), _quiet():
        model = transformers.AutoModelForCausalLM.from_pretrained(where, dtype=dtype, device_map=device, **extra)
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


class Local:
    """Rewriter over transformers' ``generate``.

    Requests with the same prompt share its prefill; others are padded on the left. Both are decoded
    in batches of ``batch`` rows with a key-value cache. The other arguments are those of ``load_model``.
    """

    trusted = False

    def __init__(
        self,
        base: str,
        adapter: Path | None = None,
        *,
        device: str = "cpu",
        batch: int = 16,
        precision: str = "auto",
    ) -> None:
        self.name = Path(base).name + (f"+{adapter.name}" if adapter else "")
        self.tokenizer = load_tokenizer(base)
        self.tokenizer.padding_side = "left"  # the last token of every row is the one that is continued
        self.model = load_model(base, adapter, device=device, precision=precision)
        self.batch = batch
        self._vocabulary = int(self.model.config.get_text_config().vocab_size)
        # A configuration without a context length sets no limit.
        self._context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 10**9)
        self._grammar_tokenizer: Any = None
        # A chat model may end its turn with another token than a text.
        end = self.model.generation_config.eos_token_id
        ends = [*(end if isinstance(end, list) else [end]), self.tokenizer.eos_token_id]
        self._end = sorted({token for token in ends if token is not None})
        # transformers 5.24 renamed the argument that holds the key-value cache.
        bare = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        names = inspect.signature(bare.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request; replies that reach the token limit have the status ``cut``.

        A prompt that does not fit the model's context is ``too-long``; the others are answered.
        """
        prompts = [self._prompt(request) for request in requests]
        replies = {}
        for index, length in enumerate(map(self.tokens, prompts)):
            if length >= self._context:
                detail = f"the prompt takes {length:,} tokens, the model's context holds {self._context:,}"
                replies[index] = Reply(status=Status.TOO_LONG, detail=detail, prompt_tokens=length)
        order = sorted(set(range(len(requests))) - set(replies), key=lambda index: (prompts[index], index))
        for rows in _batches(order, prompts, self.batch):
            answers = self._decode([requests[row] for row in rows], [prompts[row] for row in rows])
            replies |= dict(zip(rows, answers, strict=True))
        return [replies[index] for index in range(len(requests))]

    def tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _prompt(self, request: Request) -> str:
        turns = [message.to_dict() for message in request.messages]
        return str(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))

    def _decode(self, requests: Sequence[Request], prompts: Sequence[str]) -> list[Reply]:
        start = time.perf_counter()
        with torch.inference_mode():
            ids, mask, cache = self._read(prompts)
            limit = min(max(request.max_tokens for request in requests), self._context - ids.shape[1])
            sampling = SeededSampling(requests, [self._matcher(request) for request in requests], self._end)
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                **{self._cache_argument: cache},
                logits_processor=optional_import("transformers").LogitsProcessorList([sampling]),
                generation_config=optional_import("transformers").GenerationConfig(
                    max_new_tokens=limit,
                    do_sample=False,
                    eos_token_id=self._end,
                    pad_token_id=self.tokenizer.pad_token_id,
                ),
            )
        share = (time.perf_counter() - start) / len(requests)
        return [
            self._reply(row.tolist(), request, int(seen.sum()), share)
            for row, request, seen in zip(out[:, ids.shape[1] :], requests, mask, strict=True)
        ]

    def _read(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor, Any]:
        """Tokenize prompts to ``(B, T)``; where all are equal, compute the cache of all but the last token once."""
        encoded = self.tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
        ids, mask = encoded["input_ids"].to(self.model.device), encoded["attention_mask"].to(self.model.device)
        cache = None
        if len(prompts) > 1 and len(set(prompts)) == 1:
            cache = optional_import("transformers").DynamicCache(config=self.model.config)
            self.model(ids[:1, :-1], use_cache=True, logits_to_keep=1, **{self._cache_argument: cache})
            cache.batch_repeat_interleave(len(prompts))
        return ids, mask, cache

    def _reply(self, tokens: list[int], request: Request, read: int, seconds: float) -> Reply:
        length = next((place for place, token in enumerate(tokens) if token in self._end), None)
        whole = length is not None and length <= request.max_tokens
        written = tokens[: length if whole else request.max_tokens]
        limit = min(request.max_tokens, len(tokens))
        return Reply(
            text=self.tokenizer.decode(written, skip_special_tokens=True),
            status=Status.OK if whole else Status.CUT,
            detail="" if whole else f"the reply reached {limit} tokens",
            prompt_tokens=read,
            reply_tokens=len(written),
            seconds=seconds,
        )

    def _matcher(self, request: Request) -> PlanMatcher | None:
        if request.kind is not Kind.PLAN or request.space is None:
            return None
        if self._grammar_tokenizer is None:
            self._grammar_tokenizer = tokenizer_for_grammar(self.tokenizer, self._vocabulary)
        return PlanMatcher(self._grammar_tokenizer, request.space)


def _batches(order: Sequence[int], prompts: Sequence[str], size: int) -> Iterator[list[int]]:
    """Split the order into batches; prompts shared by several requests get batches of their own."""
    shared: dict[str, list[int]] = {}
    for index in order:
        shared.setdefault(prompts[index], []).append(index)
    single = [rows[0] for rows in shared.values() if len(rows) == 1]
    for rows in [*(rows for rows in shared.values() if len(rows) > 1), single]:
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def _dtype(precision: str, device: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise RewriterError(f"no precision is called {precision!r}: choose {', '.join(PRECISIONS)}")
    fast = device.startswith("cuda") or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and fast) else torch.float32


def _place(base: str) -> tuple[str, dict[str, Any]]:
    path = Path(base)
    try:
        if path.suffix == ".gguf":
            if not path.is_file():
                raise RewriterError(f"no such file: {base}")
            return str(path.parent), {"gguf_file": path.name}
        if path.is_dir() and not (path / "config.json").is_file():
            raise RewriterError(f"{base} holds no config.json: it is not a folder in transformers' layout")
        if base.startswith((".", "/", "~")) and not path.expanduser().is_dir():
            raise RewriterError(f"no such folder: {base}")
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RewriterError(f"{one_line(base, 60)} cannot be a model: {reason}") from error
    return base, {}


def adapted(model: Any, adapter: Path, base: str, *, trainable: bool = False) -> Any:
    """Load a peft adapter onto its base model; ``trainable`` where it is tuned further.

    Raises:
        RewriterError: If the folder is not an adapter, or an adapter for another base.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text())
        tuned_on = str(config.get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise RewriterError(f"{adapter} holds no readable adapter_config.json: it is not a peft adapter") from error
    other = RewriterError(f"{adapter} was tuned on {tuned_on or 'another base'}, not on {base}")
    if tuned_on and Path(tuned_on).name != Path(base).name:
        raise other
    try:
        return optional_import("peft").PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    except (RuntimeError, ValueError, KeyError) as error:
        # The name fits and the shapes do not: peft's own message is pages long.
        raise other from error


@contextlib.contextmanager
def _explained(base: str) -> Iterator[None]:
    # Raised by transformers and its readers for files that are missing, truncated or in another format.
    broken = (OSError, ValueError, KeyError, IndexError, struct.error, optional_import("safetensors").SafetensorError)
    try:
        yield
    except broken as error:
        lines = (line.strip()[:160] for line in str(error).splitlines() if line.strip())
        raise RewriterError(f"{base} cannot be loaded: {next(lines, type(error).__name__)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging = optional_import("transformers.utils.logging")
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
