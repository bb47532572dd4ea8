"""``nngen plans``: plans that ship with nngen."""

from __future__ import annotations

import sys
from pathlib import Path

from cyclopts import App

from nngen.cli.output import print_json, print_table

__all__ = ["app"]

app = App(name="plans", help="Plans that ship with nngen: one for each kind of mixture.")


@app.command
def ls(*, json: bool = False) -> None:
    """List the presets.

    Args:
        json: Print them as JSON, each with its plan.

    Examples:
        nngen plans ls
    """
    from nngen.assembly.presets import preset, preset_names, preset_purpose

    found = {name: preset(name) for name in preset_names()}
    rows = [
        {"name": name, "kind": plan.kind, "experts": len(plan.experts), "purpose": preset_purpose(name)}
        for name, plan in found.items()
    ]
    if json:
        print_json([{**row, "plan": found[str(row["name"])].to_dict()} for row in rows])
    else:
        print_table(rows, ("name", "kind", "experts", "purpose"))


@app.command
def show(name: str, /, *, json: bool = False) -> None:
    """Print a preset: a TOML file that ``nngen assemble --plan`` takes.

    Args:
        name: As ``nngen plans ls`` lists it.
        json: Print the plan as JSON.

    Examples:
        nngen plans show moev7
    """
    from nngen.assembly.presets import preset, preset_file

    if json:
        print_json(preset(name).to_dict())
    else:
        sys.stdout.write(preset_file(name).read_text(encoding="utf-8"))


@app.command
def cp(name: str, to: Path, /, *, force: bool = False) -> None:
    """Copy a preset, to change it.

    Args:
        name: As ``nngen plans ls`` lists it.
        to: The new file, or a folder to put it into.
        force: Replace a file that is there.

    Examples:
        nngen plans cp moev7 mine.toml
        nngen assemble --plan mine.toml --out mixtures
    """
    from nngen.assembly.presets import preset_file
    from nngen.errors import UsageError
    from nngen.files import write_atomically

    source = preset_file(name)
    target = to / source.name if to.is_dir() else to
    if target.exists() and not force:
        raise UsageError(f"{target} is there already: choose another name, or --force to replace it")
    try:
        write_atomically(target, source.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from None
    print(target)
