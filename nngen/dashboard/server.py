"""Server of the dashboard: addresses with their token, error pages, security headers, and the loop that serves."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode

import uvicorn
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from nngen.analysis import formatting
from nngen.analysis.figure_style import plotly_script
from nngen.archive import Archive
from nngen.dashboard.candidate import DOWNLOADS, Download, candidate
from nngen.dashboard.figures import parallel_figure, progress_figure
from nngen.dashboard.pages import PAGES
from nngen.dashboard.snapshot import Shared, Snapshot
from nngen.dashboard.view import View
from nngen.errors import NngenError, UsageError
from nngen.files import package_folder
from nngen.jinja import environment, script_data
from nngen.text import one_line

_HOST = "127.0.0.1"

_REFUSAL = "This address has no valid token: open the one that nngen dashboard printed when it started.\n"

_HEADERS = {
    # Scripts from this server alone; plotly sets styles of elements.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_STATIC = {"page.css": "text/css", "page.js": "text/javascript", "plotly.js": "text/javascript"}
_STATIC |= {"dashboard/dashboard.css": "text/css", "dashboard/dashboard.js": "text/javascript"}
_DAY_S = 86_400

_PREPARED = 3  # campaigns that are computed before a reader asks

_VIEWS = {**PAGES, "candidate": candidate}


class Dashboard:
    """Answers requests for pages, downloads, the state and static files, each with the archive opened anew.

    Addresses that do not begin with the token are refused.
    """

    def __init__(self, path: Path, token: str, place: Sequence[str] = ()) -> None:
        self._path, self._token, self._place = path, token, shlex.join(place)
        self._shared = Shared()

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[Route("/{token}/{page:path}", self._answer), Route("/{token}", self._to_root)],
            exception_handlers={404: _refuse},
        )

    def prepare(self) -> None:
        """Compute what takes longest: the results of the largest campaigns, then those of the whole archive."""
        with suppress(NngenError, OSError), Archive.open(self._path, readonly=True) as archive:
            snapshot = Snapshot(archive, self._shared)
            sizes = {name: sum(tally.trials for tally in found) for name, found in snapshot.tallies().items()}
            for name in sorted(sizes, key=lambda name: -sizes[name])[:_PREPARED]:
                snapshot.limits(name)
                snapshot.lines(name)
                snapshot.outcomes(name)
            snapshot.rows(None)

    def _to_root(self, request: Request) -> Response:
        self._check(request)
        return RedirectResponse(f"/{self._token}/")

    # Not a coroutine: it runs in a thread, so that a slow page does not hold up the others.
    def _answer(self, request: Request) -> Response:
        self._check(request)
        page, query = request.path_params["page"], request.query_params
        if page in _STATIC:
            return _static(page)
        try:
            with Archive.open(self._path, readonly=True) as archive:
                response = self._read(archive, page, query)
        except (NngenError, OSError) as error:
            missing = isinstance(error, UsageError)
            view = View(
                template="error",
                title="Not found" if missing else "Cannot be read",
                values={"error": one_line(str(error), 600)},
            )
            response = self._page(view, status=404 if missing else 503)
        response.headers.update(_HEADERS)
        return response

    def _check(self, request: Request) -> None:
        if not secrets.compare_digest(request.path_params["token"].encode(), self._token.encode()):
            raise HTTPException(404)

    def _read(self, archive: Archive, page: str, query: Mapping[str, str]) -> Response:
        if page == "state":
            version = archive.last_event_id(query.get("campaign") or None)
            return Response(json.dumps({"version": version}), media_type="application/json")
        snapshot = Snapshot(archive, self._shared)
        if page in DOWNLOADS:
            return _download(DOWNLOADS[page](snapshot, query))
        if page not in _VIEWS:
            raise UsageError(f"no page is called {page[:60]!r}")
        # Read before the page is: what is written meanwhile is found by the next look at the state.
        versions = {name: archive.last_event_id(name or None) for name in ("", query.get("campaign", ""))}
        view = _VIEWS[page](snapshot, query)
        version = 0 if snapshot.stale else versions.get(view.campaign, 0)
        return self._page(view, version=version, damage=archive.damage)

    def _page(self, view: View, *, version: int = 0, damage: str = "", status: int = 200) -> Response:
        templates = environment(html=True)
        templates.filters |= {name: getattr(formatting, name) for name in formatting.__all__}
        text = templates.get_template(f"dashboard/{view.template}.html.j2").render(
            view.values,
            view=view,
            url=_url,
            version=version,
            damage=damage,
            archive=self._path.name,
            place=f" {self._place}" if self._place else "",
            figures={name: script_data(figure) for name, figure in view.figures.items()},
        )
        return Response(text, status, media_type="text/html; charset=utf-8")


def _refuse(_: Request, __: Exception) -> Response:
    return PlainTextResponse(_REFUSAL, 403, headers=_HEADERS)


def _url(page: str, /, **query: object) -> Markup:
    """Return the address of a page, relative to any other; empty values are left out."""
    given = urlencode({name: str(value) for name, value in query.items() if value not in ("", None)})
    return Markup("{}").format(f"{page or './'}{'?' if given else ''}{given}")


@cache
def _static_text(name: str) -> str:
    return plotly_script() if name == "plotly.js" else (package_folder("templates") / name).read_text(encoding="utf-8")


def _static(name: str) -> Response:
    kept = {"Cache-Control": f"private, max-age={_DAY_S}"} if name == "plotly.js" else {}
    return Response(_static_text(name), media_type=_STATIC[name], headers=_HEADERS | kept)


def _download(found: Download) -> Response:
    name = re.sub(r"[^\w.-]", "_", found.name, flags=re.ASCII)[:120]
    if found.file is not None:
        return FileResponse(found.file, media_type="application/octet-stream", filename=name)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    # Sources of others may hold lone surrogates.
    return Response(found.content.encode("utf-8", "backslashreplace"), media_type="text/plain", headers=headers)


def listen(port: int) -> socket.socket:
    """Open a port on the loopback interface; 0 takes a free one.

    Raises:
        NngenError: If the port is in use, or may not be opened.
    """
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((_HOST, port))
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise NngenError(
            f"cannot open port {port}: {error.strerror}: choose another with --port, or --port 0 for a free one"
        ) from error
    return opened


def serve(path: Path, port: int, place: Sequence[str], ready: Callable[[str, int], None]) -> None:
    """Serve an archive until the process is interrupted; ``ready`` is called once with the first address and the port.

    Raises:
        NngenError: If the port cannot be opened.
    """
    with listen(port) as opened:
        number, token = opened.getsockname()[1], secrets.token_urlsafe(16)
        dashboard = Dashboard(path, token, place)

        config = uvicorn.Config(
            dashboard.app(),
            log_level="error",
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        _prepare()
        Thread(target=dashboard.prepare, daemon=True).start()
        ready(f"http://{_HOST}:{number}/{token}/", number)
        uvicorn.Server(config).run(sockets=[opened])


def _prepare() -> None:
    """Import what pages import where they use it: two threads that import at once may see half a module."""
    import sklearn.metrics  # noqa: F401

    progress_figure(())
    parallel_figure((), ())
