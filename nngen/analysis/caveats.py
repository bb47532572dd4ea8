"""What a table of trials cannot say, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nngen.analysis.design_matrix import Structure
from nngen.analysis.observations import Observation, describe_failures
from nngen.analysis.success_rates import Rate, trained_quartets

__all__ = ["listed", "sample_notes"]


def sample_notes(
    observations: Sequence[Observation],
    *,
    rates: Mapping[str, Rate],
    told: Structure | None,
    df: int,
    between: int,
    seeds: int,
    flat: bool,
) -> tuple[str, ...]:
    """Name what is missing, what is confounded, and what validity the effects are conditioned on.

    Args:
        observations: The trials.
        rates: Success per family.
        told: What the design pins down; None where nothing was trained.
        df: Degrees of freedom of the residual; 0 where no model could be fitted.
        between: Trained candidates less unknowns of the fixed part.
        seeds: Most seeds of one candidate.
        flat: Whether all accuracies are equal.
    """
    if not observations:
        return ("no trial is finished: run nngen campaign run first",)
    if told is None:
        return (
            f"all {_count(len(observations), 'trial')} failed ({describe_failures(observations)}): "
            "there is no accuracy to explain",
        )
    notes = [*_validity(observations, rates), *_confounded(told), *_noise(told, df=df, between=between, seeds=seeds)]
    if flat:
        notes.append("all accuracies are equal: there is nothing to explain")
    return tuple(notes)


def listed(names: Sequence[str], limit: int = 6) -> str:
    """Write names as ``A, B and C``, the tail as a number where it is long."""
    shown = list(names) if len(names) <= limit else [*names[: limit - 1], f"{len(names) - limit + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _validity(observations: Sequence[Observation], rates: Mapping[str, Rate]) -> Iterable[str]:
    trained = trained_quartets(observations)
    good = sum(trained.values())
    if good == 1:
        yield "one quartet was trained: an effect needs quartets with and without a family"
    if good < len(trained):
        yield (
            f"accuracy is known for {good:,} of {_count(len(trained), 'quartet')} only "
            f"({describe_failures(observations)}): the effects hold for quartets that can be trained"
        )
        overall = good / len(trained)
        rare = [name for name, rate in rates.items() if rate.tries and rate.high < overall]
        if rare:
            yield (
                f"quartets with {listed(rare)} fail more often than chance explains ({1 - overall:.0%} of all fail), "
                "so what is known of them comes from those that got through"
            )


def _confounded(told: Structure) -> Iterable[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in told.reasons.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        yield f"no effect for {listed(names)}: {reason}"
    for unit in told.units:
        if len(unit) > 1:
            yield f"{listed(unit)} are always together and cannot be told apart: their effect is the mean of them all"
    if len(told.classes) > 1:
        groups = "; ".join(
            listed([name for index in members for name in told.units[index]]) for members in told.classes
        )
        yield f"families are compared only within these groups: {groups}"


def _noise(told: Structure, *, df: int, between: int, seeds: int) -> Iterable[str]:
    if not told.classes:
        return
    if df < 1:
        yield (
            f"no interval can be given: the quartets trained are as many as the unknowns ({told.rank}); "
            "train more quartets, or each with several seeds"
        )
    elif between < 1:
        yield (
            f"quartets are as many as the unknowns ({told.rank}): the noise is known between seeds only, "
            "so that the intervals rest on an assumption about the quartets"
        )
    elif between < told.rank:
        yield f"{told.rank + between} quartets for {told.rank} unknowns: more quartets would narrow the intervals"
    if seeds == 1:
        yield (
            "one seed for each candidate: the noise between seeds cannot be told from what is particular to a quartet "
            "(the intervals hold both)"
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
