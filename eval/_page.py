"""Frame shared by the evaluation scripts: command-line options, tables, intervals, and the page in ``eval/results``.

A script creates one ``Evaluation`` from its file and its docstring, declares its options with their defaults, and ends
with ``finish``, which prints the page, writes it with ``--write``, and returns the exit code.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["RESULTS", "Evaluation", "kept", "note", "table"]

RESULTS = Path(__file__).parent / "results"


class Evaluation:
    """Arguments and results page of one script.

    Attributes:
        name: File name of the script without its suffix, and of its page in ``eval/results``.
        given: Options of this run, once ``arguments`` was called.
    """

    def __init__(self, file: str, description: str | None) -> None:
        self.name = Path(file).stem
        self.given = argparse.Namespace()
        self._description = description

    def arguments(self, argv: Sequence[str] | None = None, **options: Any) -> argparse.Namespace:
        """Declare the options, parse the command line and return the values.

        Args:
            argv: Command line without the program; by default that of the process.
            **options: Defaults by name, or pairs of a default and its help. ``False`` declares a switch, a type an
                option without a default, a list an option that takes several values; a dictionary holds the arguments
                of ``add_argument``.
        """
        parser = argparse.ArgumentParser(
            prog=f"{self.name}.py", description=self._description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        for name, value in options.items():
            default, text = value if isinstance(value, tuple) else (value, None)
            details = default if isinstance(default, dict) else _details(default) | {"help": text}
            parser.add_argument(f"--{name.replace('_', '-')}", **details)
        parser.add_argument("--write", action="store_true", help=f"write eval/results/{self.name}.md")
        self.given = parser.parse_args(argv)
        return self.given

    def error(self, message: str) -> NoReturn:
        """Refuse the command line with exit code 2."""
        print(f"{self.name}.py: error: {message}", file=sys.stderr)
        raise SystemExit(2)

    @property
    def command(self) -> str:
        """Return the command line of this run with all defaults, paths reduced to their names."""
        words = [f"python eval/{self.name}.py"]
        for name, value in vars(self.given).items():
            if value is True:
                words.append(f"--{name.replace('_', '-')}")
            elif value is not None and value is not False and value not in ("", [], float("inf")):
                values = value if isinstance(value, list) else [value]
                words.append(" ".join([f"--{name.replace('_', '-')}", *map(_word, values)]))
        return " ".join(words)

    def page(self, title: str, about: str, *blocks: str | Iterable[str]) -> str:
        """Join a page: title, command and date with a sentence about the run, then blocks between blank lines."""
        texts = [block if isinstance(block, str) else "\n".join(block) for block in blocks]
        head = f"`{self.command}`, {today()}. {about}".rstrip()
        return "\n\n".join([f"# {title}", head, *(text.strip("\n") for text in texts if text.strip())]) + "\n"

    def finish(self, text: str, *, good: bool) -> int:
        """Print the page, write it if asked, and return the exit code: 0 where every claim holds."""
        print(text, end="")
        if self.given.write:
            RESULTS.mkdir(parents=True, exist_ok=True)
            (RESULTS / f"{self.name}.md").write_text(text, encoding="utf-8")
        return 0 if good else 1


def _details(default: Any) -> dict[str, Any]:
    if default is False:
        return {"action": "store_true"}
    if isinstance(default, type):
        return {"type": default}
    if isinstance(default, list):
        return {"type": type(default[0]), "nargs": "+", "default": default}
    return {"type": type(default), "default": default}


def _word(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[str] = ()) -> str:
    """Return a Markdown table; the columns named in ``right`` are aligned to the right."""
    marks = ["---:" if column in set(right) else "---" for column in columns]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (columns, marks, *rows))


def today() -> str:
    """Return today's date, ISO 8601."""
    return datetime.now(UTC).date().isoformat()


def note(line: str) -> None:
    """Report progress on the error stream, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def kept(file: Path, work: Callable[[], Any]) -> Any:
    """Return the result of a step, from its JSON file if it was computed before."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(work()))
    return json.loads(file.read_text())
