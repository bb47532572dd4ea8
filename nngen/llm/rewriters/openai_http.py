"""A rewriter behind any OpenAI-compatible server.

What goes wrong is a reply's status, never an exception: refused connections, time-outs, 429 and
5xx (tried again, after what ``Retry-After`` says), replies cut in the middle, answers that are not
the JSON agreed on.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from nngen.errors import RewriterError
from nngen.llm.rewriters.base import Kind, Reply, Request, Status
from nngen.seeds import derive

__all__ = ["KEY_VARIABLES", "Http"]

KEY_VARIABLES = ("NNGEN_API_KEY", "OPENAI_API_KEY")
"""Where the key is looked for, in order. It is sent to the server and goes nowhere else."""

_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_NO_SCHEMA = frozenset({400, 422})
_LONGEST_WAIT_S = 60.0
_LARGEST = 16 * 2**20


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one exchange brought: a body, or a status with its reason."""

    body: bytes = b""
    status: Status = Status.OK
    detail: str = ""
    code: int = 0
    wait_s: float | None = None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a key must not travel to a host that nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Http:
    """Asks a server's ``/chat/completions``.

    Args:
        url: Its address, with or without ``/v1`` and ``/chat/completions``.
        model: The model's name there; the server's first by default.
        timeout_s: Longest wait for one answer.
        attempts: How often one request is sent at most.
        parallel: Requests under way at one time.
        sleep: Waits; tests pass their own.

    Raises:
        RewriterError: If the address is none.
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
        self._timeout_s, self._attempts, self._parallel, self._sleep = timeout_s, attempts, parallel, sleep
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._schema = True

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request; several are under way at one time."""
        if not self.model:
            self._ask_model()
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(self._one, requests))

    def _ask_model(self) -> None:
        """Take the server's first model; where it names none, no name is sent, and the server takes the one it has."""
        answer = self._exchange("/models", None)
        with contextlib.suppress(ValueError, LookupError, TypeError):
            self.model = str(json.loads(answer.body)["data"][0]["id"])

    def _one(self, request: Request) -> Reply:
        start = time.perf_counter()
        schema = self._schema and request.kind is Kind.PLAN and request.space is not None
        jitter = random.Random(derive(request.seed, "back-off"))
        attempt, answer = 0, _Answer()
        while attempt < self._attempts:
            attempt += 1
            answer = self._exchange("/chat/completions", self._body(request, schema=schema))
            if answer.code in _NO_SCHEMA and schema:
                # Not every server knows schemas: ask without from now on; the reader judges the reply.
                schema = self._schema = False
                continue
            if answer.status is not Status.BUSY or attempt == self._attempts:
                break
            backoff = min(2.0 ** (attempt - 1), _LONGEST_WAIT_S) * (0.5 + jitter.random() / 2)
            self._sleep(backoff if answer.wait_s is None else min(answer.wait_s, _LONGEST_WAIT_S))
        reply = _read(answer) if answer.status is Status.OK else Reply(status=answer.status, detail=answer.detail)
        return replace(reply, seconds=time.perf_counter() - start, attempts=attempt)

    def _body(self, request: Request, *, schema: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            **({"model": self.model} if self.model else {}),
            "messages": [message.to_dict() for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "stream": False,
        }
        if schema and request.space is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "plan", "strict": True, "schema": request.space.schema()},
            }
        return body

    def _exchange(self, path: str, body: Mapping[str, Any] | None) -> _Answer:
        """Send one request and read all of its answer."""
        data = None if body is None else json.dumps(body).encode()
        message = urllib.request.Request(f"{self._root}{path}", data=data, headers=_headers())  # noqa: S310
        try:
            with self._opener.open(message, timeout=self._timeout_s) as response:
                content = response.read(_LARGEST + 1)
                if len(content) > _LARGEST:
                    return _Answer(status=Status.GARBLED, detail=f"the answer is larger than {_LARGEST:,} bytes")
                if response.length:
                    # A read with a limit does not complain when the connection ends early.
                    return _Answer(status=Status.CUT, detail=f"the connection broke after {len(content):,} bytes")
                return _Answer(body=content)
        except urllib.error.HTTPError as error:
            with error:
                return _refusal(error)
        except TimeoutError:
            return _Answer(status=Status.TIMEOUT, detail=f"no answer within {self._timeout_s:g} s")
        except http.client.IncompleteRead as error:
            detail = f"the connection broke after {len(error.partial):,} bytes"
            return _Answer(status=Status.CUT, detail=detail)
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                return _Answer(status=Status.TIMEOUT, detail=f"no answer within {self._timeout_s:g} s")
            return _Answer(status=Status.REFUSED, detail=f"nobody answers at {self._root}: {error.reason}")
        except (http.client.HTTPException, OSError) as error:
            return _Answer(status=Status.CUT, detail=f"the connection broke: {type(error).__name__}")


def _headers() -> dict[str, str]:
    key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
    headers = {"Content-Type": "application/json", "User-Agent": "nngen"}
    return headers | ({"Authorization": f"Bearer {key}"} if key else {})


def _refusal(error: urllib.error.HTTPError) -> _Answer:
    code = error.code
    # What the server says may repeat the key that it was sent: the number has to be enough.
    detail = f"the server answered {code} {http.client.responses.get(code, '')}".strip()
    if code in _TRY_AGAIN:
        return _Answer(status=Status.BUSY, detail=detail, code=code, wait_s=_retry_after(error.headers["Retry-After"]))
    if code in (401, 403):
        detail += f": set the key in {KEY_VARIABLES[0]}"
    return _Answer(status=Status.REJECTED, detail=detail, code=code)


def _retry_after(text: str | None) -> float | None:
    """Read seconds or a date (RFC 9110)."""
    if not text:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None


def _read(answer: _Answer) -> Reply:
    """Read the body of a 200."""
    try:
        data = json.loads(answer.body)
        choice = data["choices"][0]
        text = choice["message"]["content"]
        counts = data.get("usage") or {}
        read, written = int(counts.get("prompt_tokens") or 0), int(counts.get("completion_tokens") or 0)
        if not isinstance(text, str):
            return Reply(status=Status.NOTHING, detail="the reply holds no text", prompt_tokens=read)
    except (ValueError, LookupError, TypeError, AttributeError):
        return Reply(status=Status.GARBLED, detail="the server's answer is not a chat completion")
    cut = choice.get("finish_reason") == "length"
    return Reply(
        text=text,
        status=Status.CUT if cut else Status.OK if text.strip() else Status.NOTHING,
        detail="the reply reached the token limit" if cut else "",
        prompt_tokens=read,
        reply_tokens=written,
    )
