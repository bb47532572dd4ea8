"""Rewriter that runs a transformers model in this process: a hub id, a folder or a GGUF file, with adapters."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from more_itertools import chunked
from torch import Tensor

from nngen.errors import RewriterError
from nngen.llm import optional_import
from nngen.llm.rewriters.base import Kind, Options, Reply, Request, Status
from nngen.llm.rewriters.causal_models import check_adapter, context_of, load_config, load_model
from nngen.llm.rewriters.chat import Chat, load_tokenizer
from nngen.llm.rewriters.decoding import PlanMatcher, SeededSampling, tokenizer_for_grammar
from nngen.text import one_line


class Local:
    """Rewriter over transformers' ``generate``.

    Requests are decoded in batches of ``options.batch`` rows with a key-value cache, for which the common beginning of
    their prompts and the rest of each different prompt are computed once. The weights are loaded for the first prompt
    that fits the context.
    """

    trusted = False

    def __init__(self, base: str, options: Options | None = None) -> None:
        self._base, self._options = base, options = base, options or Options()
        if options.quantize and not options.device.startswith("cuda"):
            raise RewriterError("a base in 4 bits needs a CUDA device: leave --quantize out on the CPU")
        self.name = Path(base).name + (f"+{options.adapter.name}" if options.adapter else "")
        self.tokenizer = load_tokenizer(base, options.chat_template)
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
        """Tokenize prompts to ``(B, T)``, with their mask and the cache of all but their last tokens.

        What all prompts begin with is computed once, and the rest of each different prompt once. Padding lies between
        the two. One row needs no cache, and models whose state cannot be repeated get none.
        """
        different = list(dict.fromkeys(prompts))
        encoded = self.tokenizer(different, add_special_tokens=False)["input_ids"]
        cache = None
        if self._shares and len(prompts) > 1 and max(map(len, encoded)) > 1:
            cache = optional_import("transformers").DynamicCache(config=self.model.config.get_text_config())
        # A sliding window would count padding inside of it, so there it comes first.
        begins = cache is not None and (len(different) == 1 or not any(getattr(cache, "is_sliding", ())))
        shared = _shared(encoded) if begins else 0
        ids, mask = (part.to(self.model.device) for part in _padded(encoded, shared, self.tokenizer.pad_token_id))
        rows = torch.tensor([different.index(prompt) for prompt in prompts], device=ids.device)
        if cache is not None:
            self._fill(cache, ids, mask, shared)
            cache.batch_select_indices(rows)
        return ids[rows], mask[rows], cache

    def _fill(self, cache: Any, ids: Tensor, mask: Tensor, shared: int) -> None:
        """Compute the cache of all but the last token of each row; the first ``shared`` tokens are those of all."""
        options = {"use_cache": True, self._cache_argument: cache}
        options |= {"logits_to_keep": 1} if "logits_to_keep" in self._arguments else {}
        if shared:
            self.model(ids[:1, :shared], **options)
            cache.batch_repeat_interleave(len(ids))
        if shared < ids.shape[1] - 1:
            places = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:-1]
            self.model(ids[:, shared:-1], attention_mask=mask[:, :-1], position_ids=places, **options)

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
    """Split the order, in which equal prompts are neighbours; without padding, a batch holds one prompt."""
    groups = [list(order)] if pads else [list(rows) for _, rows in groupby(order, key=prompts.__getitem__)]
    for rows in groups:
        yield from chunked(rows, size)


def _shared(encoded: Sequence[Sequence[int]]) -> int:
    """Count the first tokens that all rows have, without the last token of any."""
    least = min(map(len, encoded)) - 1
    return next((place for place in range(least) if len({ids[place] for ids in encoded}) > 1), least)


def _padded(encoded: Sequence[Sequence[int]], shared: int, pad: int) -> tuple[Tensor, Tensor]:
    """Pad rows behind the tokens that they share, and return them with their mask, both ``(B, T)``."""
    longest = max(map(len, encoded))
    gaps = [longest - len(ids) for ids in encoded]
    rows = [[*ids[:shared], *[pad] * gap, *ids[shared:]] for ids, gap in zip(encoded, gaps, strict=True)]
    mask = [[1] * shared + [0] * gap + [1] * (longest - gap - shared) for gap in gaps]
    return torch.tensor(rows), torch.tensor(mask)
