"""Rewriter over an OpenAI-compatible HTTP interface."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nngen.errors import RewriterError
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.base import Kind, Message, Request, Status
from nngen.llm.rewriters.openai_http import Http
from nngen.llm.rewriters.server_replies import KEY_VARIABLES
from nngen.surrogate.plan_text import plan_text

SPACE = PlanSpace(families=tuple("ABCDEFG"))
ASKED = Request(kind=Kind.PLAN, messages=(Message(role="user", content="a plan, please"),), seed=3, space=SPACE)
PLAN = plan_text(SPACE.draw(Random(0)))

Handle = Callable[[http.server.BaseHTTPRequestHandler, dict[str, Any]], None]


def _send(handler: http.server.BaseHTTPRequestHandler, code: int, body: bytes, **headers: str) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def _chat(text: str | None, reason: str = "stop") -> bytes:
    choice = {"message": {"content": text}, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}).encode()


class Server:
    """Local server with scripted answers that records its requests."""

    def __init__(self) -> None:
        self.script: list[Handle] = []
        self.models = b'{"data": [{"id": "small"}]}'
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, dict(self.headers), body))
                outer.script.pop(0)(self, body)

            def do_GET(self) -> None:
                outer.asked.append((self.path, dict(self.headers), {}))
                _send(self, 200, outer.models)

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.server.shutdown()
    running.server.server_close()


def _answers(*bodies: bytes) -> list[Handle]:
    return [lambda handler, _, body=body: _send(handler, 200, body) for body in bodies]


def test_a_reply_carries_its_cost(server: Server) -> None:
    server.script = _answers(_chat(PLAN))
    reply = Http(server.url).propose([ASKED])[0]
    assert (reply.text, reply.status) == (PLAN, Status.OK)
    assert (reply.prompt_tokens, reply.reply_tokens, reply.attempts) == (5, 7, 1)
    assert reply.seconds > 0
    path, _, body = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["seed"]) == ("small", 3)
    assert body["response_format"]["json_schema"]["schema"] == SPACE.schema()


def test_a_parent_that_can_be_edited_asks_for_an_edit(server: Server) -> None:
    parent = SPACE.draw(Random(0))
    server.script = _answers(_chat('{"gate.width":16}'))
    Http(server.url).propose([replace(ASKED, parent=parent)])
    asked = server.asked[-1][2]["response_format"]["json_schema"]
    assert asked == {"name": "plan", "strict": False, "schema": SPACE.reply_schema(parent)}


def test_many_requests_keep_their_order(server: Server) -> None:
    def echo(handler: Any, body: dict[str, Any]) -> None:
        _send(handler, 200, _chat(body["messages"][0]["content"]))

    server.script = [echo] * 12
    asked = [Request(kind=Kind.REGION, messages=(Message(role="user", content=str(n)),), seed=n) for n in range(12)]
    assert [reply.text for reply in Http(server.url, "m").propose(asked)] == [str(n) for n in range(12)]


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again_after_its_retry_after(server: Server, code: int) -> None:
    waits: list[float] = []
    server.script = [
        lambda handler, _: _send(handler, code, b"busy", Retry_After="7"),
        lambda handler, _: _send(handler, code, b"busy", Retry_After="soon"),
        lambda handler, _: _send(handler, code, b"busy", Retry_After="9999"),
        *_answers(_chat(PLAN)),
    ]
    reply = Http(server.url, "m", sleep=waits.append).propose([ASKED])[0]
    assert reply.status is Status.OK
    assert reply.attempts == 4
    assert waits[0] == 7.0
    assert 1.0 <= waits[1] <= 2.0
    assert waits[2] == 60.0


def test_attempts_are_limited(server: Server) -> None:
    server.script = [lambda handler, _: _send(handler, 429, b"busy")] * 4
    reply = Http(server.url, "m", sleep=lambda _: None).propose([ASKED])[0]
    assert (reply.status, reply.attempts) == (Status.BUSY, 4)
    assert reply.detail == "the server answered 429 Too Many Requests: busy"


@pytest.mark.parametrize("code", [401, 404, 418, 302])
def test_rejected_requests_are_not_repeated(server: Server, code: int) -> None:
    server.script = [lambda handler, _: _send(handler, code, b"no", Location="http://127.0.0.1:9/")]
    reply = Http(server.url, "m").propose([ASKED])[0]
    assert (reply.status, reply.attempts) == (Status.REJECTED, 1)
    assert str(code) in reply.detail


def test_a_server_without_schemas_gets_none_from_then_on(server: Server) -> None:
    server.script = [lambda handler, _: _send(handler, 400, b"unknown field"), *_answers(_chat(PLAN), _chat(PLAN))]
    rewriter = Http(server.url, "m")
    assert rewriter.propose([ASKED])[0].status is Status.OK
    assert rewriter.propose([ASKED])[0].attempts == 1
    assert ["response_format" in body for _, _, body in server.asked] == [True, False, False]


def test_a_silent_server_times_out(server: Server) -> None:
    gate = threading.Event()
    server.script = [lambda *_: (gate.wait(10), None)[1]]
    reply = Http(server.url, "m", timeout_s=0.3).propose([ASKED])[0]
    gate.set()
    assert reply.status is Status.TIMEOUT
    assert reply.detail == "no answer within 0.3 s"


def test_a_refused_connection_is_a_status() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    reply = Http(url, "m").propose([ASKED])[0]
    assert reply.status is Status.REFUSED
    assert url in reply.detail


def test_a_broken_connection_is_a_cut_reply(server: Server) -> None:
    def broken(handler: Any, _: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "5000")
        handler.end_headers()
        handler.wfile.write(_chat(PLAN)[:40])
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    server.script = [broken]
    reply = Http(server.url, "m").propose([ASKED])[0]
    assert reply.status is Status.CUT
    assert "broke after 40 bytes" in reply.detail


@pytest.mark.long
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>hello</html>", Status.GARBLED),
        (b"{}", Status.GARBLED),
        (b'{"choices": []}', Status.GARBLED),
        (b'{"choices": 3}', Status.GARBLED),
        (b"[" * 100_000, Status.GARBLED),
        (b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1e999}}', Status.GARBLED),
        (b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":NaN}}', Status.GARBLED),
        (b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":-1}}', Status.GARBLED),
        (
            b'{"choices":[{"message":{"content":"x"}}],"usage":{"completion_tokens":1' + b"0" * 5000 + b"}}",
            Status.GARBLED,
        ),
        (b'{"choices":[{"message":{"content":"x"}}],"usage":[1]}', Status.GARBLED),
        (b"\xff\xfe{", Status.GARBLED),
        (b" " * (5 * 2**20), Status.GARBLED),
        (_chat(None), Status.EMPTY),
        (_chat("  "), Status.EMPTY),
        (b'{"choices": [{"message": {"content": null, "refusal": "I cannot"}}]}', Status.NOTHING),
        (b'{"error": {"message": "out of credits", "code": 402}}', Status.REJECTED),
        (b"data: {broken\n\ndata: [DONE]\n", Status.GARBLED),
        (_chat("{", "length"), Status.CUT),
    ],
)
def test_answers_in_another_form_have_a_status(server: Server, body: bytes, status: Status) -> None:
    server.script = _answers(body)
    assert Http(server.url, "m").propose([ASKED])[0].status is status


def test_the_key_is_sent_and_shown_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNGEN_API_KEY", "sk-secret")
    server.script = [lambda handler, _: _send(handler, 401, b"bad key sk-secret")]
    rewriter = Http(server.url, "m")
    reply = rewriter.propose([ASKED])[0]
    assert server.asked[-1][1]["Authorization"] == "Bearer sk-secret"
    assert "secret" not in repr(reply) + rewriter.name + repr(vars(rewriter))
    assert reply.detail == "the server answered 401 Unauthorized: bad key [key]; set the key in NNGEN_API_KEY"


@pytest.mark.parametrize(
    "said",
    [
        "wrong key: sk-proj-0123456789abcdef",
        "wrong key: 'sk-p****cdef'",
        "wrong key: sk-proj-01...cdef.",
        "wrong key: ...89abcdef",
        "wrong header: Bearer sk-proj-0123456789abcdef",
    ],
)
def test_no_part_of_the_key_is_shown(server: Server, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("NNGEN_API_KEY", "sk-proj-0123456789abcdef")
    server.script = [lambda handler, _: _send(handler, 403, json.dumps({"error": {"message": said}}).encode())]
    reply = Http(server.url, "m").propose([ASKED])[0]
    assert reply.detail.startswith("the server answered 403 Forbidden: wrong")
    assert "[key]" in reply.detail
    assert not any(part in reply.detail for part in ("sk-p", "cdef", "0123"))


def test_a_reply_that_repeats_the_key_is_kept_without_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNGEN_API_KEY", "sk-proj-0123456789abcdef")
    server.script = _answers(_chat("you sent sk-proj-0123456789abcdef"))
    assert Http(server.url, "m").propose([ASKED])[0].text == "you sent [key]"


@pytest.mark.long
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no such model", "param": null}}', "no such model"),
        (b'{"error": "no such model"}', "no such model"),
        (b'{"object": "error", "message": "no such model"}', "no such model"),
        (b'[{"error": {"code": 400, "message": "no such model"}}]', "no such model"),
        (b'{"detail": [{"loc": ["body", "model"], "msg": "no such model"}]}', "no such model"),
        (b"no such\n\x1b[31m model", "no such model"),
        (b"<html><head><title>404 no such model</title></head></html>", "404 no such model"),
        (b"<html></html>", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 60_000, "[" * 199 + "\u2026"),
        (b"", ""),
    ],
)
def test_the_message_of_a_refusal_is_shown(server: Server, body: bytes, message: str) -> None:
    server.script = [lambda handler, _: _send(handler, 404, body)]
    reply = Http(server.url, "m").propose([ASKED])[0]
    assert reply.detail == "the server answered 404 Not Found" + (f": {message}" if message else "")


def _refusing(*names: str, code: int = 400, said: str = "unsupported parameter: '{}'", **error: Any) -> Handle:
    """Answer as a server that refuses requests which hold one of these parameters."""

    def handle(handler: Any, body: dict[str, Any]) -> None:
        wrong = next((name for name in names if name in body), None)
        if wrong is None:
            return _send(handler, 200, _chat(PLAN))
        return _send(handler, code, json.dumps({"error": {"message": said.format(wrong), **error}}).encode())

    return handle


@pytest.mark.long
@pytest.mark.parametrize("code", [400, 422, 500])
@pytest.mark.parametrize("name", ["max_tokens", "temperature", "seed", "stream", "response_format"])
def test_a_refused_parameter_is_left_out_from_then_on(server: Server, name: str, code: int) -> None:
    server.script = [_refusing(name, code=code)] * 3
    rewriter = Http(server.url, "m")
    assert rewriter.propose([ASKED])[0].text == PLAN
    assert rewriter.propose([ASKED])[0].attempts == 1
    assert [name in body for _, _, body in server.asked] == [True, False, False]


def test_a_refused_limit_is_renamed_and_leaves_room_for_reasoning(server: Server) -> None:
    server.script = [_refusing("max_tokens"), *_answers(_chat(PLAN))]
    assert Http(server.url, "m").propose([ASKED])[0].text == PLAN
    assert server.asked[-1][2]["max_completion_tokens"] > 8000
    exact = Request(kind=Kind.PLAN, messages=ASKED.messages, seed=3, space=SPACE, max_tokens=99, exact=True)
    server.script = [_refusing("max_tokens"), *_answers(_chat(PLAN))]
    assert Http(server.url, "m").propose([exact])[0].text == PLAN
    assert server.asked[-1][2]["max_completion_tokens"] == 99


def test_every_parameter_may_be_refused(server: Server) -> None:
    names = ("max_tokens", "max_completion_tokens", "temperature", "seed", "stream", "response_format")
    server.script = [_refusing(*names)] * 7
    assert Http(server.url, "m").propose([ASKED])[0].text == PLAN
    assert sorted(server.asked[-1][2]) == ["messages", "model"]


def test_a_server_that_refuses_everything_is_asked_a_limited_number_of_times(server: Server) -> None:
    server.script = [_refusing("model", said="temperature seed max_tokens")] * 20
    reply = Http(server.url, "m").propose([ASKED])[0]
    assert (reply.status, len(server.asked) < 10) == (Status.REJECTED, True)


@pytest.mark.long
@pytest.mark.parametrize("code", [400, 500])
@pytest.mark.parametrize(
    "said",
    [
        "System role not supported",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "this model takes no system prompt",
    ],
)
def test_the_system_turn_goes_into_the_first_user_turn_where_it_is_refused(
    server: Server, code: int, said: str
) -> None:
    def handle(handler: Any, body: dict[str, Any]) -> None:
        if body["messages"][0]["role"] == "system":
            return _send(handler, code, json.dumps({"error": {"message": said}}).encode())
        return _send(handler, 200, _chat(PLAN))

    server.script = [handle] * 3
    turns = (Message(role="system", content="You design."), Message(role="user", content="Design."))
    asked = Request(kind=Kind.PLAN, messages=turns, seed=1, space=SPACE)
    rewriter = Http(server.url, "m")
    assert rewriter.propose([asked])[0].text == PLAN
    assert server.asked[-1][2]["messages"] == [{"role": "user", "content": "You design.\n\nDesign."}]
    assert rewriter.propose([asked])[0].attempts == 1


def test_a_refusal_for_another_reason_keeps_the_schema(server: Server) -> None:
    no_model = [lambda handler, _: _send(handler, 400, b'{"error": "no such model"}')] * 2
    server.script = [*no_model, *_answers(_chat(PLAN))]
    rewriter = Http(server.url, "m")
    first = rewriter.propose([ASKED])[0]
    assert (first.status, first.detail) == (Status.REJECTED, "the server answered 400 Bad Request: no such model")
    assert rewriter.propose([ASKED])[0].status is Status.OK
    assert ["response_format" in body for _, _, body in server.asked] == [True, False, True]


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 512 tokens.",
        "the request exceeds the available context size",
        "prompt is too long: 9 > 8",
    ],
)
def test_a_prompt_over_a_servers_context_has_a_status(server: Server, said: str) -> None:
    server.script = [lambda handler, _: _send(handler, 400, json.dumps({"message": said}).encode())] * 2
    reply = Http(server.url, "m").propose([ASKED])[0]
    assert reply.status is Status.TOO_LONG
    assert said in reply.detail


THINKING = {"content": "", "reasoning_content": "Hm. " * 50}


@pytest.mark.parametrize(
    "message", [THINKING, {"content": None, "reasoning": "Hm."}, {"content": "<think>Hm."}, {"content": ""}]
)
def test_a_model_that_reasons_is_given_room(server: Server, message: dict[str, Any]) -> None:
    def handle(handler: Any, body: dict[str, Any]) -> None:
        if body["max_tokens"] > 8000:
            return _send(handler, 200, _chat(f"<think>Hm.</think>{PLAN}"))
        return _send(handler, 200, json.dumps({"choices": [{"message": message, "finish_reason": "length"}]}).encode())

    server.script = [handle] * 3
    rewriter = Http(server.url, "m")
    reply = rewriter.propose([ASKED])[0]
    assert (SPACE.read(reply.text), reply.attempts) == (SPACE.read(PLAN), 2)
    assert rewriter.propose([ASKED])[0].attempts == 1
    exact = Request(kind=Kind.PLAN, messages=ASKED.messages, seed=3, space=SPACE, max_tokens=99, exact=True)
    server.script = [handle]
    cut = Http(server.url, "m").propose([exact])[0]
    assert (cut.status, cut.detail.endswith("raise --max-reply-tokens")) == (Status.CUT, True)


@pytest.mark.long
@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": [{"type": "text", "text": PLAN}]}}]},
        {"choices": [{"message": {"content": [{"type": "thinking", "thinking": "Hm."}, {"text": PLAN}]}}]},
        {"choices": [{"message": {"content": [PLAN[:9], {"text": PLAN[9:]}]}}]},
        {"choices": [{"message": {"content": {"type": "text", "text": PLAN}}}]},
        {"choices": [{"text": PLAN, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": PLAN}, "finish_reason": None}], "usage": None},
        {"choices": [{"message": {"content": PLAN}}], "usage": {"prompt_tokens": 5.0, "completion_tokens": None}},
    ],
)
def test_contents_in_every_form_are_read(server: Server, body: dict[str, Any]) -> None:
    server.script = _answers(json.dumps(body).encode())
    reply = Http(server.url, "m").propose([ASKED])[0]
    assert (reply.text, reply.status) == (PLAN, Status.OK)


def test_a_server_that_streams_unasked_is_read(server: Server) -> None:
    pieces = [{"delta": {"role": "assistant"}}, {"delta": {"content": PLAN[:9]}}, {"delta": {"content": PLAN[9:]}}]
    events = [{"choices": [piece]} for piece in pieces]
    events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": {"prompt_tokens": 5}}]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    server.script = _answers(f": a comment\n\n{body}".encode())
    reply = Http(server.url, "m").propose([ASKED])[0]
    assert (reply.text, reply.status, reply.prompt_tokens) == (PLAN, Status.OK, 5)


@pytest.mark.long
def test_an_answer_that_was_compressed_unasked_is_read(server: Server) -> None:
    packed, bomb = gzip.compress(_chat(PLAN)), gzip.compress(b" " * 2**28)
    server.script = [
        lambda handler, _: _send(handler, 200, packed, Content_Encoding="gzip"),
        lambda handler, _: _send(handler, 200, bomb, Content_Encoding="gzip"),
    ]
    rewriter = Http(server.url, "m")
    assert rewriter.propose([ASKED])[0].text == PLAN
    assert rewriter.propose([ASKED])[0].status is Status.GARBLED


@pytest.mark.long
@pytest.mark.parametrize(
    ("models", "name"),
    [
        ([{"id": "nomic-embed-text"}, {"id": "qwen3"}], "qwen3"),
        ([{"id": "bge-m3"}, {"id": "e5-large"}, {"id": "gte-base"}, {"id": "qwen3"}], "qwen3"),
        ([{"id": "whisper-1"}, {"id": "tts-1"}, {"id": "qwen3"}], "qwen3"),
        ([{"id": "x", "type": "embeddings"}, {"id": "qwen3", "type": "llm"}], "qwen3"),
        ([{"id": "x", "capabilities": {"completion_chat": False}}, {"id": "qwen3"}], "qwen3"),
        ([{"id": "qwen3", "capabilities": ["completion"]}], "qwen3"),
        ([{"name": "qwen3"}], "qwen3"),
        (["text-embedding-3-small", "qwen3"], "qwen3"),
        ([], ""),
    ],
)
@pytest.mark.parametrize("form", ["data", "models", ""])
def test_the_first_model_for_chats_is_taken(server: Server, models: list[Any], name: str, form: str) -> None:
    server.models, server.script = json.dumps({form: models} if form else models).encode(), _answers(_chat(PLAN))
    rewriter = Http(server.url)
    assert rewriter.propose([ASKED])[0].status is Status.OK
    assert rewriter.model == name


def test_a_server_without_a_model_for_chats_is_one_line(server: Server) -> None:
    server.models = json.dumps({"data": [{"id": "bge-m3"}, {"id": "nomic-embed-text"}]}).encode()
    reply = Http(server.url).propose([ASKED])[0]
    assert reply.status is Status.REJECTED
    assert reply.detail == (
        "the server lists no model for chats, only bge-m3 and nomic-embed-text: name one with --model"
    )


@pytest.mark.long
@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_sends_a_byte_now_and_then_times_out(server: Server, part: str) -> None:
    def drip(handler: Any, _: Any) -> None:
        if part == "body":
            handler.send_response(200)
            handler.send_header("Content-Length", "5000")
            handler.end_headers()
        for _byte in range(400):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    server.script = [drip]
    began = time.monotonic()
    reply = Http(server.url, "m", timeout_s=0.5).propose([ASKED])[0]
    assert (reply.status, reply.detail) == (Status.TIMEOUT, "no answer within 0.5 s")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"data": [{"id": 7}]}',
        b'{"data": [{"id": "a\\u001b[31mb"}]}',
        b'{"data": [{"id": "\\ud800"}]}',
    ],
    ids=["deep", "number", "escape", "surrogate"],
)
def test_a_broken_list_of_models_names_none(server: Server, body: bytes) -> None:
    server.models, server.script = body, _answers(_chat(PLAN))
    rewriter = Http(server.url)
    assert rewriter.propose([ASKED])[0].status is Status.OK
    assert rewriter.model == ""


@pytest.mark.parametrize("wait", ["nan", "-3", "inf", "Fri, 31 Dec 99999 23:59:59 GMT", "1" * 5000])
def test_odd_waits_are_bounded(server: Server, wait: str) -> None:
    waits: list[float] = []
    server.script = [lambda handler, _: _send(handler, 503, b"", Retry_After=wait), *_answers(_chat(PLAN))]
    assert Http(server.url, "m", sleep=waits.append).propose([ASKED])[0].status is Status.OK
    assert 0 <= waits[0] <= 60


def test_a_key_that_no_header_can_hold_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNGEN_API_KEY", "schl\u00fcssel\u4e00")
    reply = Http(server.url, "m").propose([ASKED])[0]
    assert reply.status is Status.REJECTED
    assert "NNGEN_API_KEY" in reply.detail
    assert "schl" not in reply.detail


def test_prompts_with_lone_surrogates_are_sent(server: Server) -> None:
    server.script = _answers(_chat("x"))
    asked = Request(kind=Kind.REGION, messages=(Message(role="user", content="a\ud800"),), seed=1)
    assert Http(server.url, "m").propose([asked])[0].status is Status.OK


@pytest.mark.parametrize("url", ["http://", "ftp://x/v1", "http://user:pass@host/v1", "host:80"])
def test_invalid_addresses_are_refused(url: str) -> None:
    with pytest.raises(RewriterError, match="a server's address is"):
        Http(url)


START_S = 300.0


@contextmanager
def _transformers_serve(model: Path, place: Path) -> Iterator[str]:
    """Start ``transformers serve`` on a free port, with a hub cache of its own and no network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "bfloat16"]
    (place / "hub" / "hub").mkdir(parents=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "hub")}
    log = place / "log"
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        began = time.monotonic()
        while server.poll() is None and time.monotonic() - began < START_S:
            with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                yield url
                return
            time.sleep(0.5)
        pytest.fail(f"transformers serve did not start within {START_S:g} s: {log.read_text()[-2000:]}")
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        # pytest shows it where the test fails.
        print(log.read_text()[-4000:])


