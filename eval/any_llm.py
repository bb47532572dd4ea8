"""Language models and servers as people have them: each proposes a plan and is tuned, or ends as one line.

Tiny models with random weights are made of ``tests/llm/tiny_models.py``, one for each architecture, chat template and
kind of tokenizer; a local server has one address for each behaviour. Exit code 1 if an exception came out, or a model
or server that has to work did not.

    python eval/any_llm.py --write
    python eval/any_llm.py --only servers
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from _page import Evaluation, note, table

from nngen.errors import NngenError
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.dataset import build
from nngen.llm.finetuning.finetune import finetune
from nngen.llm.finetuning.splits import Example, Task
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.parsing import ReplyError
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.base import Kind, Message, Options, Request, Rewriter, Status
from nngen.llm.rewriters.openai_http import Http
from nngen.llm.rewriters.transformers_local import Local
from nngen.surrogate.plan_text import plan_text

sys.path.append(str(Path(__file__).parent.parent / "tests" / "llm"))
from tiny_models import ARCHITECTURES, TEMPLATES, make

EVALUATION = Evaluation(__file__, __doc__)
SPACE = PlanSpace(families=("AirNet", "AlexNet", "ICNet", "ResNet", "ShuffleNet", "SqueezeNet-1"))
TURNS = (Message(role="system", content="You design."), Message(role="user", content="Write one plan as JSON."))
PLAN = plan_text(SPACE.draw(Random(0)))
OTHER = plan_text(SPACE.draw(Random(1)))
KEY = "sk-any-0123456789"
TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Outcome of one model or server; ``works`` says what it has to do, ``found`` what it did."""

    kind: str
    name: str
    works: bool
    found: str
    fault: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Try every model and every server, and print the tables."""
    only = {"choices": ["models", "servers"], "help": "one of the two; both by default"}
    given = EVALUATION.arguments(argv, only=only)
    found = [*(models() if given.only != "servers" else ()), *(servers() if given.only != "models" else ())]
    return EVALUATION.finish(report(found), good=not any(result.fault for result in found))


def report(found: Sequence[Result]) -> str:
    """Write the page."""
    blocks: list[str] = []
    for kind in dict.fromkeys(result.kind for result in found):
        rows = [result for result in found if result.kind == kind]
        works = sum(result.works and not result.fault for result in rows)
        lines = sum(not result.works and not result.fault for result in rows)
        faults = sum(result.fault for result in rows)
        blocks.append(f"{len(rows)} {kind}: {works} work, {lines} end as one line, {faults} faults.")
        marks = [
            (row.name, "work" if row.works else "one line", row.found, "**yes**" if row.fault else "") for row in rows
        ]
        blocks.append(table(("name", "has to", "found", "fault"), marks))
    about = "Random weights: the plans are those of the grammar, so this is about running, not about quality."
    return EVALUATION.page("Any language model, any server", about, *blocks)


def models() -> Iterator[Result]:
    """Propose with each tiny model, tune it, and propose with its adapter."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        data = _feedback(place / "data")
        for name, (works, options) in MODELS.items():
            note(name)
            damage, options = options.get("damage"), {k: v for k, v in options.items() if k != "damage"}
            base = make(place / name, **options)
            if damage is not None:
                damage(base)
            yield _tried("models", name, works, lambda: _model(base, data, place / f"{name}-tuned"))  # noqa: B023


def _model(base: Path, data: Path, out: Path) -> str:
    first = _plans(Local(str(base), Options(batch=4)))
    settings = {"epochs": 1.0, "batch": 4, "accumulate": 1, "rank": 2, "max_tokens": 200, "precision": "float32"}
    tuned = finetune(Tuning(base=str(base), **settings), data, out)
    second = _plans(Local(str(base), Options(adapter=tuned.adapter, batch=4)))
    return f"{first}, then {second} after {tuned.updates} updates"


def _plans(rewriter: Rewriter) -> str:
    """Ask for three plans with two prompts; raise the line of the first that failed."""
    longer = (TURNS[0], Message(role="user", content="Write one plan as JSON, and make it a good one."))
    prompts = (TURNS, TURNS, longer)
    asked = [
        Request(kind=Kind.PLAN, messages=turns, seed=seed, space=SPACE, max_tokens=512)
        for seed, turns in enumerate(prompts)
    ]
    replies = rewriter.propose(asked)
    for reply in replies:
        if reply.status is not Status.OK:
            raise NngenError(reply.detail)
        SPACE.read(reply.text)
    return f"{len(replies)} plans"


def _tried(kind: str, name: str, works: bool, work: Callable[[], str]) -> Result:
    began = time.monotonic()
    try:
        found, done = work(), True
    except (NngenError, ReplyError) as error:
        found, done = str(error), False
    except Exception as error:  # the fault that is looked for
        found = f"{type(error).__name__}: {str(error)[:200]}"
        return Result(kind=kind, name=name, works=works, found=found.replace("\n", " "), fault=True)
    broken = done is not works or "\n" in found or len(found) > 400 or KEY in found
    slow = kind == "servers" and time.monotonic() - began > 60
    found = re.sub(rf"{tempfile.gettempdir()}/\w+/", "", found).replace("|", "\\|")
    return Result(kind=kind, name=name, works=works, found=found, fault=broken or slow)


