"""Caveats of estimated effects, as sentences: missing data, confounding, and conditions of validity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nngen.analysis.design_matrix import Structure
from nngen.analysis.observations import Observation, describe_failures, trained_quartets
from nngen.analysis.statistics import Rate
from nngen.text import counted, listed


def sample_notes(
    observations: Sequence[Observation],
    *,
    rates: Mapping[str, Rate],
    structure: Structure | None,
    df: int,
    between: int,
    seeds: int,
    flat: bool,
) -> tuple[str, ...]:
    """List what is missing, what is confounded, and which trials the effects are conditional on.

    Args:
        observations: The trials.
        rates: Success rates by family.
        structure: Estimable effects of the design; None where nothing was trained.
        df: Degrees of freedom of the residual; 0 where no model could be fitted.
        between: Trained candidates less unknowns of the fixed part.
        seeds: Largest number of seeds of one candidate.
        flat: Whether all accuracies are equal.
    """
    if not observations:
        return ("no trial is finished: run nngen campaign run first",)
    suspect = sum(line.trained and line.suspect for line in observations)
    left_out = f"{counted(suspect, 'trial')} with a suspect accuracy left out: nngen leaderboard gives the reason"
    if structure is None and suspect:
        return (left_out,)
    if structure is None:
        return (
            f"all {counted(len(observations), 'trial')} failed ({describe_failures(observations)}): "
            "no accuracy can be explained",
        )
    notes = [
        *([left_out] if suspect else []),
        *_validity(observations, rates),
        *_confounded(structure),
        *_noise(structure, df=df, between=between, seeds=seeds),
    ]
    if flat:
        notes.append("all accuracies are equal: no differences can be explained")
    return tuple(notes)


def _validity(observations: Sequence[Observation], rates: Mapping[str, Rate]) -> Iterable[str]:
    trained = trained_quartets(observations)
    good = sum(trained.values())
    if good == 1:
        yield "one quartet was trained: an effect needs quartets with and without a family"
    if good < len(trained):
        yield (
            f"accuracy is known for {good:,} of {counted(len(trained), 'quartet')} only "
            f"({describe_failures(observations)}): the effects hold for quartets that can be trained"
        )
        overall = good / len(trained)
        rare = [name for name, rate in rates.items() if rate.tries and rate.high < overall]
        if rare:
            yield (
                f"quartets with {listed(rare, 6)} fail more often than chance explains "
                f"({1 - overall:.0%} of all fail), so their effects are estimated from the quartets that could be "
                "trained"
            )


def _confounded(structure: Structure) -> Iterable[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in structure.reasons.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        yield f"no effect for {listed(names, 6)}: {reason}"
    for unit in structure.units:
        if len(unit) > 1:
            yield f"{listed(unit, 6)} are always together and cannot be separated: their effect is a mean of all"
    if len(structure.classes) > 1:
        groups = "; ".join(
            listed([name for index in members for name in structure.units[index]], 6) for members in structure.classes
        )
        yield f"families are compared only within these groups: {groups}"


def _noise(structure: Structure, *, df: int, between: int, seeds: int) -> Iterable[str]:
    if not structure.classes:
        return
    if df < 1:
        yield (
            f"no interval can be given: the quartets trained are as many as the unknowns ({structure.rank}); "
            "train more quartets, or each with several seeds"
        )
    elif between < 1:
        yield (
            f"quartets are as many as the unknowns ({structure.rank}): the noise is estimated between seeds only, "
            "so the intervals rest on an assumption about the quartets"
        )
    elif between < structure.rank:
        quartets = structure.rank + between
        yield f"{quartets} quartets for {structure.rank} unknowns: more quartets would narrow the intervals"
    if seeds == 1:
        yield (
            "one seed for each candidate: the noise between seeds cannot be separated from that between quartets "
            "(the intervals include both)"
        )
