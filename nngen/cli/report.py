"""``nngen report``: a campaign's report as one HTML file, and its figures as PDF."""

from __future__ import annotations

from pathlib import Path

from nngen.cli.output import print_json

__all__ = ["report"]


def report(
    name: str,
    /,
    *,
    out: Path | None = None,
    figures: Path | None = None,
    price_per_hour: float | None = None,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Write a campaign's report: one HTML file that opens with no server and no network.

    It holds the best mixtures, the way from sampled to trained with the verdicts, the coverage of the
    space, what each family and each pair does to the accuracy, learning curves, gate usage, the cost and
    what is needed to repeat it all; and it says in words what cannot be concluded.

    Args:
        name: The campaign's name.
        out: The HTML file to write.
        figures: A folder to write the same figures to as PDF, for a paper.
        price_per_hour: Of the machine, in any currency, for the cost in money.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print the paths and the counts as JSON.

    Examples:
        nngen report demo --out report.html
        nngen report demo --figures figures
        nngen report demo --out report.html --price-per-hour 0.44 --archive generated/demo.db --json
    """
    from nngen.analysis.pdf_figures import write_figures
    from nngen.analysis.report import collect, write_report
    from nngen.archive import Archive, default_path
    from nngen.errors import UsageError

    if out is None and figures is None:
        raise UsageError("say what to write: --out FILE for the report, --figures FOLDER for its figures as PDF")
    if out is not None and out.is_dir():
        raise UsageError(f"{out} is a folder: name the file to write, such as {out / 'report.html'}")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise UsageError(f"{figures} is a file: --figures names a folder")
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise UsageError(f"--price-per-hour must be a number from 0 up, not {price_per_hour}")
    with Archive.open(archive or default_path(), readonly=True) as store:
        found = (
            write_report(store, name, out, price_per_hour=price_per_hour)
            if out is not None
            else collect(store, name, price_per_hour=price_per_hour)
        )
    drawn = write_figures(found, figures) if figures is not None else ()
    if json:
        paths = {"report": str(out) if out else None, "figures": [str(path) for path in drawn]}
        print_json({"campaign": name, **paths, **dict(found.funnel.stages())})
        return
    if out is not None:
        print(f"report of {name}: {out} ({found.funnel.trained} of {found.funnel.drawn} quartets trained)")
    if figures is not None:
        names = ", ".join(path.name for path in drawn) or "nothing to draw yet"
        print(f"figures of {name}: {figures} ({names})")
