"""What becomes of the candidates of ``nngen assemble``: files in a folder, or one growing archive of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nngen.cli.progress import progress_bar

if TYPE_CHECKING:
    from nngen.assembly.assemble import Assembler
    from nngen.cli.assembly_plans import Usable
    from nngen.plan import Plan
    from nngen.types import Candidate

__all__ = ["TAR", "stream", "write_files"]

TAR = ".tar.zst"
"""How the name of a file ends that holds many mixtures."""


def _candidate(assembler: Assembler, plan: Plan, pool: Usable) -> Candidate:
    return assembler.assemble(plan, [pool[name] for name in plan.experts] if pool else [])


def write_files(
    assembler: Assembler, plans: Iterator[Plan], count: int, pool: Usable, out: Path, known: frozenset[str]
) -> Iterator[dict[str, Any]]:
    """Write each candidate that is not known into a folder; yield what is said of it."""
    from nngen.assembly.output import prepare_folder, write_candidate

    prepare_folder(out)
    with progress_bar("assembling") as report:
        for done, plan in enumerate(plans, 1):
            candidate = _candidate(assembler, plan, pool)
            report(done, count)
            if candidate.canonical in known:
                continue
            path, written = write_candidate(candidate, out)
            yield {
                "id": candidate.id,
                "path": str(path),
                "experts": list(plan.experts),
                "canonical": candidate.canonical,
                "written": written,
            }


def stream(
    assembler: Assembler,
    plans: Iterator[Plan],
    count: int,
    pool: Usable,
    out: Path,
    known: frozenset[str],
    *,
    model: Plan,
) -> dict[str, Any]:
    """Write a whole space without keeping any of it; return what was done in numbers."""
    from nngen.assembly.output import FolderWriter, order_of

    written = skipped = 0
    if str(out).endswith(TAR):
        from nngen.assembly.shards import TarWriter

        writer: FolderWriter | TarWriter = TarWriter(out, order_of(model, pool, count))
    else:
        writer = FolderWriter(out)
    with writer, progress_bar("assembling") as report:
        begun = writer.position
        for position, plan in enumerate(islice(plans, begun, None), begun + 1):
            candidate = _candidate(assembler, plan, pool)
            if candidate.canonical in known:
                skipped += 1
            else:
                written += writer.add(candidate)
            writer.reach(position)
            report(position, count)
        if not writer.finished:
            writer.finish()
    return {
        "path": str(out),
        "quartets": count,
        "written": written,
        "there_already": count - written - skipped,
        "in_the_archive": skipped,
    }