def _feedback(folder: Path) -> Path:
    examples = [
        Example(
            task=Task.IMPROVE,
            messages=(TURNS[0], Message(role="user", content=f"say {number}")),
            answer=f"yes {number}" if good else "no",
            good=good,
            score=float(good),
            group=f"A+B+C+{number}",
            origin="o",
            prompt="plan@1-0",
        )
        for number in range(12)
        for good in (True, False)
    ]
    return build(examples, folder, twins={}, count=estimate_tokens).folder


def _write(file: str, text: str) -> Callable[[Path], object]:
    return lambda base: (base / file).write_text(text)


MODELS: Mapping[str, tuple[bool, dict[str, Any]]] = {
    **{name: (True, {"architecture": name}) for name in ARCHITECTURES},
    **{f"template-{name}": (True, {"template": name}) for name in TEMPLATES if name not in ("broken", "none")},
    "tokenizer-without-eos": (True, {"eos": None}),
    "tokenizer-with-another-eos": (True, {"eos": "<|endoftext|>"}),
    "tokenizer-without-any-end": (False, {"eos": None, "special": False}),
    "tokenizer-of-another-model": (False, {"vocabulary": 100}),
    "vocabulary-padded": (True, {"vocabulary": 320}),
    "template-missing": (False, {"template": "none"}),
    "template-broken": (False, {"template": "broken"}),
    "context-of-40-tokens": (False, {"architecture": "gpt2", "n_positions": 40}),
    "encoder": (False, {"architecture": "bert"}),
    "weights-missing": (False, {"damage": lambda base: (base / "model.safetensors").unlink()}),
    "weights-cut": (False, {"damage": _write("model.safetensors", "\x08")}),
    "configuration-broken": (False, {"damage": _write("config.json", "{")}),
    "configuration-of-an-unknown-type": (False, {"damage": _write("config.json", '{"model_type": "none"}')}),
    "tokenizer-broken": (False, {"damage": _write("tokenizer.json", '{"model": 3}')}),
}
"""Models by name: whether they have to work, and the arguments of ``make``."""


Handler = http.server.BaseHTTPRequestHandler
Behaviour = Callable[[Handler, dict[str, Any]], None]


def _send(handler: Handler, code: int, value: Any, **headers: str) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(code)
    for name, text in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), text)
    handler.end_headers()
    handler.wfile.write(body)


def _chat(content: Any, reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content, **more}, "finish_reason": reason}]}


def _says(value: Any, code: int = 200, **headers: str) -> Behaviour:
    return lambda handler, _: _send(handler, code, value, **headers)


def _refuses(name: str, code: int = 400, message: str = "unsupported parameter: '{}'") -> Behaviour:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        if name in body:
            return _send(handler, code, {"error": {"message": message.format(name), "param": name}})
        return _send(handler, 200, _chat(PLAN))

    return behave


def _no_system(code: int, message: str) -> Behaviour:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        if body["messages"][0]["role"] == "system":
            return _send(handler, code, {"error": {"message": message}})
        return _send(handler, 200, _chat(PLAN))

    return behave


def _needs_room(message: dict[str, Any]) -> Behaviour:
    def behave(handler: Handler, body: dict[str, Any]) -> None:
        if body["max_tokens"] > 4000:
            return _send(handler, 200, _chat(f"<think>Hm.</think>\n{PLAN}"))
        return _send(handler, 200, {"choices": [{"message": message, "finish_reason": "length"}]})

    return behave


def _drip(handler: Handler, _: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _byte in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.1)


