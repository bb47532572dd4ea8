"""``nngen plans``: list, show and copy the plans that ship with nngen."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from nngen.assembly.plan_toml import preset, preset_file, preset_names, preset_purpose
from nngen.cli.options import Flag, OutputOptions
from nngen.cli.output import emit, print_json, say
from nngen.errors import UsageError
from nngen.files import write_atomically

app = App(name="plans", help="Plans that ship with nngen.")


@app.command
def ls(*, output: OutputOptions = OutputOptions()) -> None:
    """List the presets; with --json, each with its plan.

    Examples:
        nngen plans ls
    """
    columns = ("name", "kind", "experts", "purpose", "plan")
    found = ((name, preset(name), preset_purpose(name)) for name in preset_names())
    rows = [(name, plan.kind, len(plan.experts), purpose, plan.to_dict()) for name, plan, purpose in found]
    output.print_rows([dict(zip(columns, row, strict=True)) for row in rows], columns[:-1])


@app.command
def show(name: str, /, *, output: OutputOptions = OutputOptions()) -> None:
    """Print a preset, as a TOML file that ``nngen assemble --plan`` takes.

    Args:
        name: Name of the preset (``nngen plans ls``).

    Examples:
        nngen plans show moev7
    """
    if output.json:
        print_json(preset(name).to_dict())
    else:
        emit(preset_file(name).read_text(encoding="utf-8"))


@app.command
def cp(name: str, out: Path, /, *, force: Flag = False, output: OutputOptions = OutputOptions()) -> None:
    """Copy a preset into a file of your own.

    Args:
        name: Name of the preset (``nngen plans ls``).
        out: The new file, or a folder to put it into.
        force: Replace an existing file.

    Examples:
        nngen plans cp moev7 mine.toml
        nngen assemble --plan mine.toml --out mixtures
    """
    source = preset_file(name)
    target = out / source.name if out.is_dir() else out
    if target.exists() and not force:
        raise UsageError(f"{target} is there already: choose another name, or --force to replace it")
    try:
        write_atomically(target, source.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from None
    if output.json:
        print_json({"path": str(target)})
    else:
        say(str(target))
