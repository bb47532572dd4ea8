"""Errors of the command line: refusals of values and of a process that cannot work, and messages in one line.

``nngen.cli.run`` prints the messages; converters of ``nngen.cli.options`` name the place of a value as they do.
"""

from __future__ import annotations

import errno
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from cyclopts import (
    App,
    Argument,
    ArgumentCollection,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Token,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from nngen.cli.output import Talk, detail, set_talk, talk
from nngen.errors import NngenError, UsageError
from nngen.ranges import Range
from nngen.text import clean, did_you_mean

AFTERWARDS: list[Callable[[], str]] = []
"""Errors that are known when a command has ended: texts, empty where nothing happened."""

_OPEN_FILES, _FEWEST_OPEN_FILES = 16_384, 64
"""Files that a process may open: as many as campaigns with many workers need, and with fewer than these none runs."""

_LISTS = ("--families", "--exclude", "--include", "--rungs", "--tasks", "--region")
_FALSE = ("false", "0", "no", "off")
_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def check_values(_: App, __: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Set how much is printed, then refuse values that the commands cannot use: see ``_refusal``."""
    for name, level in (("--verbose", Talk.VERBOSE), ("--quiet", Talk.QUIET)):
        if any(token.value.lower() not in _FALSE for item in arguments if item.name == name for token in item.tokens):
            set_talk(level)
    for argument in arguments:
        for token in argument.tokens:
            reason = _refusal(token.value, _types(argument.hint), argument)
            if reason:
                place, name = place_of(token)
                raise UsageError(f"{place}{name or argument.name} {reason}")
            if token.source not in ("", "cli"):
                detail(f"{argument.name} {token.value} comes from {token.source}")


def _types(hint: Any) -> set[Any]:
    """Return the plain types of an annotation: those of a union, and without what ``Annotated`` adds."""
    if get_origin(hint) is Annotated:
        return _types(get_args(hint)[0])
    return {hint}.union(*map(_types, get_args(hint))) if get_args(hint) else {hint}


def _refusal(text: str, types: set[Any], argument: Argument) -> str:
    """Return the reason against a value as a phrase; empty where cyclopts decides."""
    if "\0" in text:
        return "holds a null byte"
    if Path not in types and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # bytes that are not UTF-8, which only a path may hold
            return "is not UTF-8 text"
    # Lists of numbers are read by a converter of their own.
    if not types & {int, float} or any(get_origin(kind) is tuple for kind in types):
        return ""
    kind = int if int in types else float
    validators: Any = argument.parameter.validator
    limits = next((one for one in validators if isinstance(one, Range)), Range.of(kind))
    try:
        # cyclopts reads "8.5" as a whole number by int(float(...)), and whole numbers of any base and length.
        number = int(text, 0) if kind is int and "." not in text else float(text)
    except ValueError:
        number = None
    return f"must be {limits}, not {text!r}" if limits.refusal(number) else ""


def check_process() -> None:
    """Refuse to work in a folder that is gone, or with too few open files; the limit is raised where it may be.

    Raises:
        NngenError: If the folder or the limit cannot be worked with.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise NngenError("the working folder is gone: change to one that exists") from None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < _OPEN_FILES:
        soft = _OPEN_FILES if hard == unlimited else min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != unlimited and soft < _FEWEST_OPEN_FILES:
        needed = f"nngen needs {_FEWEST_OPEN_FILES}"
        raise NngenError(f"only {soft} files may be open at a time, and {needed}: ulimit -n {_OPEN_FILES}")


def show_origin() -> None:
    """Print where the error that is handled arose, with --verbose."""
    if talk() is Talk.VERBOSE:
        print(clean(traceback.format_exc(), None, lines=True), file=sys.stderr, flush=True)


def os_message(error: OSError) -> str:
    """Describe an error of the operating system that no command expected, by its file and its reason."""
    if error.errno == errno.EMFILE:
        return f"too many open files: ulimit -n {_OPEN_FILES}, or use fewer workers"
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{error.strerror or error}"


def parsing_message(error: CycloptsError, app: App) -> str:
    """Describe an error of parsing the arguments of ``app`` in one line that names the value and the way out."""
    command = " ".join(error.command_chain or ())
    see = f"see nngen {command} --help"
    match error:
        case UnknownCommandError():
            # The chain ends at the group whose command is unknown.
            word = error.unused_tokens[0] if error.unused_tokens else ""
            group = app[error.command_chain[0]] if error.command_chain else app
            known = [name for name in group if not name.startswith("-")]
            hint = did_you_mean(word, known, otherwise=see.replace("  ", " "))
            return f"no command{command and ' of '}{command} is called {word!r}: {hint}"
        case MissingArgumentError() if error.argument is not None:
            what = f"a value after {error.keyword}" if error.keyword else error.argument.name
            return f"{command} needs {what}: {see}"
        case UnusedCliTokensError() if error.unused_tokens:
            return (
                f"{command}: unexpected argument {' '.join(error.unused_tokens)}: {_listed_with_spaces(error) or see}"
            )
        case UnknownOptionError():
            return _unknown_option(error, see)
        case CoercionError() if error.token is not None and error.argument is not None and error.target_type in _KINDS:
            place, name = place_of(error.token)
            return (
                f"{place}{name or error.argument.name} must be {_KINDS[error.target_type]}, not {error.token.value!r}"
            )
        case ValidationError() if error.argument is not None and error.argument.tokens:
            place, name = place_of(error.argument.tokens[0])
            return f"{place}{name or error.argument.name} {error.exception_message}"
    return str(error)


def _listed_with_spaces(error: UnusedCliTokensError) -> str:
    """Return the list that a user may have meant by words after an option; empty where none takes a list."""
    words, unused = error.root_input_tokens or [], error.unused_tokens or []
    before = words[: words.index(unused[0])] if unused and unused[0] in words else []
    option = next((word for word in reversed(before) if word.startswith("-")), "")
    if option not in _LISTS:
        return ""
    names = [*before[before.index(option) + 1 :], *unused]
    return f"a list has commas: {option} {','.join(names)}"


def _unknown_option(error: UnknownOptionError, see: str) -> str:
    # A token from the command line holds the option as typed; one from a file is placed by the file's name and key.
    names = [name for argument in error.argument_collection for name in argument.names if name.startswith("--")]
    if error.token.source in ("", "cli"):
        option = error.token.keyword or error.token.value
        return f"unknown option {option}: {did_you_mean(option, names, otherwise=see)}"
    place, key = place_of(error.token)
    keys = [name.removeprefix("--").replace("-", "_") for name in names]
    return f"{place}unknown key {key}: {did_you_mean(key.replace('-', '_'), keys, otherwise=see)}"


def place_of(token: Token) -> tuple[str, str]:
    """Return the file that a token was read from, as a prefix, and the option or key as its user wrote it."""
    keyword = token.keyword or ""
    return ("", keyword) if token.source in ("", "cli", "env") else (f"{token.source}: ", keyword.strip("[]"))
