"""Archives for the dashboard, and a client that asks it for pages without a browser."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from dashboard_archives import TOKEN, fill

OLD = Path(__file__).parents[1] / "archive" / "old" / "archive.db.gz"


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with campaigns of many kinds and with hostile names."""
    path = tmp_path_factory.mktemp("dashboard") / "a.db"
    fill(path)
    return path


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of an earlier version: real families trained on digits, rungs and two closed loops."""
    path = tmp_path_factory.mktemp("dashboard") / "old.db"
    path.write_bytes(gzip.decompress(OLD.read_bytes()))
    return path


@pytest.fixture
def client() -> Iterator[Callable[..., Any]]:
    """Return a client of a real server of the dashboard on an archive; its addresses begin behind the token."""
    import httpx
    import uvicorn

    from nngen.dashboard.server import Dashboard, listen

    with ExitStack() as stack:

        def make(path: Path, **options: Any) -> httpx.Client:
            opened = stack.enter_context(listen(0))
            app = Dashboard(path, TOKEN, **options).app()
            server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
            thread = Thread(target=server.run, kwargs={"sockets": [opened]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            address = f"http://127.0.0.1:{opened.getsockname()[1]}/{TOKEN}/"
            return stack.enter_context(httpx.Client(base_url=address, timeout=60))

        yield make