@pytest.mark.slow
def test_a_real_server_with_the_same_weights(smollm_folder: Path, tmp_path: Path) -> None:
    """``transformers serve`` in a separate process, over the loopback interface."""
    for package in ("uvicorn", "fastapi", "openai"):
        pytest.importorskip(package, reason=f"transformers serve needs {package}")
    asked = Request(
        kind=Kind.REGION,
        messages=(Message(role="user", content="Name a colour of the sky in one word."),),
        seed=1,
        max_tokens=12,
        temperature=0.0,
    )
    with _transformers_serve(smollm_folder, tmp_path) as url:
        # With the model's name and without; the server lists only its hub cache, which is empty.
        named, unnamed = Http(url, str(smollm_folder), timeout_s=200.0), Http(url, timeout_s=200.0)
        replies = named.propose([asked]) + unnamed.propose([asked])
        other = Http(url, "another/model", timeout_s=200.0).propose([asked])[0]
    for reply in replies:
        assert reply.status in (Status.OK, Status.CUT), reply
        assert reply.text.strip()
        assert 0 < reply.reply_tokens <= 12
    assert replies[0].text == replies[1].text
    assert other.status is Status.REJECTED
    assert other.detail.startswith("the server answered 400 Bad Request: ")
    assert named.propose([asked])[0].status is Status.REFUSED
