"""Values of options beside the command line, and ``nngen config``, which shows and writes them.

A value comes from the first of these places that has it: the command line, the TOML file of a call (``--config``, or a
file in the place of a name), the environment (``NNGEN_CAMPAIGN_RUN_EPOCHS``), ``nngen.toml`` in the working folder, and
the option's own default. Keys are named as the flags are; what is unknown is refused with the nearest name.
"""

from __future__ import annotations

import json as jsons
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection, Token, UnknownOptionError
from cyclopts.config import Dict, Env

from nngen.cli.output import OutputOptions, emit, note, print_json, print_table, suggest
from nngen.errors import UsageError
from nngen.files import path_kind, read_toml, write_atomically
from nngen.text import did_you_mean

PROJECT = Path("nngen.toml")
"""File of a project's values, one table per command: ``[campaign.run]``."""

ENVIRONMENT = Env("NNGEN_", show=False)
"""Reads ``NNGEN_COMMAND_OPTION``."""

_PER_CALL = {"config", "json", "quiet", "verbose"}  # options that belong to one call

_DESCRIBED = ("assemble", "train", "campaign run", "llm-propose", "finetune", "evolve")

_SHELLS = ("bash", "zsh", "fish")

app = App(name="config", help="Show and write nngen.toml, a project's values of options.")


def read_config(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in what was not typed from a TOML file of arguments, for commands with ``--config``.

    Where a command's subject is a name, a file may stand in its place (``campaign run third.toml``); the subject is
    then the file's ``name``, or the file's own name without suffix.
    """
    # The arguments are collected already, with the tokens of the command line; those of the file are added to them.
    config = next((argument for argument in arguments if argument.name == "--config"), None)
    if config is None:
        return
    subject = next((item for item in arguments if item.index == 0 and item.hint in (str, str | None)), None)
    files = [token.value for token in config.tokens]
    if subject is not None and subject.tokens and subject.tokens[0].value.endswith(".toml"):
        files.append(subject.tokens.pop().value)  # a file in the place of the name
    if len(files) > 1:
        raise UsageError(f"two files were named, {' and '.join(files)}: name one")
    if not files:
        return
    table = _read(Path(files[0]))
    if subject is not None:
        # A positional argument has no key in cyclopts' tables: its token is made here, from the file's own key.
        name = table.pop("name", Path(files[0]).stem)
        if not isinstance(name, str):
            raise UsageError(f"{files[0]}: name must be a text in quotes")
        subject.tokens = subject.tokens or [Token(value=name, source=files[0])]
    _fill(table, files[0], app, commands, arguments)


def read_project(app: App, commands: tuple[str, ...], arguments: ArgumentCollection, *, known: Sequence[str]) -> None:
    """Fill in what was not given elsewhere from ``nngen.toml``.

    Args:
        app: As cyclopts passes it.
        commands: Words of the command.
        arguments: Its arguments, with what was given so far.
        known: Names of all commands.
    """
    if commands[:1] == ("config",) or path_kind(PROJECT) is None:
        return
    whole = _read(PROJECT)
    for name in whole:
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"{PROJECT}: no command is called {name!r}" + (f"; {near}" if near else ""))
    table: Any = whole
    for word in commands:
        table = table.get(word, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise UsageError(f"{PROJECT}: write a table [{'.'.join(commands)}] of options")
    _fill(table, str(PROJECT), app, commands, arguments)


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_toml(file)
    except ValueError as error:
        raise UsageError(f"cannot read {file}: {error}") from None


def _fill(
    table: dict[str, Any], source: str, app: App, commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    """Add the values of a table to the arguments that have none yet; unknown keys are refused."""
    for key in table.keys() & _PER_CALL:
        raise UnknownOptionError(token=Token(keyword=key, source=source), argument_collection=arguments)
    for command in reversed(commands):  # cyclopts looks for a command's keys below the command's name
        table = {command: table}
    Dict(table, source=source)(app, commands, arguments)


@app.command
def show(*, output: OutputOptions = OutputOptions()) -> None:
    """Show the values that ``nngen.toml`` and the environment give to options.

    Examples:
        nngen config show
    """
    whole = _read(PROJECT) if path_kind(PROJECT) else {}
    rows = [{"option": name, "value": value, "source": str(PROJECT)} for name, value in _leaves(whole)]
    # A key of a server is never printed.
    names = sorted(name for name in os.environ if name.startswith(ENVIRONMENT.prefix) and "KEY" not in name)
    rows += [{"option": name, "value": os.environ[name], "source": "environment"} for name in names]
    if output.json:
        print_json(rows)
    elif rows:
        print_table([row | {"value": str(row["value"])} for row in rows])
    elif path_kind(PROJECT):
        note(f"{PROJECT} sets nothing: remove the # before the options that you set")
    else:
        note(f"neither {PROJECT} nor a variable {ENVIRONMENT.prefix}COMMAND_OPTION sets a value here")
        suggest("config", "init")


def _leaves(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key} ")
        else:
            yield f"{above}--{key}", value


@app.command
def init(*, output: OutputOptions = OutputOptions()) -> None:
    """Write ``nngen.toml`` with the options of the commands that run long, each commented out with its default.

    Examples:
        nngen config init
    """
    if path_kind(PROJECT) is not None:
        raise UsageError(f"{PROJECT} is here already: nngen config show shows its values")
    head = "# Values of options for commands in this folder; the command line and the environment come first.\n"
    write_atomically(PROJECT, (head + "".join(map(_described, _DESCRIBED))).encode())
    if output.json:
        print_json({"file": str(PROJECT)})
    else:
        note(f"wrote {PROJECT}: remove the # before the options that you set")
    suggest("config", "show")


@app.command
def completion(shell: str, /) -> None:
    """Print a script that completes commands and options in a shell: bash, zsh or fish.

    Args:
        shell: Name of the shell.

    Examples:
        nngen config completion bash
    """
    from nngen.cli import app as whole

    if shell not in _SHELLS:
        raise UsageError(f"no completion for {shell!r}: choose {', '.join(_SHELLS)}")
    emit(whole.generate_completion(shell=shell))  # type: ignore[arg-type]  # it is one of _SHELLS


def _described(command: str) -> str:
    """Describe the options of one command as a table of TOML in comments."""
    from nngen.cli import command_app

    lines = [f"\n[{command.replace(' ', '.')}]"]
    for argument in command_app(command).assemble_argument_collection():
        name = argument.name.removeprefix("--")
        if argument.index is not None or not argument.parse or name in _PER_CALL or name == argument.name:
            continue
        default = argument.field_info.default
        value = jsons.dumps(default) if isinstance(default, bool | int | float | str) else ""
        text = " ".join((argument.parameter.help or "").split()).partition(". ")[0].partition(": ")[0].rstrip(".")
        lines += textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        lines.append(f"#{name} = {value}".rstrip())
    return "\n".join(lines) + "\n"
