"""Rewriter behind an OpenAI-compatible server.

A failure becomes the status of a reply and is never raised: refused connections, time-outs, 429 and
5xx (tried again after the wait in ``Retry-After``), replies cut in the middle, and answers that are
not the agreed JSON. One clock runs for a whole exchange, however slowly its bytes come.

A parameter that the server refuses is renamed or left out, and the request is sent again without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import random
import re
import ssl
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx
import tenacity

from nngen.errors import RewriterError
from nngen.llm.rewriters.base import Kind, Reply, Request, Status, Turn, without_system
from nngen.llm.rewriters.server_replies import (
    KEY_VARIABLES,
    MALFORMED,
    chat_model,
    read_reply,
    refusal_message,
    server_key,
    without_key,
)
from nngen.seeds import derive
from nngen.text import listed, one_line

_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_INVALID = frozenset({400, 422})
_MAX_CHANGES = 8  # more than there are parameters to leave out
_MAX_WAIT_S = 60.0
_TIMEOUT_S = 120.0
_TOKENS_PER_S = 10.0  # of a slow server; longer replies get more time
_ROOM = 8192  # tokens for a model that reasons before it answers
_MAX_BYTES = 4 * 2**20  # the longest reply has 24,000 tokens; JSON of this size takes under 0.3 GiB to read
_MAX_REFUSAL = 2**16
_PARAMETERS = ("max_completion_tokens", "max_tokens", "temperature", "seed", "stream", "response_format")
_SYSTEM = re.compile(
    r"system\W+(role|message|prompt)|role\b.*\bsystem\b|roles must alternate", re.IGNORECASE | re.DOTALL
)
_CONTEXT = re.compile(r"context[ _](length|size|window)|prompt is too long|exceed_context", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Result of one exchange: a body, or a status with its reason."""

    body: bytes = b""
    status: Status = Status.OK
    detail: str = ""
    code: int = 0
    said: str = ""  # text of a refusal as the server sent it, which may repeat the key
    wait_s: float | None = None


