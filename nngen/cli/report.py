"""``nngen report``: a campaign's report as one HTML file."""

from __future__ import annotations

from pathlib import Path

from nngen.cli.output import print_json

__all__ = ["report"]


def report(name: str, /, *, out: Path, archive: Path | None = None, json: bool = False) -> None:
    """Write a campaign's report: one HTML file that opens with no server and no network.

    It holds the leaderboard, the accuracy per family with its count, the verdicts from drawn to trained,
    the coverage of pairs, learning curves, gate usage and what is needed to repeat it all.

    Args:
        name: The campaign's name.
        out: The file to write.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print the path and the counts as JSON.

    Examples:
        nngen report demo --out report.html
        nngen report demo --out report.html --archive generated/demo.db --json
    """
    from nngen.analysis.report import write_report
    from nngen.archive import Archive, default_path

    with Archive.open(archive or default_path(), readonly=True) as store:
        written = write_report(store, name, out)
    if json:
        print_json({"campaign": name, "report": str(out), **dict(written.funnel.stages())})
    else:
        print(f"report of {name}: {out} ({written.funnel.trained} of {written.funnel.drawn} quartets trained)")
