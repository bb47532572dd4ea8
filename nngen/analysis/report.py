"""A campaign's report: one HTML file that opens with no server and no network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nngen.analysis.figures import curves_figure, family_figure, gate_figure, pair_figure, plotly_script
from nngen.analysis.leaderboard import Row, leaderboard
from nngen.analysis.results import FamilyRow, Funnel, OutcomeRow, family_rows, funnel, outcome_rows
from nngen.archive import Store, StoredCampaign, StoredTrial, TrialState
from nngen.errors import NngenError
from nngen.resources import folder
from nngen.space import Coverage, coverage
from nngen.types import Shape

__all__ = ["Report", "collect", "render", "write_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a report says, before it is drawn.

    Attributes:
        trials: All trials, in the order in which they were drawn.
        missing: What cannot be said yet, one sentence each.
        environments: Distinct versions and hardware of the trials, with how many ran there.
    """

    campaign: StoredCampaign
    trials: tuple[StoredTrial, ...]
    rows: tuple[Row, ...]
    families: tuple[FamilyRow, ...]
    outcomes: tuple[OutcomeRow, ...]
    funnel: Funnel
    coverage: Coverage
    missing: tuple[str, ...]
    environments: tuple[tuple[Mapping[str, str], int], ...]

    @property
    def best(self) -> Row | None:
        return self.rows[0] if self.rows else None

    @property
    def seconds(self) -> float:
        """Wall time of all trials together."""
        return sum(trial.seconds or 0.0 for trial in self.trials if trial.copied_from is None)


def collect(archive: Store, name: str) -> Report:
    """Gather what a campaign's report says.

    Raises:
        UsageError: If there is no such campaign; the message names the nearest.
    """
    campaign = archive.campaign(name)
    trials = archive.trials(name)
    pool = sorted(campaign.spec["pool"])
    came = funnel(trials, _passed(archive, campaign, trials))
    return Report(
        campaign=campaign,
        trials=trials,
        rows=leaderboard(trials),
        families=family_rows(pool, trials),
        outcomes=outcome_rows(trials),
        funnel=came,
        coverage=coverage(pool, (trial.experts for trial in trials if trial.state is TrialState.DONE)),
        missing=_missing(trials, came),
        environments=_environments(trials),
    )


def render(report: Report) -> str:
    """Write the report as HTML.

    Raises:
        MissingExtraError: If plotly is not installed.
    """
    environment = Environment(
        loader=FileSystemLoader(folder("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "accuracy": _accuracy, "count": _count, "duration": _duration}
    figures = {
        "families": family_figure(report.families),
        "pairs": pair_figure(report.coverage),
        "curves": curves_figure(report.trials),
        "gates": gate_figure(report.trials),
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        arguments=_arguments(report.campaign),
        figures={name: _data(text) for name, text in figures.items()},
        has_gates=any(trial.trained and trial.curve and trial.curve[-1].usage for trial in report.trials),
        plotly=Markup(plotly_script()),  # noqa: S704 - the library's own text
    )


def write_report(archive: Store, name: str, path: Path) -> Report:
    """Write a campaign's report to ``path``, all or nothing.

    Raises:
        UsageError: If there is no such campaign.
        MissingExtraError: If plotly is not installed.
        NngenError: If the file cannot be written.
    """
    report = collect(archive, name)
    text = render(report)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise NngenError(f"cannot write the report {path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return report


def _passed(archive: Store, campaign: StoredCampaign, trials: Sequence[StoredTrial]) -> set[str]:
    """Candidates whose check at the campaign's shape found nothing wrong."""
    shape, classes = Shape.parse(campaign.spec["shape"]), campaign.spec["classes"]
    ids = {trial.candidate_id for trial in trials if trial.candidate_id is not None}
    return {name for name in ids if (verdict := archive.checked(name, shape, classes)) and verdict.valid}


def _missing(trials: Sequence[StoredTrial], came: Funnel) -> tuple[str, ...]:
    said = []
    if not trials:
        said.append("The campaign has no trials.")
    elif came.done < came.drawn:
        said.append(f"{came.drawn - came.done} of {came.drawn} trials are not done yet: run the campaign again.")
    if came.done and not came.trained:
        said.append("No candidate could be trained: there is no accuracy to compare; the verdicts say why.")
    if came.trained == 1:
        said.append("Only one candidate was trained: nothing can be said about families.")
    seeds = {(trial.candidate_id, trial.spec.seed) for trial in trials if trial.trained and trial.spec}
    if came.trained > 1 and len(seeds) == len({candidate for candidate, _ in seeds}):
        said.append("Each candidate was trained with one seed: differences may be chance.")
    return tuple(said)


def _environments(trials: Sequence[StoredTrial]) -> tuple[tuple[Mapping[str, str], int], ...]:
    """Tell the environments apart by what all share; what differs from trial to trial is left out."""
    known = [dict(trial.environment) for trial in trials if trial.environment]
    counts: dict[tuple[tuple[str, str], ...], int] = {}
    for environment in known:
        key = tuple(sorted((name, value) for name, value in environment.items() if name != "prm"))
        counts[key] = counts.get(key, 0) + 1
    return tuple((dict(key), count) for key, count in counts.items())


def _arguments(campaign: StoredCampaign) -> dict[str, Any]:
    shown = {key: value for key, value in campaign.spec.items() if key not in ("pool", "left_out", "families", "name")}
    return {key.replace("_", " "): value for key, value in shown.items()}


def _data(text: str) -> Markup:
    """Make JSON safe inside a script element."""
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - escaped for where it stands


def _percent(share: float) -> str:
    return f"{share:.2%}" if share < 0.1 else f"{share:.1%}"


def _accuracy(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
