"""``nngen check``: prove that files work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.cli.output import print_json, print_table
from nngen.cli.progress import progress_bar
from nngen.cli.values import parse_values

if TYPE_CHECKING:
    from nngen.training import LocalEngine
    from nngen.types import Verdict

__all__ = ["check"]


def check(
    paths: Annotated[list[Path] | None, Parameter(negative="")] = None,
    /,
    *,
    family: Annotated[list[Path] | None, Parameter(negative="")] = None,
    shape: str = "3x32x32",
    classes: int = 10,
    prm: Annotated[list[str] | None, Parameter(negative="")] = None,
    wall: float = 60.0,
    memory_mib: int = 12_288,
    device: str = "auto",
    threads: int | None = None,
    isolation: str = "auto",
    json: bool = False,
) -> None:
    """Prove that files work: contract, import, shapes, finite loss, one step, and a gradient in every expert.

    Each file runs in an isolated worker process; what was not assembled here, in a sandbox. Ends with exit
    code 3 if some of the files failed.

    Args:
        paths: Files, or folders whose ``*.py`` are meant.
        family: A file that shall join LEMUR's families: says whether it may, and why not. May be given several
            times, in place of paths.
        shape: Channels, height and width of the images the files shall take.
        classes: Number of classes.
        prm: A hyperparameter as NAME=VALUE, for files that name more than lr, momentum and dropout.
        wall: Seconds that one file may take.
        memory_mib: MiB of memory that one file may use.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads of the worker; all cores by default.
        isolation: ``sandbox`` (bubblewrap: no network, no files, no rights), ``process`` (own process, limits),
            ``none`` (time and memory alone), or ``auto``: process for what assembling its plan gives byte for
            byte, sandbox for everything else.
        json: Print the rows as JSON.

    Examples:
        nngen check generated/*.py
        nngen check generated/first --shape 1x32x32 --json
        nngen check --family examples/families/Pebble.py
    """
    import os

    from nngen.errors import SomeFailedError, UsageError
    from nngen.training import LocalEngine, pick_device
    from nngen.training.candidate_files import check_isolation, find_files
    from nngen.types import Shape

    if (paths is None) == (family is None):
        raise UsageError("say what to check: files or folders, or --family FILE")
    if family is not None:
        _join(family, shape, classes, json=json)
        return
    check_isolation(isolation)
    files = find_files(paths or [])
    options = {
        "shape": Shape.parse(shape),
        "classes": classes,
        "hyperparameters": parse_values(prm or []),
        "device": pick_device(device),
        "threads": threads or os.cpu_count() or 1,
        "time_limit_s": wall,
        "memory_mib": memory_mib,
    }
    rows = []
    with LocalEngine() as engine, progress_bar("checking") as report:
        for number, file in enumerate(files):
            report(number, len(files))
            rows.append(_row(file, _check(engine, file, isolation, options)))
    if json:
        print_json(rows)
    else:
        print_table(rows, ("path", "valid", "verdict", "message"))
    failed = sum(not row["valid"] for row in rows)
    if failed:
        raise SomeFailedError(f"{failed} of {len(rows)} failed")


def _join(files: list[Path], shape: str, classes: int, *, json: bool) -> None:
    """Say of each file whether it may join the families."""
    from dataclasses import asdict

    from nngen.assembly.validate_family import may_join
    from nngen.errors import SomeFailedError
    from nngen.lemur.source import open_lemur
    from nngen.types import Shape

    with progress_bar("measuring families") as report:
        found = may_join(files, open_lemur(), Shape.parse(shape), classes=classes, progress=report)
    rows = [asdict(one) | {"path": str(one.path)} for one in found]
    if json:
        print_json(rows)
    else:
        print_table(rows, ("path", "name", "may_join", "native", "takes", "parameters", "message"))
    refused = sum(not one.may_join for one in found)
    if refused:
        raise SomeFailedError(f"{refused} of {len(found)} may not join")


def _check(engine: LocalEngine, file: Path, isolation: str, options: dict[str, Any]) -> tuple[Verdict, str | None]:
    """Return the verdict and the level at which it was found; None for a file that was not run at all."""
    from nngen.checks import CheckFailed
    from nngen.training import CheckJob
    from nngen.training.candidate_files import choose_isolation, read_candidate

    try:
        candidate = read_candidate(file)
    except CheckFailed as refused:
        return refused.verdict, None
    level = choose_isolation(isolation, candidate.source)
    return engine.check(CheckJob(candidate=candidate, isolation=level, **options)), level.value


def _row(file: Path, found: tuple[Verdict, str | None]) -> dict[str, Any]:
    verdict, isolation = found
    return {
        "path": str(file),
        "valid": verdict.valid,
        "verdict": verdict.outcome.value,
        "message": verdict.message,
        "isolation": isolation,
    }
