"""Rewriter that runs a transformers model in this process: a hub id, a folder or a GGUF file, with adapters."""

from __future__ import annotations

import inspect
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nngen.errors import RewriterError
from nngen.files import draft_folder
from nngen.llm import optional_import
from nngen.llm.rewriters.base import Kind, Options, Reply, Request, Status
from nngen.llm.rewriters.chat import Chat, explained, load_tokenizer, place, quiet
from nngen.llm.rewriters.decoding import PlanMatcher, SeededSampling, tokenizer_for_grammar
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


class Local:
    """Rewriter over transformers' ``generate``.

    Requests with the same prompt share its prefill; others are padded on the left. Both are decoded
    in batches of ``options.batch`` rows with a key-value cache. The weights are loaded for the first prompt that fits
    the context.
    """

    trusted = False

    def __init__(self, base: str, options: Options | None = None) -> None:
        self._base, self._options = base, options = base, options or Options()
        if options.quantize and not options.device.startswith("cuda"):
            raise RewriterError("a base in 4 bits needs a CUDA device: leave --quantize out on the CPU")
        self.name = Path(base).name + (f"+{options.adapter.name}" if options.adapter else "")
        self.tokenizer = load_tokenizer(base, options.chat_template)
        self.tokenizer.padding_side = "left"  # the last token of every row is the one that is continued
        if options.adapter is not None:
            check_adapter(options.adapter, base)
        config = load_config(base)
        self.context = context_of(config)
        self.chat = Chat(self.tokenizer, int(config.vocab_size))
        self._grammar_tokenizer: Any = None

    @cached_property
    def model(self) -> Any:
        """The model, loaded on first use."""
        options = self._options
        model = load_model(self._base, options.adapter, device=options.device, quantize=options.quantize)
        # A chat model may end its turn with another token than a text.
        end = model.generation_config.eos_token_id
        ends = [*(end if isinstance(end, list) else [end]), self.tokenizer.eos_token_id, self.chat.turn_end]
        self._end = sorted({token for token in ends if token is not None})
        # ``generate`` would take penalties, forced tokens and kinds of caches from the model's own settings.
        model.generation_config = optional_import("transformers").GenerationConfig()
        bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._arguments = frozenset(inspect.signature(bare.forward).parameters)
        # transformers 5.24 renamed the argument that holds the key-value cache.
        self._cache_argument = "cache" if "cache" in self._arguments else "past_key_values"
        # The state of a state-space model cannot be repeated, and some models count the tokens that pad.
        stateful = getattr(bare, "_is_stateful", False) or self._cache_argument not in self._arguments
        self._shares = not stateful
        self._pads = not stateful and "position_ids" in self._arguments
        return model

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request; replies that reach the token limit have the status ``cut``.

        A prompt that does not fit the model's context is ``too-long``; the others are answered.

        Raises:
            RewriterError: If the weights cannot be loaded, or do not fit the tokenizer.
        """
        prompts = [self.chat.prompt([turn.to_dict() for turn in request.messages]) for request in requests]
        replies = {}
        for index, ids in enumerate(map(self.chat.ids, prompts)):
            if len(ids) >= self.context:
                detail = f"the prompt takes {len(ids):,} tokens, the model's context holds {self.context:,}"
                replies[index] = Reply(status=Status.TOO_LONG, detail=detail, prompt_tokens=len(ids))
        order = sorted(set(range(len(requests))) - set(replies), key=lambda index: (prompts[index], index))
        if order and self.model is not None:
            for rows in _batches(order, prompts, self._options.batch, pads=self._pads):
                answers = self._decode([requests[row] for row in rows], [prompts[row] for row in rows])
                replies |= dict(zip(rows, answers, strict=True))
        return [replies[index] for index in range(len(requests))]

    def tokens(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self.chat.ids(text))

    def _decode(self, requests: Sequence[Request], prompts: Sequence[str]) -> list[Reply]:
        start = time.perf_counter()
        with torch.inference_mode():
            ids, mask, cache = self._read(prompts)
            limit = min(max(request.max_tokens for request in requests), self.context - ids.shape[1])
            sampling = SeededSampling(requests, [self._matcher(request) for request in requests], self._end)
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                **({} if cache is None else {self._cache_argument: cache}),
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
        if self._shares and len(prompts) > 1 and len(set(prompts)) == 1 and ids.shape[1] > 1:
            cache = optional_import("transformers").DynamicCache(config=self.model.config.get_text_config())
            keep = {"logits_to_keep": 1} if "logits_to_keep" in self._arguments else {}
            self.model(ids[:1, :-1], use_cache=True, **keep, **{self._cache_argument: cache})
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
            try:
                self._grammar_tokenizer = tokenizer_for_grammar(self.tokenizer, self.chat.vocabulary or 0)
            except (ValueError, RuntimeError) as error:
                raise RewriterError(
                    f"no grammar can be made for the tokenizer of {self._base} ({one_line(str(error), 100)}): run the "
                    "model in a server, and give its address"
                ) from error
        return PlanMatcher(self._grammar_tokenizer, request.space, request.parent)


def _batches(order: Sequence[int], prompts: Sequence[str], size: int, *, pads: bool) -> Iterator[list[int]]:
    """Split the order into batches; prompts shared by several requests get batches of their own.

    Without padding, a batch holds one prompt.
    """
    shared: dict[str, list[int]] = {}
    for index in order:
        shared.setdefault(prompts[index], []).append(index)
    single = [rows[0] for rows in shared.values() if len(rows) == 1 and pads]
    for rows in [*(rows for rows in shared.values() if len(rows) > 1 or not pads), single]:
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def _dtype(precision: str, device: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise RewriterError(f"no precision is called {precision!r}: choose {', '.join(PRECISIONS)}")
    fast = device.startswith("cuda") or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and fast) else torch.float32


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
