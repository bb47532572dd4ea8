"""``nngen coverage``: how much of the space a sample of quartets covers, how evenly, and what follows from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nngen.analysis.figures import write_coverage_page
from nngen.analysis.observations import is_quartet
from nngen.assembly.plan_toml import from_toml, plan_of
from nngen.cli.options import ArchiveOptions, Count, Names, PoolSize
from nngen.cli.options.family import FamilyOptions, abstract_pool
from nngen.cli.output import note, print_json, print_table, say
from nngen.errors import UsageError
from nngen.files import read_regular
from nngen.space import Coverage, Quartet, draw, find_sampler, sampler_help
from nngen.space import coverage as measure
from nngen.space.evenness import Evenness, evenness
from nngen.text import counted
from nngen.types import MAX_SOURCE_BYTES


def coverage(
    subject: Annotated[str | None, Parameter(name="CAMPAIGN|FOLDER")] = None,
    /,
    *,
    sampler: Annotated[
        str | None, Parameter(help=f"Sampler to measure instead; needs --size. {sampler_help()}.")
    ] = None,
    size: Count | None = None,
    families: Names = None,
    pool: PoolSize | None = None,
    seed: int = 0,
    out: Path | None = None,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Measure how much of the space a campaign, a folder of plans or a sampler covers, and how evenly.

    The verdict states in one sentence what can be concluded. An anchor is a family in every quartet: results
    then hold only for quartets with it.

    Args:
        subject: Name of a campaign, or a folder of plans (.toml) and assembled mixtures (.py); a folder comes first,
            unless it has no slash and the archive has a campaign of that name.
        size: Quartets to draw, or to take from the campaign's order; all of a campaign's by default.
        families: The pool, separated by commas; by default the campaign's own, those in the folder, or all of
            LEMUR's.
        pool: A pool of this many abstract families, for a sampler.
        seed: Seed of the sampler.
        out: File for a web page (FILE.html) that shows how often each pair was used.

    Examples:
        nngen coverage --sampler lexicographic --size 1140 --pool 29
        nngen coverage --sampler stratified --size 203 --pool 29 --json
        nngen coverage first --out pairs.html
        nngen coverage generated/four
    """
    if (subject is None) == (sampler is None):
        raise UsageError(
            "say what to measure, one thing: a campaign's name, a folder of plans, or --sampler with --size"
        )
    if sampler is not None:
        names, quartets = _drawn(sampler, size, families, pool, seed)
    elif pool is not None:
        raise UsageError("--pool goes with --sampler: plans and campaigns have families with names")
    else:
        names, quartets = _stored(subject or "", output)
        if size is not None and size > len(quartets):
            raise UsageError(f"--size must be from 1 to {len(quartets)}, the quartets of {subject}, not {size}")
        names, quartets = families or names, quartets[:size]
    audit = measure(names, quartets)
    if other := len(set(quartets)) - audit.quartets:
        note(f"{counted(other, 'quartet')} with other families left out")
    even = evenness(audit)
    if out is not None:
        write_coverage_page(audit, out)
    if output.json:
        print_json(audit.to_dict() | even.to_dict())
    else:
        _print(audit, even)


def _drawn(
    sampler: str, size: int | None, families: Names, pool: int | None, seed: int
) -> tuple[Sequence[str], Sequence[Quartet]]:
    find_sampler(sampler, learns=False)
    if size is None:
        raise UsageError("--sampler needs --size: how many quartets to draw")
    if families is not None and pool is not None:
        raise UsageError("--families and --pool are two ways to say the same: give one of them")
    names = FamilyOptions(families=families).pool() if pool is None else abstract_pool(pool)
    return names, draw(sampler, names, size, seed)


def _stored(subject: str, output: ArchiveOptions) -> tuple[Sequence[str], Sequence[Quartet]]:
    """Read a campaign's or a folder's families and quartets."""
    path = Path(subject)
    if path.is_file():
        raise UsageError(f"{subject} is a file: name a campaign (of the archive --archive FILE) or a folder of plans")
    if path.is_dir() and ("/" in subject or not _is_campaign(subject, output)):
        quartets = _in_folder(path)
        return sorted({name for quartet in quartets for name in quartet}), quartets
    with output.read() as store:
        campaign = store.campaign(subject)
        trials = sorted(store.lines(subject), key=lambda trial: trial.position)
    # A campaign with rungs or replicates has several trials of one quartet: it counts once, in the order of planning.
    quartets = list(dict.fromkeys(tuple(sorted(t.experts)) for t in trials if is_quartet(t.experts)))
    return sorted(campaign.pool or {expert for quartet in quartets for expert in quartet}), quartets


def _is_campaign(name: str, output: ArchiveOptions) -> bool:
    with output.peek() as store:
        return any(campaign.name == name for campaign in store.campaigns())


def _in_folder(folder: Path) -> list[Quartet]:
    quartets = []
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix not in (".toml", ".py"):
                continue
            # No link out of the folder is followed, and no FIFO is waited for.
            text = read_regular(path, MAX_SOURCE_BYTES, root=folder).decode()
            plan = from_toml(text) if path.suffix == ".toml" else plan_of(text)
        except (OSError, UnicodeDecodeError, UsageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"{path} cannot be read as a plan: {reason}") from None
        if plan is not None and is_quartet(plan.experts):
            quartets.append(tuple(sorted(plan.experts)))
    if not quartets:
        raise UsageError(f"{folder} holds no plan: name a folder of plans (.toml) or of assembled mixtures (.py)")
    return quartets


def _print(audit: Coverage, even: Evenness) -> None:
    say(audit.verdict)
    say(f"{audit.quartets:,} of {audit.space:,} quartets, {audit.share:.2%} of the space")
    rows: list[dict[str, Any]] = [
        _row("family", audit.families.values(), audit.family_range, even.family_expected)
        | {"entropy": even.family_entropy, "gini": even.family_gini},
        _row("pair", audit.pairs.values(), audit.pair_range, even.pair_expected)
        | {"entropy": even.pair_entropy, "gini": even.pair_gini},
        {"quartets_per": "triple", "range": audit.triple_range},
    ]
    print_table(rows, ("quartets_per", "fewest", "most", "range", "by_chance", "entropy", "gini"))
    if even.chi_square is not None and even.p is not None:
        say(f"chi-square of the families {even.chi_square:.1f} on {even.df} degrees of freedom, p = {even.p:.3g}")
    if audit.unseen_pairs:
        say(f"pairs never drawn together: {len(audit.unseen_pairs):,} of {len(audit.pairs):,}")


def _row(unit: str, counts: Collection[int], spread: int, expected: tuple[float, float]) -> dict[str, Any]:
    return {
        "quartets_per": unit,
        "fewest": min(counts),
        "most": max(counts),
        "range": spread,
        "by_chance": f"{expected[0]:.0f} to {expected[1]:.0f}",
    }
