"""Rewriter behind an OpenAI-compatible server.

A failure becomes the status of a reply and is never raised: refused connections, time-outs, 429 and
5xx (tried again after the wait in ``Retry-After``), replies cut in the middle, and answers that are
not the agreed JSON. One clock runs for a whole exchange, however slowly its bytes come.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import tenacity

from nngen.errors import RewriterError
from nngen.llm.rewriters.base import Kind, Reply, Request, Status
from nngen.seeds import derive
from nngen.text import one_line

KEY_VARIABLES = ("NNGEN_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, in order. The key is sent to the server and goes nowhere else."""

_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_NO_SCHEMA = frozenset({400, 422})
_MAX_WAIT_S = 60.0
_MAX_BYTES = 4 * 2**20  # the longest reply has 24,000 tokens; JSON of this size takes under 0.3 GiB to read
_MAX_COUNT = 2**53  # counts are stored as JSON, whose readers may hold no larger integer
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""Raised where foreign JSON is broken, nested too deep, or of other types than agreed."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """Result of one exchange: a body, or a status with its reason."""

    body: bytes = b""
    status: Status = Status.OK
    detail: str = ""
    code: int = 0
    wait_s: float | None = None


class Http:
    """Rewriter that asks a server's ``/chat/completions``.

    Args:
        url: Address of the server, with or without ``/v1`` and ``/chat/completions``.
        model: Name of the model on the server; by default the first that the server lists.
        timeout_s: Time limit of one exchange, from the connection to the last byte.
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
        timeout_s: float = 120.0,
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
        self._certificates = httpx.create_ssl_context()
        self._schema = True

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request; several are under way at one time."""
        with ThreadPoolExecutor(self._parallel) as pool:
            if not self.model:
                # A server that lists no model is asked without a name and uses the one it has.
                with contextlib.suppress(*_MALFORMED):
                    listed = json.loads(pool.submit(self._exchange, "GET", "/models").result().body)["data"][0]["id"]
                    self.model = listed if listed == one_line(listed) else ""
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
        answer = retrying(self._ask, request)
        reply = (
            reply_of(answer.body) if answer.status is Status.OK else Reply(status=answer.status, detail=answer.detail)
        )
        attempts = int(retrying.statistics["attempt_number"])
        return replace(reply, seconds=time.perf_counter() - start, attempts=attempts)

    def _ask(self, request: Request) -> _Answer:
        body: dict[str, Any] = {
            **({"model": self.model} if self.model else {}),
            "messages": [message.to_dict() for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "stream": False,
        }
        if self._schema and request.kind is Kind.PLAN and request.space is not None:
            schema = {"name": "plan", "strict": True, "schema": request.space.schema()}
            constrained = {**body, "response_format": {"type": "json_schema", "json_schema": schema}}
            answer = self._exchange("POST", "/chat/completions", constrained)
            if answer.code not in _NO_SCHEMA:
                return answer
            # Not every server supports schemas: from now on none is sent, and the parser checks the reply.
            self._schema = False
        return self._exchange("POST", "/chat/completions", body)

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> _Answer:
        """Send one request and read the whole answer, up to 4 MiB."""
        # httpx limits each read by itself, so a server that sends a byte now and then would never time out.
        return asyncio.run(self._timed(method, path, body))

    async def _timed(self, method: str, path: str, body: Mapping[str, Any] | None) -> _Answer:
        content = bytearray()
        # Compressed answers could unpack to more than the limit on their size.
        headers = {"User-Agent": "nngen", "Accept-Encoding": "identity", "Content-Type": "application/json"}
        # Read for each request: no object keeps the key.
        if key := next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None):
            headers["Authorization"] = f"Bearer {key}"
        # Redirects stay unfollowed: the key must not travel to another host.
        client = httpx.AsyncClient(verify=self._certificates, timeout=None, follow_redirects=False)  # noqa: S113
        # JSON escapes leave plain ASCII, whatever characters a prompt quotes.
        sent = None if body is None else json.dumps(body).encode()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                client,
                client.stream(method, f"{self._root}{path}", content=sent, headers=headers) as response,
            ):
                if not response.is_success:
                    return _refusal(response)
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > _MAX_BYTES:
                        return _Answer(status=Status.GARBLED, detail=f"the answer is larger than {_MAX_BYTES:,} bytes")
                return _Answer(body=bytes(content))
        except UnicodeError:
            detail = f"the key in {' or '.join(KEY_VARIABLES)} holds characters that a header cannot hold"
            return _Answer(status=Status.REJECTED, detail=detail)
        except TimeoutError:
            return _Answer(status=Status.TIMEOUT, detail=f"no answer within {self._timeout_s:g} s")
        except httpx.ConnectError as error:
            return _Answer(status=Status.REFUSED, detail=f"no server answers at {self._root}: {error}")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            where = f"after {len(content):,} bytes" if content else f"({type(error).__name__})"
            return _Answer(status=Status.CUT, detail=f"the connection broke {where}")


def _refusal(response: httpx.Response) -> _Answer:
    code = response.status_code
    phrase = http.HTTPStatus(code).phrase if code in set(http.HTTPStatus) else ""
    # The server's own text may repeat the key that it was sent: the status code has to be enough.
    detail = f"the server answered {code} {phrase}".strip()
    if code in _TRY_AGAIN:
        wait_s = _retry_after(response.headers.get("Retry-After", ""))
        return _Answer(status=Status.BUSY, detail=detail, code=code, wait_s=wait_s)
    if code in (401, 403):
        detail += f": set the key in {KEY_VARIABLES[0]}"
    return _Answer(status=Status.REJECTED, detail=detail, code=code)


def _retry_after(text: str) -> float | None:
    """Read seconds or a date (RFC 9110); None where it is neither."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))  # 0 for nan
    with contextlib.suppress(TypeError, ValueError, ArithmeticError, OSError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


def reply_of(body: bytes) -> Reply:
    """Read the body of a 200, which may be anything."""
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        text = choice["message"]["content"]
        counts = data.get("usage") or {}
        read, written = int(counts.get("prompt_tokens") or 0), int(counts.get("completion_tokens") or 0)
        if not 0 <= min(read, written) <= max(read, written) < _MAX_COUNT:
            raise ValueError("counts out of range")
        if not isinstance(text, str):
            return Reply(status=Status.NOTHING, detail="the reply holds no text", prompt_tokens=read)
    except _MALFORMED:
        return Reply(status=Status.GARBLED, detail="the server's answer is not a chat completion")
    cut = choice.get("finish_reason") == "length"
    return Reply(
        text=text,
        status=Status.CUT if cut else Status.OK if text.strip() else Status.NOTHING,
        detail="the reply reached the token limit" if cut else "",
        prompt_tokens=read,
        reply_tokens=written,
    )
