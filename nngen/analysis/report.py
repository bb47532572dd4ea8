"""Report of a campaign as one HTML file that opens without a server or a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nngen.analysis import figure_style, figures, formatting
from nngen.analysis.cost import Cost, FamilySeconds, Forecast, cost, family_seconds, remaining
from nngen.analysis.effects import Effects, FamilyEffect, effects, more_quartets
from nngen.analysis.leaderboard import leaderboard, validation_images
from nngen.analysis.loop_report import Loops, last_cycle, loops
from nngen.analysis.observations import Exclusion, low_yield, observe
from nngen.analysis.quality.baselines import Baselines, baselines_of
from nngen.analysis.quality.gains import Gains, gains
from nngen.analysis.quality.metrics import Quality, quality_of
from nngen.analysis.ranking.columns import columns_of
from nngen.analysis.ranking.early_stop import saving
from nngen.analysis.ranking.limits import limits
from nngen.analysis.ranking.rows import Row, by_fidelity, describe_fidelity
from nngen.analysis.results import (
    FamilyRow,
    Funnel,
    OutcomeRow,
    RungRow,
    family_rows,
    finished_quartets,
    funnel,
    outcome_rows,
    replay_note,
    rung_rows,
    template_note,
)
from nngen.archive.records import CampaignRecord, StoredTrial
from nngen.archive.store import Archive
from nngen.errors import UsageError
from nngen.files import write_result
from nngen.jinja import environment, script_data
from nngen.space import SAMPLERS, Coverage, coverage
from nngen.space.evenness import Evenness, evenness


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Content of a report, before rendering."""

    campaign: CampaignRecord
    trials: tuple[StoredTrial, ...]  # all trials, in the order in which they were drawn
    rows: tuple[Row, ...]
    gains: Gains  # the mixtures against their families alone
    families: tuple[FamilyRow, ...]
    outcomes: tuple[OutcomeRow, ...]  # verdicts of the finished trials, with their frequency
    funnel: Funnel
    coverage: Coverage  # audit of the finished quartets
    evenness: Evenness
    effects: Effects  # effects of families and pairs, from the first rung
    low_yield: tuple[Exclusion, ...]  # families whose quartets can hardly ever be trained, worst first
    cost: Cost
    measured: FamilySeconds | None  # seconds that each family adds to an epoch; None without a trained trial
    remaining: Forecast | None  # forecast of the unfinished part; None without a trained trial
    explored: int | None  # quartets that a learning sampler drew without using results; None for fixed samplers
    missing: tuple[str, ...]  # missing parts, one sentence each
    # distinct versions and hardware of the trials, with the number of trials
    environments: tuple[tuple[Mapping[str, str], int], ...]
    loops: Loops | None  # the closed loop that the campaign belongs to, compared with others; None outside of loops
    rungs: tuple[RungRow, ...]  # results of each rung; one without rungs
    limits: tuple[str, ...]  # what the leaderboard cannot tell, one clause each
    revealed: int  # number of the campaign's candidates whose test accuracy was computed
    # number of quartets that the pool needs for an effect of every family, with the command; empty where all have one
    more_quartets: str
    templates: str  # note on candidates assembled with older templates; empty where there is nothing to note
    baselines: Baselines  # trivial baselines beside the best accuracy
    # metrics of the best mixture's first seed on the validation images; None where they are not known
    quality: Quality | None

    @property
    def best(self) -> Row | None:
        return self.rows[0] if self.rows else None

    @property
    def rankings(self) -> list[list[Row]]:
        """Rows of each fidelity, best first; the one with the longest training comes first."""
        return by_fidelity(self.rows)

    @property
    def ranked(self) -> Sequence[Row]:
        """Rows of the first fidelity, best first."""
        return self.rankings[0] if self.rows else ()

    @property
    def family_effects(self) -> Mapping[str, FamilyEffect]:
        return {row.family: row for row in self.effects.families}

    @property
    def drawn(self) -> frozenset[str]:
        """Names of the figures that have data."""
        identified = any(row.point is not None for row in self.effects.families)
        there = {
            "ranking": len(self.ranked) > 1,
            "funnel": self.funnel.drawn > 0,
            "coverage": self.coverage.quartets > 0,
            "effects": identified,
            "families": self.funnel.trained > 0 and not identified,
            "pairs": bool(self.effects.pairs),
            "curves": any(len(trial.curve) > 1 for trial in self.trials if trial.trained),
            "gates": bool(figures.gate_shares(self.trials)),
        }
        return frozenset(name for name, known in there.items() if known)


