"""Opens a rewriter from the ``--rewriter`` argument, through the registry."""

from __future__ import annotations

import nngen.llm.rewriters.baselines  # noqa: F401  (registers its rewriters)
from nngen.errors import RewriterError
from nngen.llm import optional_import
from nngen.llm.rewriters.base import REWRITERS, Options, Rewriter, RewriterEntry, register

__all__ = ["LOCAL_MODEL", "REWRITERS", "entry_of", "open_rewriter", "rewriter_help"]


def entry_of(argument: str) -> RewriterEntry:
    """Find the entry of the registry for a ``--rewriter`` argument; a name that no entry matches is a model's.

    Raises:
        RewriterError: If the argument is empty; the message lists the forms.
    """
    if not argument:
        raise RewriterError(f"--rewriter is empty: write {rewriter_help()}")
    return next((entry for entry in REWRITERS if entry.matches(argument)), LOCAL_MODEL)


def open_rewriter(argument: str, options: Options | None = None) -> Rewriter:
    """Open a rewriter from a registered name, a server's address, a hub id, a folder or a GGUF file.

    Raises:
        RewriterError: If it cannot be opened, or an option does not fit it; the message says why.
        MissingExtraError: If packages that it needs are not installed.
    """
    entry, options = entry_of(argument), options or Options()
    for name in ("adapter", "model", "quantize", "chat_template"):
        if getattr(options, name) and name not in entry.takes:
            fitting = " or ".join(other.argument for other in (*REWRITERS, LOCAL_MODEL) if name in other.takes)
            raise RewriterError(f"--{name.replace('_', '-')} is for --rewriter {fitting}, not for {argument}")
    return entry.create(argument, options)


def rewriter_help() -> str:
    """Describe every form of the ``--rewriter`` argument in one sentence."""
    *first, last = (f"{entry.argument} ({entry.purpose})" for entry in (*REWRITERS, LOCAL_MODEL))
    return f"{', '.join(first)} or {last}"


def _open_http(argument: str, options: Options) -> Rewriter:
    optional_import("httpx"), optional_import("tenacity")
    from nngen.llm.rewriters.openai_http import Http

    return Http(argument, options.model)


def _open_local(argument: str, options: Options) -> Rewriter:
    # Loads torch, so it is imported when a model is wanted.
    from nngen.llm.rewriters.transformers_local import Local

    return Local(argument, options)


register(
    RewriterEntry(
        argument="http://HOST:PORT",
        purpose="an OpenAI-compatible server; https:// too",
        matches=lambda argument: argument.startswith(("http://", "https://")),
        create=_open_http,
        takes=frozenset({"model"}),
    )
)
LOCAL_MODEL = RewriterEntry(
    argument="MODEL",
    purpose="a GGUF file, a folder or a hub id, run in this process",
    matches=lambda argument: True,
    create=_open_local,
    takes=frozenset({"adapter", "quantize", "chat_template"}),
    tunable=True,
)
"""Entry for every argument that no registered entry matches."""