def _breaks(handler: Handler, _: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def _busy_once() -> Behaviour:
    seen: set[int] = set()

    def behave(handler: Handler, body: dict[str, Any]) -> None:
        first = body["seed"] not in seen
        seen.add(body["seed"])
        _send(handler, 429 if first else 200, _chat(PLAN), Retry_After="0")

    return behave


def _streamed(*pieces: str) -> bytes:
    events = [json.dumps({"choices": [{"delta": {"content": piece}}]}) for piece in pieces]
    return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()


PRETTY = json.dumps(json.loads(PLAN), indent=2)
SERVERS: Mapping[str, tuple[bool, Behaviour]] = {
    "plain": (True, _says(_chat(PLAN))),
    **{f"refuses-{name}": (True, _refuses(name)) for name in ("max_tokens", "temperature", "seed", "response_format")},
    "refuses-stream-422": (True, _refuses("stream", 422)),
    "refuses-schema-namelessly": (True, _refuses("response_format", 400, "bad request")),
    "refuses-system-400": (True, _no_system(400, "System role not supported")),
    "refuses-system-500": (True, _no_system(500, "Jinja Exception: System role not supported")),
    "refuses-system-role-name": (True, _no_system(400, "'messages[0].role' does not support 'system'")),
    "refuses-everything": (False, _says({"error": {"message": "no such model"}}, 400)),
    "wrong-key": (False, _says({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)),
    "not-found-page": (False, _says(b"<html><title>404</title></html>", 404)),
    "context-too-small": (False, _says({"error": "maximum context length is 128 tokens"}, 400)),
    "redirect": (False, _says(b"", 302, Location="http://127.0.0.1:9/")),
    "busy-once": (True, _busy_once()),
    "busy-always": (False, _says(b"busy", 503, Retry_After="0")),
    "content-parts": (True, _says(_chat([{"type": "text", "text": PLAN}]))),
    "content-parts-with-thoughts": (True, _says(_chat([{"type": "thinking", "thinking": "?"}, {"text": PLAN}]))),
    "content-of-a-completion": (True, _says({"choices": [{"text": PLAN, "finish_reason": "stop"}]})),
    "no-finish-reason": (True, _says(_chat(PLAN, None))),
    "usage-null": (True, _says({**_chat(PLAN), "usage": None})),
    "usage-infinite": (False, _says(json.dumps({**_chat(PLAN), "usage": {"prompt_tokens": float("inf")}}).encode())),
    "thoughts-in-text": (True, _says(_chat(f"<think>{OTHER}?</think>{PLAN}"))),
    "thoughts-half": (True, _says(_chat(f"{OTHER}? No.</think>\n{PLAN}"))),
    "thoughts-apart": (True, _says(_chat(PLAN, reasoning_content="Hm."))),
    "thoughts-eat-the-limit": (True, _needs_room({"content": "", "reasoning_content": "Hm."})),
    "thoughts-eat-the-limit-in-text": (True, _needs_room({"content": "<think>Hm."})),
    "thoughts-never-end": (False, _says(_chat("<think>Hm.", "length"))),
    "prose-around": (True, _says(_chat(f"Here is my plan:\n{PLAN}\nIt uses less noise."))),
    "fenced": (True, _says(_chat(f"```json\n{PRETTY}\n```"))),
    "tildes": (True, _says(_chat(f"~~~\n{PRETTY}\n~~~"))),
    "quoted": (True, _says(_chat("\n".join(f"> {line}" for line in PRETTY.splitlines())))),
    "in-a-list": (True, _says(_chat(f"1. ```json\n   {PLAN}\n   ```"))),
    "wrapped": (True, _says(_chat(f'{{"plan": {PLAN}}}'))),
    "same-plan-twice": (True, _says(_chat(f"{PLAN}\nAgain:\n{PRETTY}"))),
    "two-plans": (False, _says(_chat(f"{PLAN} or {OTHER}"))),
    "cut": (False, _says(_chat(PLAN[:40], "length"))),
    "empty": (False, _says(_chat(""))),
    "null": (False, _says(_chat(None))),
    "model-refuses": (False, _says(_chat(None, refusal="I cannot do that."))),
    "error-in-200": (False, _says({"error": {"message": "out of credits"}})),
    "streams": (True, _says(_streamed(PLAN[:20], PLAN[20:]))),
    "streams-garbage": (False, _says(b"data: {broken\n\n")),
    "compressed": (True, _says(gzip.compress(json.dumps(_chat(PLAN)).encode()), Content_Encoding="gzip")),
    "compressed-bomb": (False, _says(gzip.compress(b" " * 2**26), Content_Encoding="gzip")),
    "page": (False, _says(b"<html>hello</html>")),
    "deep-json": (False, _says(b"[" * 100_000)),
    "huge": (False, _says(b" " * (5 * 2**20))),
    "drips": (False, _drip),
    "breaks-off": (False, _breaks),
}
"""Servers by name: whether a plan has to come, and their behaviour."""

LISTINGS = {
    "lists-embeddings-first": (True, {"data": [{"id": "nomic-embed-text"}, {"id": "chat"}]}),
    "lists-embeddings-only": (False, {"data": [{"id": "bge-m3"}]}),
    "lists-names": (True, ["chat"]),
    "lists-nothing": (True, {"data": []}),
    "lists-garbage": (True, {"data": 3}),
}


def servers() -> Iterator[Result]:
    """Ask each server for three plans."""

    class Scripted(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = self.path.split("/")[1]
            behave = _says(_chat(PLAN)) if name in LISTINGS else SERVERS[name][1]
            behave(self, body)
            self.close_connection = True

        def do_GET(self) -> None:
            _send(self, 200, LISTINGS.get(self.path.split("/")[1], (True, {"data": [{"id": "chat"}]}))[1])

        def log_message(self, *_: Any) -> None: ...

    os.environ["NNGEN_API_KEY"] = KEY
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, (works, _) in {**SERVERS, **LISTINGS}.items():
            note(name)
            url = f"http://127.0.0.1:{server.server_port}/{name}"
            yield _tried("servers", name, works, lambda: _plans(Http(url, timeout_s=TIMEOUT_S)))  # noqa: B023
        server.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = _tried("servers", "down", False, lambda: _plans(Http(url, "chat")))
    yield Result(kind="servers", name="down", works=False, found="no server answers", fault=result.fault)


if __name__ == "__main__":
    raise SystemExit(main())
