"""Every flag that a message, a help text or a page names exists on the command that it belongs to."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from nngen.cli import _COMMANDS, _load, app

ROOT = Path(__file__).parents[2]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![a-z{-])")
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.*"), ROOT / "Makefile"]

# The commands that print the messages of a module; the longest prefix decides.
PRINTED_BY = {
    "analysis/figures": ("coverage",),
    "archive": ("leaderboard", "campaign run", "campaign status"),
    "archive/check": ("archive check",),
    "archive/import_lemur": ("lemur import",),
    "assembly": ("assemble",),
    "campaign": ("campaign run",),
    "campaign_spec": ("campaign run",),
    "checks": ("check", "train"),
    "cli/campaign/execution": ("campaign run",),
    "cli/options/folds": ("campaign run",),
    "cli/options/dry_run": ("campaign run",),
    "cli/options/engine": ("campaign run",),
    "cli/options/family": ("sample",),
    "cli/options/table": ("campaign run", "evolve"),
    "cli/options": ("check", "train"),
    "dashboard": ("dashboard",),
    "datasets": ("train", "campaign run"),
    "export": ("export",),
    "export/kept_weights": ("campaign run",),
    "families": ("check", "train"),
    "isolation": ("check", "train"),
    "lemur": ("lemur fetch",),
    "llm/finetuning": ("finetune",),
    "llm": ("llm-propose",),
    "space": ("sample",),
    "training": ("train", "campaign run"),
    "training/ray": ("campaign run",),
    "training/scoring": ("check", "train", "campaign run"),
}


def commands() -> dict[str, App]:
    """Return all commands by name, subcommands as ``campaign run``."""
    found: dict[str, App] = {}

    def collect(name: str, command: App) -> None:
        if command.default_command is not None:
            found[name] = command
        for item in command:
            if not item.startswith("-"):
                collect(f"{name} {item}", command[item])

    for name in _COMMANDS:
        _load(name)
        collect(name, app[name])
    return found


COMMANDS = commands()
FLAGS = {
    name: {flag for argument in command.assemble_argument_collection() for flag in argument.names}
    for name, command in COMMANDS.items()
}
EXAMPLES = [
    line.strip()
    for command in COMMANDS.values()
    for line in (command.help_epilogue or "").splitlines()
    if line.strip().startswith("nngen ")
]


def command_of(words: list[str]) -> str | None:
    """Return the name of the command that a list of words calls."""
    return next((name for size in (2, 1) if (name := " ".join(words[:size])) in COMMANDS), None)


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings of a module except docstrings, with their lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    joined = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone | joined:
            yield node.lineno, node.value


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_examples(nngen, name):
    result = nngen(*name.split(), "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: nngen {name}")
    assert f"nngen {name}" in (COMMANDS[name].help_epilogue or "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_sentence(name):
    for argument in COMMANDS[name].assemble_argument_collection(parse_docstring=True):
        if "*" not in argument.names:
            assert (argument.parameter.help or "").rstrip().endswith((".", ")")), f"{name} {argument.name}"


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_parses(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "third.toml").write_text("size = 27\n")
    (tmp_path / "wide.toml").write_text("[gate]\nwidth = 64\n")
    app.parse_args(shlex.split(example)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("campaign events", "config completion")])
def test_every_command_takes_json(name):
    assert "--json" in FLAGS[name]


@pytest.mark.parametrize(
    "name", ["assemble", "campaign run", "check", "evolve", "export", "families", "llm-propose", "train"]
)
def test_every_command_that_runs_code_takes_its_isolation_level(name):
    assert "--isolation" in FLAGS[name]


def test_one_spelling_per_thing():
    everything = set().union(*FLAGS.values())
    assert not everything & {"--wall", "--memory", "--floor", "--keep", "--to", "--campaign"}


def test_flags_of_messages_exist_where_they_are_printed():
    wrong = []
    for path in sorted((ROOT / "nngen").rglob("*.py")):
        module = path.relative_to(ROOT / "nngen").with_suffix("").as_posix()
        dotted = f"nngen.{module.replace('/', '.')}"
        own = [name for name in COMMANDS if COMMANDS[name].default_command.__module__ == dotted]
        keys = [key for key in PRINTED_BY if f"{module}/".startswith(f"{key}/")]
        printing = own or (list(PRINTED_BY[max(keys, key=len)]) if keys else [])
        for line, text in messages(path):
            # A string that is only a flag is an argument of another program (bubblewrap, pip).
            if FLAG.fullmatch(text) or "ray start" in text:
                continue
            for found in FLAG.finditer(text):
                flag = found[0]
                # The command named last before the flag, or first after it.
                called = re.compile(r"nngen ([a-z-]+(?: [a-z-]+)?)")
                before, after = called.findall(text[: found.start()]), called.findall(text[found.end() :])
                owner = command_of((before[-1:] or after[:1])[0].split()) if before or after else None
                owners = [owner] if owner else printing
                # A command's own module may serve several commands, and one of them prints the message.
                fits = any if own else all
                if flag != "--help" and (not owners or not fits(flag in FLAGS[name] for name in owners)):
                    wrong.append(f"nngen/{module}.py:{line}: {flag} ({', '.join(owners) or 'no command'})")
    assert not wrong, "\n".join(wrong)


def test_commands_of_messages_and_pages_exist():
    wrong = []
    texts = [(path, text) for path in (ROOT / "nngen").rglob("*.py") for _, text in messages(path)]
    texts += [(path, path.read_text(encoding="utf-8")) for path in PAGES]
    called = re.compile(r"(?:^|`|\$ |bin/|: |run )nngen ([a-z][a-z-]+(?: [a-z-]+)?)", flags=re.MULTILINE)
    for path, text in texts:
        lines = [line for line in called.findall(text) if line.split()[0] in _COMMANDS and line not in _COMMANDS]
        wrong += [f"{path.relative_to(ROOT)}: nngen {line}" for line in lines if command_of(line.split()) is None]
    assert not wrong, "\n".join(wrong)


def test_flags_of_pages_exist():
    wrong = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"(?:^|`|\$ |bin/)nngen ([^`\n|;&]+)", text, flags=re.MULTILINE):
            owner = command_of(line.split())
            wrong += [
                f"{path.name}: {owner} {flag}" for flag in FLAG.findall(line) if owner and flag not in FLAGS[owner]
            ]
    assert not wrong, "\n".join(wrong)