class Http:
    """Rewriter that asks a server's ``/chat/completions``.

    Args:
        url: Address of the server, with or without ``/v1`` and ``/chat/completions``.
        model: Name of the model on the server; by default the first that the server lists.
        timeout_s: Time limit of one exchange, from the connection to the last byte; by default 120 s, or as long as
            10 tokens a second take.
        attempts: Most attempts for one request.
        parallel: Most requests under way at one time.
        sleep: Function that waits; tests pass their own.

    Raises:
        RewriterError: If the address is not valid.
    """

    trusted = False

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        timeout_s: float | None = None,
        attempts: int = 4,
        parallel: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise RewriterError("a server's address is http://HOST:PORT/v1 or https://..., with no key in it")
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        self._root = f"{parts.scheme}://{parts.netloc}{path or '/v1'}"
        self.model = model
        self.name = f"{model or 'server'}@{parts.netloc}"
        self._attempts, self._parallel, self._sleep, self._timeout_s = attempts, parallel, sleep, timeout_s
        # Found out from the server's refusals, and kept for all later requests.
        self._left_out: set[str] = set()
        self._fold_system = False
        self._room = 0

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request; several are under way at one time."""
        with ThreadPoolExecutor(self._parallel) as pool:
            if not self.model:
                others: list[str] = []
                # A server that lists no model is asked without a name and uses the one it has.
                with contextlib.suppress(*MALFORMED):
                    answer = pool.submit(self._exchange, "GET", "/models").result()
                    self.model, others = chat_model(json.loads(answer.body))
                if others:
                    detail = f"the server lists no model for chats, only {listed(others, 4)}: name one with --model"
                    return [Reply(status=Status.REJECTED, detail=one_line(detail)) for _ in requests]
            return list(pool.map(self._answer, requests))

    def _answer(self, request: Request) -> Reply:
        start = time.perf_counter()
        jitter = random.Random(derive(request.seed, "back-off"))

        def wait_s(state: tenacity.RetryCallState) -> float:
            answer: _Answer = state.outcome.result()  # type: ignore[union-attr]
            backoff = 2.0 ** (state.attempt_number - 1) * (0.5 + jitter.random() / 2)
            return min(_MAX_WAIT_S, backoff if answer.wait_s is None else answer.wait_s)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda answer: answer.status is Status.BUSY),
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=wait_s,
            sleep=self._sleep,
            retry_error_callback=lambda state: state.outcome.result(),  # type: ignore[union-attr]
        )
        attempts = 0
        while True:
            room = self._room
            answer = retrying(self._ask, request)
            attempts += int(retrying.statistics["attempt_number"])
            reply = Reply(status=answer.status, detail=answer.detail)
            reasoned = False
            if answer.status is Status.OK:
                reply, reasoned = read_reply(answer.body)
            # A model that spent the whole limit on reasoning is asked once more, with room for it.
            if room or request.exact or not reasoned or reply.status is not Status.CUT:
                break
            self._room = _ROOM
        text = without_key(reply.text, whole=True)
        return replace(reply, text=text, seconds=time.perf_counter() - start, attempts=attempts)

    def _ask(self, request: Request) -> _Answer:
        """Send a request; what the server refuses of it is renamed or left out, and it is sent again."""
        guessed = False
        for _ in range(_MAX_CHANGES):
            body = self._body(request)
            answer = self._exchange("POST", "/chat/completions", body)
            if answer.code not in _INVALID | {500}:
                break
            named = next(
                (name for name in _PARAMETERS if name in body and re.search(rf"\b{name}\b", answer.said)), None
            )
            if named is not None:
                self._left_out.add(named)
                if named == "max_tokens":  # as OpenAI's models that reason do
                    self._room = _ROOM
            elif _SYSTEM.search(answer.said) and not self._fold_system:
                self._fold_system = True
            elif answer.code in _INVALID and "response_format" in body:
                # Not every server that refuses schemas says so.
                self._left_out.add("response_format")
                guessed = True
            else:
                if guessed:  # the schema was not the reason
                    self._left_out.discard("response_format")
                break
        return answer

    def _body(self, request: Request) -> dict[str, Any]:
        turns: list[Turn] = [message.to_dict() for message in request.messages]
        limit = "max_completion_tokens" if "max_tokens" in self._left_out else "max_tokens"
        body: dict[str, Any] = {
            **({"model": self.model} if self.model else {}),
            "messages": without_system(turns) if self._fold_system else turns,
            limit: request.max_tokens + (0 if request.exact else self._room),
            "temperature": request.temperature,
            "seed": request.seed,
            "stream": False,
        }
        if request.kind is Kind.PLAN and request.space is not None:
            # Strict schemas need every field; an edit names few.
            strict = not request.space.edits(request.parent)
            schema = {"name": "plan", "strict": strict, "schema": request.space.reply_schema(request.parent)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return {name: value for name, value in body.items() if name not in self._left_out}

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> _Answer:
        """Send one request and read the whole answer, up to 4 MiB."""
        tokens = max((body or {}).get(name, 0) for name in ("max_tokens", "max_completion_tokens"))
        limit_s = self._timeout_s or max(_TIMEOUT_S, tokens / _TOKENS_PER_S)
        # httpx limits each read by itself, so a server that sends a byte now and then would never time out.
        return asyncio.run(self._timed(method, path, body, limit_s))

    async def _timed(self, method: str, path: str, body: Mapping[str, Any] | None, limit_s: float) -> _Answer:
        content = bytearray()
        # Compressed answers could unpack to more than the limit on their size.
        headers = {"User-Agent": "nngen", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        # Read for each request: no object keeps the key.
        if key := server_key():
            headers["Authorization"] = f"Bearer {key}"
        # Redirects stay unfollowed: the key must not travel to another host.
        client = httpx.AsyncClient(verify=_certificates(), timeout=None, follow_redirects=False)  # noqa: S113
        # JSON escapes leave plain ASCII, whatever characters a prompt quotes.
        sent = None if body is None else json.dumps(body).encode()
        try:
            async with (
                asyncio.timeout(limit_s),
                client,
                client.stream(method, f"{self._root}{path}", content=sent, headers=headers) as response,
            ):
                async for chunk in response.aiter_raw():
                    content += chunk
                    if not response.is_success and len(content) > _MAX_REFUSAL:
                        break
                    if len(content) > _MAX_BYTES:
                        return _Answer(status=Status.GARBLED, detail=f"the answer is larger than {_MAX_BYTES:,} bytes")
                whole = _unpacked(bytes(content), response.headers.get("Content-Encoding", ""))
                return _Answer(body=whole) if response.is_success else _refusal(response, whole)
        except UnicodeError:
            detail = f"the key in {' or '.join(KEY_VARIABLES)} holds characters that a header cannot hold"
            return _Answer(status=Status.REJECTED, detail=detail)
        except TimeoutError:
            return _Answer(status=Status.TIMEOUT, detail=f"no answer within {limit_s:g} s")
        except httpx.ConnectError as error:
            return _Answer(status=Status.REFUSED, detail=f"no server answers at {self._root}: {error}")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            where = f"after {len(content):,} bytes" if content else f"({type(error).__name__})"
            return _Answer(status=Status.CUT, detail=f"the connection broke {where}")


@cache
def _certificates() -> ssl.SSLContext:
    """Read the certificates of authorities, once: it takes longer than a short answer."""
    return httpx.create_ssl_context()


def _unpacked(content: bytes, encoding: str) -> bytes:
    """Unpack an answer that was compressed unasked, up to the limit on its size."""
    if encoding in ("gzip", "deflate"):
        with contextlib.suppress(zlib.error):
            return zlib.decompressobj(wbits=47).decompress(content, _MAX_BYTES)
    return content


def _refusal(response: httpx.Response, content: bytes) -> _Answer:
    code = response.status_code
    phrase = http.HTTPStatus(code).phrase if code in set(http.HTTPStatus) else ""
    said = content.decode("utf-8", "replace")
    message = refusal_message(said)
    detail = f"the server answered {code} {phrase}".strip() + (f": {message}" if message else "")
    if code in _TRY_AGAIN:
        wait_s = _retry_after(response.headers.get("Retry-After", ""))
        return _Answer(status=Status.BUSY, detail=detail, code=code, said=said, wait_s=wait_s)
    if code in (401, 403):
        detail += f"; set the key in {KEY_VARIABLES[0]}"
    status = Status.TOO_LONG if _CONTEXT.search(message) else Status.REJECTED
    return _Answer(status=status, detail=detail, code=code, said=said)


def _retry_after(text: str) -> float | None:
    """Read seconds or a date (RFC 9110); None where it is neither."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))  # 0 for nan
    with contextlib.suppress(TypeError, ValueError, ArithmeticError, OSError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None