_FIGURES: Mapping[str, Callable[[Report], str]] = {
    "ranking": lambda report: figures.ranking_figure(report.ranked),
    "effects": lambda report: figures.effects_figure(report.effects),
    "families": lambda report: figures.family_figure(report.families),
    "pairs": lambda report: figures.pair_figure(report.effects),
    "coverage": lambda report: figures.coverage_figure(report.coverage),
    "curves": lambda report: figures.curves_figure(report.trials),
    "gates": lambda report: figures.gate_figure(report.trials),
}


SHOWN_ROWS = 1000
"""Rows of the page's leaderboard; all of them would make the page of a large campaign too large to open."""


SHOWN_CLASSES = 30
"""Classes up to which the page shows the confusion matrix."""


def collect(
    archive: Archive, name: str, *, price_per_hour: float | None = None, baselines: Sequence[str] = ()
) -> Report:
    """Gather the content of a campaign's report.

    The name of a closed loop means its last cycle; ``baselines`` are the rewriters that it should be compared with.

    Raises:
        UsageError: If the campaign does not exist (the message names the nearest), or has no pool of families.
    """
    campaign = archive.campaign(_resolved(archive, name))
    stored = archive.trials(campaign.name, curves=False)
    # Of a large campaign a sample of the curves is drawn, and no others are read.
    drawn = {trial.id: trial for trial in archive.trials(ids=[trial.id for trial in figures.drawn_curves(stored)])}
    trials = tuple(drawn.get(trial.id, trial) for trial in stored)
    pool = sorted(campaign.pool)
    if campaign.spec.alone:
        raise UsageError(
            f"campaign {campaign.name} holds families alone: nngen leaderboard {campaign.name} ranks them, and the"
            " report of the campaign that they belong to compares its mixtures with them"
        )
    if not pool:
        raise UsageError(
            f"campaign {campaign.name} has files and no pool of families to report on: "
            f"nngen leaderboard {campaign.name} ranks them"
        )
    # The sample without any selection: later rungs and further seeds repeat quartets that did well.
    first = tuple(trial for trial in trials if trial.rung == trial.replicate == 0)
    came = funnel(first, archive.passed(campaign.spec.shape, campaign.classes))
    audit = coverage(pool, finished_quartets(first))
    lines, measured = observe(trials), family_seconds(trials)
    rows = leaderboard(trials, images=partial(validation_images, archive))
    estimated = effects(lines, pool)
    of_best = (trial for trial in trials if rows and trial.candidate_id == rows[0].id and trial.trained)
    best = max(of_best, key=lambda trial: (trial.rung, -trial.replicate), default=None)
    return Report(
        campaign=campaign,
        trials=trials,
        rows=rows,
        gains=gains(archive, campaign, trials),
        families=family_rows(pool, first),
        outcomes=outcome_rows(trials),
        funnel=came,
        coverage=audit,
        evenness=evenness(audit),
        effects=estimated,
        low_yield=low_yield(lines, pool).excluded,
        cost=cost(trials, price_per_hour),
        measured=measured,
        remaining=remaining(
            trials, measured, epochs=campaign.spec.epochs, size=campaign.spec.size, price_per_hour=price_per_hour
        ),
        explored=_explored(archive, campaign),
        missing=_missing(trials, came, undrawn=campaign.spec.size - len({trial.position for trial in trials})),
        environments=_environments(trials),
        loops=loops(archive, campaign.name, baselines),
        rungs=rung_rows(campaign.spec.fidelities, trials),
        limits=_limits(archive, campaign, rows),
        revealed=len({trial.candidate_id for trial in trials if trial.test_accuracy is not None}),
        more_quartets=more_quartets(estimated, campaign.name, campaign.spec.size),
        templates=template_note(
            archive.template_versions(campaign.name), over=came.done == campaign.spec.size or bool(campaign.candidates)
        ),
        baselines=baselines_of(archive, campaign, best.fidelity if best else None),
        quality=quality_of(archive, best) if best else None,
    )


