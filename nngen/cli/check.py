"""``nngen check``: checks files in isolated workers."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.assembly.provenance import source_level
from nngen.assembly.validate_family import may_join
from nngen.checks import CheckFailed
from nngen.checks.constants import large_constants
from nngen.checks.source import own_seeds
from nngen.cli.options import (
    Assignments,
    ClassesOption,
    IsolationOption,
    MemoryOption,
    OutputOptions,
    SecondsOption,
    ShapeOption,
    ThreadsOption,
    hyperparameters,
)
from nngen.cli.options.family import note_levels
from nngen.cli.output import note, suggest
from nngen.cli.progress import progress_bar
from nngen.errors import SomeFailedError, UsageError
from nngen.families.trust import LevelChoice
from nngen.isolation import Isolation
from nngen.lemur.source import open_lemur
from nngen.training import CheckJob, LocalEngine, pick_device
from nngen.training.candidate_files import find_files, read_candidate
from nngen.types import Candidate, Shape, Verdict


def check(
    paths: Annotated[list[Path] | None, Parameter(negative="")] = None,
    /,
    *,
    family: Annotated[list[Path] | None, Parameter(negative="")] = None,
    shape: ShapeOption = Shape(3, 32, 32),
    classes: ClassesOption = 10,
    prm: Assignments = (),
    time_limit: SecondsOption = 60.0,
    memory_mib: MemoryOption = 12_288,
    device: str = "auto",
    threads: ThreadsOption | None = None,
    isolation: IsolationOption = "auto",
    output: OutputOptions = OutputOptions(),
) -> None:
    """Check that files work: contract, import, shapes, finite loss, one step, and a gradient in every expert.

    Each file runs in an isolated worker process; a file that was not assembled by nngen, in a sandbox. Large constants
    in such a file are a warning, since they may hold the answers to a data set, and so are seeds of its own. The exit
    code is 3 if some of the files failed.

    Args:
        paths: Files, or folders of ``*.py`` files.
        family: A file that is to be added to LEMUR's families: tells whether it can be an expert, and why not. May be
            given several times, in place of paths.
        classes: Number of classes.
        prm: A hyperparameter as NAME=VALUE, for files that name more than lr, momentum and dropout.
        time_limit: Seconds per file.
        memory_mib: MiB of resident memory per file.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads of the worker; all cores by default.

    Examples:
        nngen check generated/*.py
        nngen check generated/first --shape 1x32x32 --json
        nngen check --family examples/families/Pebble.py
    """
    if (paths is None) == (family is None):
        raise UsageError("say what to check: files or folders, or --family FILE")
    if family is not None:
        _check_families(family, shape, classes, isolation, output)
        return
    files = find_files(paths or [])
    job = partial(
        CheckJob,
        shape=shape,
        classes=classes,
        hyperparameters=hyperparameters(prm),
        device=pick_device(device),
        threads=threads or os.cpu_count() or 1,
        time_limit_s=time_limit,
        memory_mib=memory_mib,
    )
    read = [_read(file, isolation) for file in files]
    note_levels((item[1] for item in read if not isinstance(item, Verdict)), "files")
    rows = []
    with LocalEngine() as engine, progress_bar("checking") as report:
        for number, (file, item) in enumerate(zip(files, read, strict=True)):
            report(number, len(files))
            warning, level = "", None
            if isinstance(item, Verdict):
                verdict = item
            else:
                level = item[1].level
                if warning := _warning(item[0].source):
                    note(f"{file}: {warning}")
                verdict = engine.check(job(candidate=item[0], isolation=level))
            rows.append(
                {
                    "path": str(file),
                    "valid": verdict.valid,
                    "verdict": verdict.outcome.value,
                    "message": verdict.message,
                    "isolation": level and level.value,
                    "warning": warning,
                }
            )
    output.print_rows(rows, ("path", "valid", "verdict", "message"))
    valid = [row["path"] for row in rows if row["valid"]]
    if len(valid) < len(rows):
        raise SomeFailedError(f"{len(rows) - len(valid)} of {len(rows)} failed")
    if valid:
        suggest("train", valid[0], "--epochs", 1)


def _read(file: Path, isolation: str) -> tuple[Candidate, LevelChoice] | Verdict:
    """Read a file and choose its level; a verdict where it is refused before it runs."""
    try:
        candidate = read_candidate(file)
    except CheckFailed as refused:
        return refused.verdict
    return candidate, source_level(candidate.source, isolation)


def _warning(source: str) -> str:
    """Return the warnings of a source that was not assembled here: seeds of its own, large constants."""
    if source_level(source).level is Isolation.PROCESS:
        return ""
    large = large_constants(source)
    return "; ".join(
        filter(None, [own_seeds(source), f"it may carry the answers to a data set: {large}" if large else ""])
    )


def _check_families(files: list[Path], shape: Shape, classes: int, isolation: str, output: OutputOptions) -> None:
    """Report for each file whether it can be added to the families."""
    with progress_bar("measuring families") as report:
        found = may_join(files, open_lemur(), shape, classes=classes, progress=report, wanted=isolation)
    rows = [asdict(one) | {"path": str(one.path)} for one in found]
    output.print_rows(rows, ("path", "name", "may_join", "native", "takes", "parameters", "message"))
    refused = sum(not one.may_join for one in found)
    if refused:
        raise SomeFailedError(f"{refused} of {len(found)} cannot be families")
