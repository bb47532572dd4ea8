"""``nngen archive``: check an archive and save what can be read of a damaged one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cyclopts import App

from nngen.archive.check import check as check_archive
from nngen.archive.check import salvage as salvage_archive
from nngen.cli.options import ArchiveOptions, Flag
from nngen.cli.output import note, print_json, print_table
from nngen.errors import ArchiveError, UsageError

app = App(name="archive", help="Check an archive; save what can be read of a damaged one.")

_SHOWN = 20


@app.command
def check(*, salvage: Flag = False, out: Path | None = None, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Read every row of an archive, and name those that cannot be read.

    The exit code is 1 where something is damaged. With --salvage, the rows that can be read are copied into a new
    archive; trials whose result is lost are stored as ready, and the same command that ran the campaign trains them
    again. The damaged file stays as it is.

    Args:
        salvage: Copy what can be read into a new archive.
        out: File of the new archive; by default the damaged one's name with .salvaged at its end.

    Examples:
        nngen archive check
        nngen archive check --archive old.db --json
        nngen archive check --salvage --out whole.db
    """
    path = output.path
    if out and not salvage:
        raise UsageError("--out names the file that --salvage writes: give both or neither")
    found = salvage_archive(path, out or path.with_name(f"{path.name}.salvaged")) if salvage else check_archive(path)
    if output.json:
        print_json(asdict(found) | {"path": str(found.path), "saved": found.saved and str(found.saved)})
    else:
        print_table([{"table": table, "rows": count} for table, count in found.rows.items()])
        for where, reason in list(found.problems.items())[:_SHOWN]:
            note(f"{where}: {reason}")
    if found.saved:
        again = f"; {found.again:,} trials are to be trained again" if found.again else ""
        note(f"saved {found.saved}: {sum(found.rows.values()):,} rows, {found.damaged:,} left out{again}")
    elif found.problems:
        raise ArchiveError(
            f"archive {path}: {found.damaged:,} rows cannot be read, {len(found.problems):,} problems: restore a copy, "
            "or run nngen archive check --salvage"
        )