def _resolved(archive: Archive, name: str) -> str:
    """Return the campaign of a loop's last cycle, unless a campaign has the name itself."""
    if any(campaign.name == name for campaign in archive.campaigns()):
        return name
    return last_cycle(archive, name) or name


def render(report: Report) -> str:
    """Render the report as HTML."""
    templates, drawn = environment(html=True), report.drawn
    templates.filters |= {name: getattr(formatting, name) for name in formatting.__all__}
    return templates.get_template("report.html.j2").render(
        report=report,
        columns=[column for column in columns_of(report.rows) if column.heading is not None],
        shown=SHOWN_ROWS,
        matrix=SHOWN_CLASSES,
        fidelity=describe_fidelity,
        points=figure_style.POINTS,
        arguments=_arguments(report.campaign),
        figures={name: script_data(draw(report)) for name, draw in _FIGURES.items() if name in drawn},
        plotly=Markup(figure_style.plotly_script()),  # noqa: S704 - plotly's own script
    )


def write_report(
    archive: Archive, name: str, path: Path, *, price_per_hour: float | None = None, baselines: Sequence[str] = ()
) -> Report:
    """Write a campaign's report to ``path`` atomically; arguments as in ``collect``.

    Raises:
        UsageError: If the campaign does not exist.
        NngenError: If the file cannot be written.
    """
    report = collect(archive, name, price_per_hour=price_per_hour, baselines=baselines)
    write_result(path, render(report).encode(), "the report")
    return report


def _limits(archive: Archive, campaign: CampaignRecord, rows: Sequence[Row]) -> tuple[str, ...]:
    """State what the leaderboard cannot tell, how many trials a table answered, and what ending trials early saved."""
    answers = archive.replayed(campaign.name)
    saved = saving(campaign.spec, archive.trials(campaign.name)) if campaign.spec.stop_early else None
    return (*limits(rows), *([replay_note(answers)] if answers else []), *([saved.sentence] if saved else []))


def _missing(trials: Sequence[StoredTrial], came: Funnel, *, undrawn: int) -> tuple[str, ...]:
    missing = []
    if not trials:
        missing.append("The campaign has no trials.")
    elif came.done < came.drawn:
        missing.append(f"{came.drawn - came.done} of {came.drawn} trials are not done yet: run the campaign again.")
    if trials and undrawn > 0:
        missing.append(
            f"{undrawn} of {len(trials) + undrawn} quartets are not drawn yet: the sampler waits for results."
        )
    if came.done and not came.trained:
        missing.append(
            "No candidate could be trained, so no accuracies can be compared; the verdicts give the reasons."
        )
    if came.trained == 1:
        missing.append("Only one candidate was trained: nothing can be concluded about families.")
    return tuple(missing)


def _explored(archive: Archive, campaign: CampaignRecord) -> int | None:
    entry = SAMPLERS.get(campaign.spec.sampler)
    if entry is None or entry.choose is None:
        return None
    return sum(sum(event.detail.get("explored", ())) for event in archive.events(campaign.name))


def _environments(trials: Sequence[StoredTrial]) -> tuple[tuple[Mapping[str, str], int], ...]:
    """Count the trials per environment: versions, hardware, isolation level and data."""
    counts = Counter(
        (*trial.environment.items(), ("isolation", trial.isolation), ("data", trial.data_fingerprint))
        for trial in trials
    )
    known = (({name: value for name, value in key if value}, count) for key, count in counts.items())
    return tuple((dict(sorted(shared.items())), count) for shared, count in known if shared)


def _arguments(campaign: CampaignRecord) -> dict[str, Any]:
    shown = {
        key: value
        for key, value in campaign.arguments().items()
        if key not in ("families", "name") and value is not None
    }
    words = {True: "yes", False: "no"}
    return {key.replace("_", " "): words[value] if isinstance(value, bool) else value for key, value in shown.items()}
