"""A campaign in words, on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nngen.cli.output import print_table

if TYPE_CHECKING:
    from nngen.campaign import Status, Summary

__all__ = ["print_standing", "print_summary"]


def print_summary(summary: Summary) -> None:
    """Print what a campaign came to: trials, coverage, rungs and finalists where there are any, the best."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(summary.outcomes.items())) or "none yet"
    print(f"campaign {summary.name}: {summary.done} of {summary.total} trials done ({outcomes})")
    print(f"coverage {summary.coverage.share:.2%} of {summary.coverage.space:,} quartets: {summary.coverage.verdict}")
    for number, rung in enumerate(summary.rungs if len(summary.rungs) > 1 else (), start=1):
        reached = "" if rung.best is None else f", best {rung.best:.4f}"
        print(
            f"rung {number} ({rung.epochs} epochs): {rung.done} of {rung.trials} done, {rung.promoted} went on{reached}"
        )
    best = summary.best
    if best is not None:
        test = "not revealed yet" if best.test_accuracy is None else f"{best.test_accuracy:.4f}"
        print(f"best {best.candidate_id} ({', '.join(best.experts)})")
        print(f"     validation accuracy {best.validation_accuracy:.4f}, test accuracy {test}")
    if summary.finalists:
        columns = ("id", "experts", "epochs", "seeds", "validation_accuracy", "validation_std", "test_accuracy")
        rows = [row.to_dict() for row in summary.finalists]
        print_table([row | {"id": row["id"][:13], "experts": ", ".join(row["experts"])} for row in rows], columns)


def print_standing(summary: Summary, stands: Status) -> None:
    """Print how a campaign goes on: whether it is driven, its pace, what it has used."""
    driver = "" if stands.driver is None else f" (process {stands.driver})"
    parts = ["over" if summary.over else f"{stands.word}{driver}", f"{stands.spent.hours:.2f} h used"]
    if stands.spent.cost is not None:
        parts.append(f"cost {stands.spent.cost:.2f}")
    if stands.per_hour is not None:
        parts.append(f"{stands.per_hour:.1f} trials per hour")
        if not summary.over:
            parts.append(f"about {(summary.total - summary.done) / stands.per_hour:.1f} h left")
    parts += [f"{used:.4g} of {limit:g} {name}" for name, (used, limit) in stands.spent.shares(stands.budget).items()]
    if stands.promotions:
        parts.append(f"{stands.promotions} promotions")
    if stands.lost:
        parts.append(f"{stands.lost} trials lost and tried again")
    print(", ".join(parts))
