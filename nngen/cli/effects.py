"""``nngen effects``: effects of families and of pairs of families on the accuracy."""

from __future__ import annotations

from typing import Any

from nngen.analysis.effects import Effects, more_quartets
from nngen.analysis.effects import effects as estimate
from nngen.analysis.observations import LowYield, low_yield, observe, refuse_mixture, with_results
from nngen.analysis.ranking.fidelity import fidelity_note
from nngen.cli.options import ArchiveOptions, Fraction, Index
from nngen.cli.output import print_json, print_table, say
from nngen.errors import UsageError


def effects(
    campaign: str | None = None,
    /,
    *,
    rung: Index = 0,
    confidence: Fraction = 0.95,
    threshold: Fraction = 0.5,
    pairs: Index = 12,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Estimate the effect of each family and of each pair on the accuracy, with intervals.

    An effect of +0.01 is one point more than with an average family in its place. The effect of a pair is what two
    families reach together beyond the sum of their own effects; it is shrunk towards zero. Effects that cannot be
    estimated (a family in every quartet, families that always come together, too few trials) are named with the reason.

    Args:
        campaign: Name of a campaign; by default all trials of the archive, if they are alike.
        rung: Rung to read, from 0. Later rungs hold only what did well on earlier ones.
        confidence: Confidence of the intervals, between 0 and 1.
        threshold: A family is low-yield if the upper end of its success rate's interval is below this.
        pairs: Pairs to show in the table, strongest first; JSON has all of them.

    Examples:
        nngen effects first
        nngen effects first --confidence 0.9 --json
    """
    with output.read() as store:
        pool = tuple(sorted(store.campaign(campaign).pool)) if campaign is not None else ()
        trials, campaigns = store.lines(campaign), store.campaigns()
    pooled = with_results(campaigns, trials)
    if campaign is None:
        refuse_mixture(pooled)
    lines = observe(trials, rung)
    size = sum(trial.rung == trial.replicate == 0 for trial in trials)
    if rung and not lines:
        rungs = ", ".join(str(rung) for rung in sorted({trial.rung for trial in trials})) or "none"
        raise UsageError(f"no trial of rung {rung} is finished: the rungs of these trials are {rungs}")
    found = estimate(lines, pool, confidence=confidence)
    weak = low_yield(lines, [row.family for row in found.families], threshold=threshold, confidence=confidence)
    if output.json:
        print_json(
            found.to_dict() | {"low_yield": [{"family": row.family, "reason": row.reason} for row in weak.excluded]}
        )
    else:
        _print(found, weak, pairs)
        ran = [one.spec for one in pooled if campaign in (None, one.name) and rung < len(one.spec.fidelities)]
        if ran and (sentence := fidelity_note(ran[0].dataset, ran[0].fidelities[rung])):
            say(f"- {sentence}")
        if campaign is not None and rung == 0 and (sentence := more_quartets(found, campaign, size)):
            say(f"- {sentence}")


def _print(found: Effects, weak: LowYield, pairs: int) -> None:
    say(f"{found.trials:,} trials of {found.quartets:,} quartets, {found.trained:,} trained")
    if found.mean_accuracy is not None:
        say(f"mean accuracy {found.mean_accuracy:.4f}{_spreads(found)}")
    for caveat in (*found.notes, *([found.reliability.sentence] if found.reliability else [])):
        say(f"- {caveat}")
    for row in weak.excluded:
        say(f"- low-yield: {row.reason}")
    share = f"{found.confidence:.0%}"
    rows: list[dict[str, Any]] = [
        {
            "family": row.family,
            "effect": row.point,
            f"low_{share}": row.interval.low if row.interval else None,
            f"high_{share}": row.interval.high if row.interval else None,
            "p_Holm": row.interval.p_adjusted if row.interval else None,
            "quartets": row.quartets,
            "trained": f"{row.success.successes}/{row.success.tries}",
            "success": f"{row.success.low:.0%} to {row.success.high:.0%}" if row.success.tries else None,
            "why_not": row.reason or (f"with {', '.join(row.together_with)}" if row.together_with else ""),
        }
        for row in found.families
    ]
    if rows:
        print_table(rows)
    shown = [
        {
            "pair": " + ".join(pair.families),
            "effect": pair.interval.effect,
            f"low_{share}": pair.interval.low,
            f"high_{share}": pair.interval.high,
            "p_BH": pair.interval.p_adjusted,
            "quartets": pair.quartets,
            "kind": pair.kind.value,
        }
        for pair in found.pairs[:pairs]
    ]
    if shown:
        print_table(shown)


def _spreads(found: Effects) -> str:
    named = (("seeds", found.seed_sd), ("quartets", found.quartet_sd), ("pair effects", found.pair_sd))
    known = [f"{name} {value:.4f}" for name, value in named if value is not None]
    return f"; standard deviation of {', '.join(known)}" if known else ""
