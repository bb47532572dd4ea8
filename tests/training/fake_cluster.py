"""A fake of the module ``ray`` as the driver's connection to a cluster uses it."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any


def node_id(host: str) -> str:
    """Return an id of the form of Ray's, from which ``FakeRay`` reads the name of the node."""
    return host.encode().hex().zfill(56)


def entry(host: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": node_id(host), "NodeManagerHostname": host, "Alive": alive, "Resources": resources}


class FakeRay:
    """A cluster whose nodes give ``answers`` by their names."""

    def __init__(self, *entries: dict[str, Any], answers: dict[str, Any] | None = None, initialized: bool = False):
        self.entries, self.answers, self.initialized = entries, answers or {}, initialized
        self.calls: list[tuple[str, Any]] = []
        self.fault: Exception | None = None
        self.address = "10.0.0.1:6379"

    def nodes(self) -> list[dict[str, Any]]:
        return [*self.entries]

    def is_initialized(self) -> bool:
        return self.initialized

    def init(self, **options: Any) -> None:
        self.calls.append(("init", options))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.fault is not None:
            raise self.fault

    def shutdown(self) -> None:
        self.calls.append(("shutdown", None))

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(gcs_address=self.address)

    def remote(self, function: Any) -> SimpleNamespace:
        def options(num_cpus: int, max_retries: int, scheduling_strategy: Any) -> SimpleNamespace:
            place = scheduling_strategy
            self.calls.append(("ask", (place.node_id, place.soft, num_cpus, max_retries)))
            return SimpleNamespace(remote=lambda: (bytes.fromhex(place.node_id).lstrip(b"\0").decode(), function))

        return SimpleNamespace(options=options)

    def get(self, reference: Any, timeout: float) -> Any:
        host, function = reference
        answer = self.answers.get(host)
        if isinstance(answer, Exception):
            raise answer
        return answer or function()
