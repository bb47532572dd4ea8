"""``nngen coverage``: what a sample of quartets covers, and what can be said from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.cli.output import print_json, print_table

if TYPE_CHECKING:
    from nngen.space import Coverage, Quartet
    from nngen.space.evenness import Evenness

__all__ = ["coverage"]


def coverage(
    what: Annotated[str | None, Parameter(name="CAMPAIGN|FOLDER")] = None,
    /,
    *,
    campaign: str | None = None,
    sampler: str | None = None,
    size: int | None = None,
    families: str | None = None,
    pool: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Audit a campaign, a folder of plans or a sampler: how much of the space, how evenly, what follows.

    The verdict says in one sentence what can be concluded. An anchor is a family in every quartet: what
    is found then holds for quartets with it only.

    Args:
        what: A campaign's name, or a folder of plans (.toml) and assembled mixtures (.py).
        campaign: A campaign's name, where a folder has the same.
        sampler: Audit what this sampler would draw; give --size too.
        size: Quartets to draw, or to take from the campaign's order; all of a campaign's by default.
        families: The pool, separated by commas; the campaign's own, the families in the folder, or all
            of LEMUR's by default.
        pool: A pool of this many abstract families, for a sampler.
        seed: Of the sampler.
        out: Also draw how often each pair was used: FILE.html (needs plotly) or any other name for text.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print the audit as JSON.

    Examples:
        nngen coverage --sampler lexicographic --size 1140 --pool 29
        nngen coverage --sampler stratified --size 203 --pool 29 --json
        nngen coverage first --out pairs.html
        nngen coverage generated/four
    """
    from nngen.space import coverage as audit_of
    from nngen.space.evenness import evenness

    names, quartets = _sample(
        what, campaign=campaign, sampler=sampler, size=size, families=families, pool=pool, seed=seed, archive=archive
    )
    audit = audit_of(names, quartets)
    even = evenness(audit)
    if out is not None:
        from nngen.analysis.heat_map import write_heat_map

        write_heat_map(audit, out)
    if json:
        print_json(audit.to_dict() | even.to_dict())
    else:
        _print(audit, even)


def _sample(
    what: str | None,
    *,
    campaign: str | None,
    sampler: str | None,
    size: int | None,
    families: str | None,
    pool: int | None,
    seed: int,
    archive: Path | None,
) -> tuple[Sequence[str], Sequence[Quartet]]:
    """Find the quartets that are meant, and the pool they are held against."""
    from nngen.cli.family_options import named, pool_of
    from nngen.errors import UsageError
    from nngen.space import draw, find_sampler

    if sum(given is not None for given in (what, campaign, sampler)) != 1:
        raise UsageError("say what to audit, one thing: a campaign's name, a folder of plans, or --sampler with --size")
    if size is not None and size < 1:
        raise UsageError(f"--size must be at least 1, not {size}")
    if sampler is not None:
        find_sampler(sampler, learns=False)
        if size is None:
            raise UsageError("--sampler needs --size: how many quartets it is to draw")
        names = pool_of(families, pool)
        return names, draw(sampler, names, size, seed)
    if pool is not None:
        raise UsageError("--pool goes with --sampler: plans and campaigns have families with names")
    if what is not None and Path(what).is_file():
        raise UsageError(f"{what} is a file: name a campaign (of the archive --archive FILE) or a folder of plans")
    if what is not None and Path(what).is_dir():
        quartets = _in_folder(Path(what))[:size]
        return named(families) if families else sorted({name for q in quartets for name in q}), quartets
    own, quartets = _in_campaign(campaign or what or "", archive)
    return named(families) if families else own, quartets[:size]


def _in_campaign(name: str, archive: Path | None) -> tuple[Sequence[str], list[Quartet]]:
    from nngen.analysis.observations import is_quartet
    from nngen.archive import Archive, default_path

    with Archive.open(archive or default_path(), readonly=True) as store:
        known = store.campaign(name)
        trials = sorted(store.trials(name), key=lambda trial: trial.position)
        quartets = list(dict.fromkeys(tuple(sorted(t.experts)) for t in trials if is_quartet(t.experts)))
    return sorted(known.spec.get("pool") or {expert for quartet in quartets for expert in quartet}), quartets


def _in_folder(folder: Path) -> list[Quartet]:
    from nngen.analysis.observations import is_quartet
    from nngen.assembly.plan_toml import from_toml, plan_of
    from nngen.errors import UsageError

    quartets = []
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix not in (".toml", ".py"):
                continue
            text = path.read_text(encoding="utf-8")
            plan = from_toml(text) if path.suffix == ".toml" else plan_of(text)
        except (OSError, UnicodeDecodeError, UsageError) as error:
            raise UsageError(f"{path} cannot be read as a plan: {error}") from error
        if plan is not None and is_quartet(plan.experts):
            quartets.append(tuple(sorted(plan.experts)))
    if not quartets:
        raise UsageError(f"{folder} holds no plan: name a folder of plans (.toml) or of assembled mixtures (.py)")
    return quartets


def _print(audit: Coverage, even: Evenness) -> None:
    print(f"{audit.verdict}")
    print(f"{audit.quartets:,} of {audit.space:,} quartets, {audit.share:.2%} of the space")
    rows: list[dict[str, Any]] = [
        _row("family", audit.families.values(), audit.family_range, even.family_expected)
        | {"entropy": even.family_entropy, "gini": even.family_gini},
        _row("pair", audit.pairs.values(), audit.pair_range, even.pair_expected)
        | {"entropy": even.pair_entropy, "gini": even.pair_gini},
        {"quartets_per": "triple", "range": audit.triple_range},
    ]
    print_table(rows, ("quartets_per", "fewest", "most", "range", "by_chance", "entropy", "gini"))
    if even.chi_square is not None and even.p is not None:
        print(f"chi-square of the families {even.chi_square:.1f} on {even.df} degrees of freedom, p = {even.p:.3g}")
    if audit.unseen_pairs:
        print(f"pairs never drawn together: {len(audit.unseen_pairs):,} of {len(audit.pairs):,}")


def _row(what: str, counts: Any, spread: int, expected: tuple[float, float]) -> dict[str, Any]:
    return {
        "quartets_per": what,
        "fewest": min(counts),
        "most": max(counts),
        "range": spread,
        "by_chance": f"{expected[0]:.0f} to {expected[1]:.0f}",
    }
