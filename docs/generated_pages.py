"""Pages that the documentation site makes from the code: a reference of commands and of Python, and the measurements.

A Sphinx extension; the pages are written into docs/reference and docs/measurements, which git ignores.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclopts import App
from cyclopts.argument import Argument
from docstring_parser import parse

import nngen
from nngen.cli import _COMMANDS, command_app

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "eval" / "results"
REFERENCE, MEASUREMENTS = DOCS / "reference", DOCS / "measurements"

_MORE = ("nngen.analysis.leaderboard.leaderboard", "nngen.analysis.effects.effects", "nngen.archive.trials.Trials")
"""Objects beside the public names that the pages on Python use."""


def command_pages() -> dict[str, str]:
    """Return the reference of each command as Markdown, by the command's name, subcommands with their group."""
    return {name: "\n".join(_page(name, help_text)) for name, (_, help_text) in _COMMANDS.items()}


def _page(name: str, help_text: str) -> Iterator[str]:
    yield from (f"# nngen {name}", "", help_text, "")
    for words, command in subcommands(name, command_app(name)):
        if words != name:
            yield from (f"## nngen {words}", "")
        yield from _description(command)
        yield from (f"```text\nnngen {words}{_usage(command)}\n```", "")
        yield from _table(command)
        if command.help_epilogue:
            examples = [line.strip() for line in str(command.help_epilogue).splitlines()]
            yield from ("```text", *(line for line in examples if line.startswith("nngen ")), "```", "")


def subcommands(name: str, command: App) -> Iterator[tuple[str, App]]:
    """Iterate over the commands that can be called below an application, itself included, with all their words."""
    if command.default_command is not None:
        yield name, command
    for word in command:
        if not word.startswith("-"):
            yield from subcommands(f"{name} {word}", command[word])


def _description(command: App) -> list[str]:
    doc = parse(inspect.getdoc(command.default_command) or "")
    return [text for part in (doc.short_description, doc.long_description) if part for text in (part, "")]


def _arguments(command: App) -> list[Argument]:
    """Return the arguments that a user may type, positional ones first."""
    found = [one for one in command.assemble_argument_collection(parse_docstring=True) if one.parse and one.show]
    return sorted(found, key=lambda one: not _positional(one))


def _positional(argument: Argument) -> bool:
    return not argument.name.startswith("-")


def _usage(command: App) -> str:
    names = "".join(f" {argument.name}" for argument in _arguments(command) if _positional(argument))
    return f"{names} [OPTIONS]"


def _table(command: App) -> Iterator[str]:
    yield from ("| argument | meaning | default |", "|---|---|---|")
    for argument in _arguments(command):
        names = " ".join(f"`{name}`" for name in argument.names) or f"`{argument.name}`"
        meaning = " ".join((argument.parameter.help or "").split())
        cells = (text.replace("|", "\\|") for text in (names, meaning, _default(argument)))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _default(argument: Argument) -> str:
    shown: Any = argument.show_default
    if shown is True:
        shown = argument.field_info.default
    return "" if shown in (False, None, "", ()) or callable(shown) else f"`{shown}`"


def python_page() -> str:
    """Return the reference of the public names as Markdown."""
    lines = ["# Python reference", "", inspect.getdoc(nngen) or "", ""]
    names = [f"nngen.{name}" for name in nngen.__all__ if name != "__version__"]
    for name in (*names, *_MORE):
        module, _, word = name.rpartition(".")
        value = getattr(__import__(module, fromlist=[word]), word)
        home = f"{value.__module__}.{value.__qualname__}"
        kind = "function" if inspect.isfunction(value) else "class"
        members = "" if kind == "function" else "\n   :members:\n   :inherited-members: tuple, Exception"
        lines += [
            f"## {name if name in names else home}",
            "",
            f"```{{eval-rst}}\n.. auto{kind}:: {home}{members}\n```",
            "",
        ]
    return "\n".join(lines)


def write_pages(*_: object) -> None:
    """Write all generated pages; a page whose text is the same is left alone, so that Sphinx keeps what it built."""
    commands = command_pages()
    listed = "".join(f"| [{name}]({name}.md) | {text} |\n" for name, (_, text) in _COMMANDS.items())
    names = "\n".join(commands)
    hidden = f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    pages = {REFERENCE / f"{name}.md": text for name, text in commands.items()}
    pages[REFERENCE / "commands.md"] = f"# Commands\n\n| command | purpose |\n|---|---|\n{listed}\n{hidden}"
    pages[REFERENCE / "python.md"] = python_page()
    results = sorted(RESULTS.glob("*.md"))
    pages |= {MEASUREMENTS / file.name: file.read_text(encoding="utf-8") for file in results}
    names = "\n".join(file.stem for file in results)
    head = "# Measurements\n\nPages that the scripts in `eval/` wrote; each begins with the command that repeats it.\n"
    pages[MEASUREMENTS / "index.md"] = f"{head}\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    for folder in (REFERENCE, MEASUREMENTS):
        folder.mkdir(exist_ok=True)
        for file in set(folder.iterdir()) - set(pages):
            file.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def adapt_source(_: object, name: str, source: list[str]) -> None:
    """Let links to pages of results, which lie outside of docs, lead to their copies; list the pages of decisions."""
    up = "../" * name.count("/")
    source[0] = re.sub(r"\]\((?:\.\./)+eval/results/(\w+\.md)\)", rf"]({up}measurements/\1)", source[0])
    # Other pages outside of docs are not part of the site.
    out = re.escape(f"{up}../")
    source[0] = re.sub(rf"\[([^\]]*)\]\({out}([\w/.-]+\.md)\)", r"\1 (\2)", source[0])
    if name == "design/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"


def setup(app: Any) -> dict[str, bool]:
    """Connect the extension to Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", adapt_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
