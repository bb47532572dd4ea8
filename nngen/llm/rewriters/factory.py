"""Opens a rewriter from the ``--rewriter`` argument, through the registry."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nngen.llm.rewriters.baselines
import nngen.llm.rewriters.tpe  # noqa: F401  (both register their rewriters)
from nngen.errors import MissingExtraError, RewriterError
from nngen.llm import optional_import
from nngen.llm.rewriters.bandit import Bandit, Hybrid, Sequential
from nngen.llm.rewriters.base import REWRITERS, Options, Rewriter, RewriterEntry, register
from nngen.text import did_you_mean, split_names

__all__ = ["LOCAL_MODEL", "REWRITERS", "entry_of", "open_rewriter", "rewriter_help", "rewriters_in", "tunable_base"]

_HYBRID, _SEQUENTIAL = "hybrid:", "sequential:"
_OPTIONS = ("adapter", "model", "quantize", "chat_template", "model_share")
_LOCAL = frozenset({"adapter", "quantize", "chat_template"})


def entry_of(argument: str) -> RewriterEntry:
    """Find the entry of the registry for a ``--rewriter`` argument; a name that no entry matches is a model's.

    Raises:
        RewriterError: If the argument is empty; the message lists the forms.
    """
    if not argument:
        raise RewriterError(f"--rewriter is empty: write {rewriter_help()}")
    return next((entry for entry in REWRITERS if entry.matches(argument)), LOCAL_MODEL)


def rewriters_in(argument: str) -> tuple[str, ...]:
    """Split the ``--rewriter`` argument at its commas, unless it is a server's address or the path of a model."""
    if "," not in argument or argument.startswith(("http://", "https://")) or Path(argument).exists():
        return (argument,)
    return split_names(argument) or ("",)


def tunable_base(argument: str) -> str | None:
    """Return the one model of a ``--rewriter`` argument that this process can tune; None where there is none.

    Raises:
        RewriterError: If there are several.
    """
    names = [name.removeprefix(_HYBRID).removeprefix(_SEQUENTIAL) for name in rewriters_in(argument)]
    models = [name for name in dict.fromkeys(names) if entry_of(name).tunable]
    if len(models) > 1:
        raise RewriterError(f"one model is tuned, and --rewriter {argument} names {', '.join(models)}")
    return models[0] if models else None


def open_rewriter(argument: str, options: Options | None = None) -> Rewriter:
    """Open a rewriter from a registered name, a server's address, a hub id, a folder or a GGUF file.

    Several, separated by commas, are opened as a bandit; each gets the options that it takes.

    Raises:
        RewriterError: If it cannot be opened, or an option does not fit it; the message says why.
        MissingExtraError: If packages that it needs are not installed.
    """
    options, names = options or Options(), rewriters_in(argument)
    if len(set(names)) < len(names):
        raise RewriterError(f"--rewriter {argument} names a rewriter twice")
    entries = [entry_of(name) for name in names]
    for option in _OPTIONS:
        if getattr(options, option) and not any(option in entry.takes for entry in entries):
            fitting = " or ".join(other.argument for other in (*REWRITERS, LOCAL_MODEL) if option in other.takes)
            raise RewriterError(f"--{option.replace('_', '-')} is for --rewriter {fitting}, not for {argument}")
    empty = Options()
    opened = []
    for name, entry in zip(names, entries, strict=True):
        others = {option: getattr(empty, option) for option in _OPTIONS if option not in entry.takes}
        opened.append(entry.create(name, replace(options, **others)))
    return opened[0] if len(opened) == 1 else Bandit(opened)


def rewriter_help() -> str:
    """Describe every form of the ``--rewriter`` argument in one sentence."""
    *first, last = (f"{entry.argument} ({entry.purpose})" for entry in (*REWRITERS, LOCAL_MODEL))
    return f"{', '.join(first)} or {last}; of several, separated by commas, the better ones are asked more often"


def _open_http(argument: str, options: Options) -> Rewriter:
    optional_import("httpx"), optional_import("tenacity")
    from nngen.llm.rewriters.openai_http import Http

    return Http(argument, options.model)


def _open_local(argument: str, options: Options) -> Rewriter:
    # Loads torch, so it is imported when a model is wanted.
    from nngen.llm.rewriters.transformers_local import Local

    try:
        return Local(argument, options)
    except (RewriterError, MissingExtraError) as error:
        word = re.fullmatch(r"[\w-]{1,60}", argument) and not Path(argument).exists()
        if not word or any(getattr(options, name) for name in _LOCAL):  # a model was meant
            raise
        known = [entry.argument for entry in REWRITERS if not entry.takes]
        hint = did_you_mean(argument, known)
        names = f"{hint}{hint and ' '}rewriters without a model: {', '.join(known)}"
        raise RewriterError(f"{error}; {names}") from error


def _inner(argument: str, options: Options) -> Rewriter:
    """Open the model of an argument such as ``hybrid:MODEL``."""
    return open_rewriter(argument.partition(":")[2], replace(options, model_share=None))


register(
    RewriterEntry(
        argument="http://HOST:PORT",
        purpose="an OpenAI-compatible server; https:// too",
        matches=lambda argument: argument.startswith(("http://", "https://")),
        create=_open_http,
        takes=frozenset({"model"}),
    )
)
register(
    RewriterEntry(
        argument="hybrid:MODEL",
        purpose="MODEL with proposals of tpe in its prompt, and tpe for half of the requests or --model-share",
        matches=lambda argument: argument.startswith(_HYBRID),
        create=lambda argument, options: Hybrid(_inner(argument, options), options.model_share),
        takes=_LOCAL | {"model_share"},
        tunable=True,
    )
)
register(
    RewriterEntry(
        argument="sequential:MODEL",
        purpose="MODEL asked for one reply at a time, with those before in its prompt",
        matches=lambda argument: argument.startswith(_SEQUENTIAL),
        create=lambda argument, options: Sequential(_inner(argument, options)),
        takes=_LOCAL,
        tunable=True,
    )
)
LOCAL_MODEL = RewriterEntry(
    argument="MODEL",
    purpose="a GGUF file, a folder or a hub id, run in this process",
    matches=lambda argument: True,
    create=_open_local,
    takes=_LOCAL,
    tunable=True,
)
"""Entry for every argument that no registered entry matches."""
