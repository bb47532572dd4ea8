"""Reading of a server's answers: chat completions in any of their forms, refusals, and listings of models."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import Any

from nngen.llm.proposals.parsing import ReplyError, without_thoughts
from nngen.llm.rewriters.base import Reply, Status
from nngen.text import one_line

KEY_VARIABLES = ("NNGEN_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, in order. The key is sent to the server and goes nowhere else."""

_MAX_COUNT = 2**53  # counts are stored as JSON, whose readers may hold no larger integer
_MAX_MESSAGE = 200
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""Raised where foreign JSON is broken, nested too deep, or of other types than agreed."""

_NO_CHAT = re.compile(
    r"embed|rerank|\bbge\b|\bgte\b|\be5\b|minilm|colbert|whisper|transcribe|\btts\b|moderation|diffusion|dall-e|\bclip\b",
    re.IGNORECASE,
)
_NO_CHAT_TYPES = frozenset({"embedding", "embeddings", "rerank", "image", "audio", "moderation", "transcribe"})
_EVENTS = (b"data:", b"event:", b":")  # first words of a stream of events
_CUTS = frozenset({"length", "max_tokens", "model_length"})


def read_reply(body: bytes) -> tuple[Reply, bool]:
    """Read the body of a 200, which may be anything; also return whether the model reasoned before it answered."""
    try:
        data = _joined(body) if body.lstrip().startswith(_EVENTS) else json.loads(body)
        if "choices" not in data and data.get("error"):
            detail = f"the server answered with an error: {refusal_message(json.dumps(data))}"
            return Reply(status=Status.REJECTED, detail=detail), False
        choice = data["choices"][0]
        message = choice.get("message") or {"content": choice.get("text")}
        text = _text(message.get("content"))
        counts = data.get("usage") or {}
        read, written = int(counts.get("prompt_tokens") or 0), int(counts.get("completion_tokens") or 0)
        if not 0 <= min(read, written) <= max(read, written) < _MAX_COUNT:
            raise ValueError("counts out of range")
    except MALFORMED:
        return Reply(status=Status.GARBLED, detail="the server's answer is not a chat completion"), False
    empty = not text.strip()
    reasoned = bool(message.get("reasoning_content") or message.get("reasoning")) or _is_open(text)
    status, detail = Status.OK, ""
    if str(choice.get("finish_reason")) in _CUTS:
        status, detail = Status.CUT, "the reply reached the token limit"
        if reasoned or empty:
            detail += " while the model reasoned: raise --max-reply-tokens"
    elif empty and isinstance(message.get("refusal"), str):
        status, detail = Status.NOTHING, f"the model refused: {one_line(message['refusal'], _MAX_MESSAGE)}"
    elif empty:
        status, detail = Status.EMPTY, "the reply holds no text"
    return Reply(text=text, status=status, detail=detail, prompt_tokens=read, reply_tokens=written), reasoned or empty


def _text(content: Any) -> str:
    """Join the content of a message: a text, or a list of parts of which some are texts; "" for nothing."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return "".join(text for text in texts if isinstance(text, str))


def _joined(body: bytes) -> dict[str, Any]:
    """Join the events of a server that streams though it was asked not to.

    Raises:
        ValueError: If an event is not JSON.
    """
    lines = (line[5:].strip() for line in body.splitlines() if line.startswith(b"data:"))
    text, reasons, last = [], [], dict[str, Any]()
    for line in lines:
        if line == b"[DONE]":
            break
        last = json.loads(line)
        for choice in last.get("choices", ())[:1]:
            text.append(_text((choice.get("delta") or choice.get("message") or {}).get("content")))
            reasons.append(choice.get("finish_reason"))
    choice = {"message": {"content": "".join(text)}, "finish_reason": next(filter(None, reasons), None)}
    return {"choices": [choice], "usage": last.get("usage")}


def _is_open(text: str) -> bool:
    try:
        without_thoughts(text)
    except ReplyError:
        return True
    return False


def chat_model(listing: Any) -> tuple[str, list[str]]:
    """Return the first model of a listing that answers chats ("" for none), and the others if there is none."""
    rows = listing if isinstance(listing, list) else listing.get("data") or listing.get("models") or []
    others = []
    for row in rows:
        name = row if isinstance(row, str) else row.get("id") or row.get("name")
        if not isinstance(name, str) or name != one_line(name):
            continue
        abilities = {} if isinstance(row, str) else row.get("capabilities")
        silent = isinstance(abilities, dict) and abilities.get("completion_chat") is False
        if silent or _NO_CHAT.search(name) or (isinstance(row, dict) and row.get("type") in _NO_CHAT_TYPES):
            others.append(name)
        else:
            return name, []
    return "", others


def refusal_message(text: str) -> str:
    """Find the message in a refusal: JSON of any form, the title of a page, or the whole text; the key is cut out."""

    def find(value: Any) -> str:
        if isinstance(value, dict):
            value = [value.get(name) for name in ("message", "msg", "detail", "error", "errors", "error_description")]
        if isinstance(value, list):
            return next(filter(None, map(find, value)), "")
        return value if isinstance(value, str) else ""

    if text.lstrip().startswith("<"):
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        text = title[1] if title else ""
    with contextlib.suppress(*MALFORMED):
        text = find(json.loads(text))
    return one_line(without_key(text), _MAX_MESSAGE)


def server_key() -> str:
    """Return the key of the environment; "" for none."""
    return next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")


def without_key(text: str, *, whole: bool = False) -> str:
    """Cut the key out of a server's text: each word that holds a part of it, or the ``whole`` key alone."""
    key = server_key()
    if not key or whole:
        return text.replace(key, "[key]") if len(key) >= 8 else text
    # Servers shorten keys to their ends, or put stars in the middle.
    parts = {key[place : place + 6] for place in range(len(key) - 5)} | {key[:4]} if len(key) >= 8 else set()
    return " ".join(
        "[key]" if "***" in word or word.strip("'\".,:") == key or any(part in word for part in parts) else word
        for word in text.split(" ")
    )
