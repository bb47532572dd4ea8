"""``nngen surrogate rank`` and ``verify``: all mixtures of families trained alone ranked by the families' outputs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.analysis.formatting import percent
from nngen.archive import Archive
from nngen.cli.options import ArchiveOptions, Count, Flag
from nngen.cli.options.dry_run import DryRun
from nngen.cli.options.engine import BudgetOptions, EngineOptions
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.cli.progress import progress_bar
from nngen.cli.surrogate import FamiliesFrom, Seeds, begun, finish, train_mixtures
from nngen.errors import UsageError
from nngen.space.adaptive import SURROGATE
from nngen.surrogate.experts import UNTRAINED, Experts, joint_accuracies, load_experts, with_untrained
from nngen.surrogate.source import DrawnQuartets, stratified
from nngen.text import counted, did_you_mean
from nngen.training import pick_device

if TYPE_CHECKING:
    from nngen.surrogate.ranking import Ranking  # loads torch

_COLUMNS = ("mean_single", "best_single", "mean_probabilities", "stacking", "oracle")


def rank(
    campaign: Annotated[str | None, Parameter(name="CAMPAIGN")] = None,
    /,
    *,
    by: str | None = None,
    epochs: Count | None = None,
    top: Count = 20,
    untrained: Flag = False,
    out: Path | None = None,
    parquet: Path | None = None,
    device: str = "auto",
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Rank all mixtures of four families by the outputs of the families alone; nothing is trained.

    Every mixture gets every score. Where the archive holds at least eight mixtures that were trained jointly with the
    same fidelity, a ranker is fitted to them, and the agreement of each score with their accuracies is printed, so that
    it is known how far the ranking can be believed.

    Args:
        campaign: Campaign of families alone (nngen experts train, or campaign run --baselines); the last one by
            default.
        by: Score to rank by; learned by default where it is fitted, else mean_probabilities. --json has all scores.
        epochs: Epochs of the families' trials, which are a rung of the campaign; those of the last one by default.
        top: Mixtures to list.
        untrained: Also score the families before training (SWAP, synflow, norm of the gradient), in workers; this
            takes seconds a family, once.
        out: HTML file for the ranked space as a picture: every mixture with those that were trained, the families of
            the top, the cost.
        parquet: Parquet file for all mixtures with all scores (needs the extra parquet).
        device: ``auto``, ``cpu`` or ``cuda``.

    Examples:
        nngen surrogate rank
        nngen surrogate rank experts --by stacking --top 100 --json
        nngen surrogate rank experts --epochs 2
        nngen surrogate rank experts --out space.html --parquet space.parquet
    """
    from nngen.cli.surrogate import files
    from nngen.surrogate.ranking import rank_mixtures

    _check_score(by)
    if out is not None:
        files.check_path(out, "--out", (".html", ".htm"))
    if parquet is not None:
        files.check_path(parquet, "--parquet", (".parquet",))
    device = pick_device(device)
    with output.read() as store:
        alone = load_experts(store, campaign, epochs)
        joint = joint_accuracies(store, alone)
        if untrained or by in UNTRAINED:
            alone = _untrained(store, alone)
        trials = store.trials(alone.campaign, curves=False)
    with progress_bar("ranking mixtures") as report:
        found = rank_mixtures(alone, joint, device=device, progress=report)
    chosen = _score(found, by)
    if out is not None:
        own = [
            trial.seconds or 0.0
            for trial in trials
            if trial.trained and trial.spec and trial.spec.epochs == alone.fidelity.epochs
        ]
        files.write_page(found, chosen, out, trained_s=fmean(own))
    if parquet is not None:
        files.write_parquet(found, chosen, parquet)
    rows = [{"rank": number, **_row(found, place)} for number, place in enumerate(found.order(chosen)[:top], 1)]
    if output.json:
        print_json(_summary(found, chosen) | {"mixtures": rows})
    else:
        _print(found, chosen, rows)
        for path in filter(None, (out, parquet)):
            say(f"wrote {path}")
    suggest("surrogate", "verify", alone.campaign, *output.place)


def verify(
    campaign: Annotated[str | None, Parameter(name="CAMPAIGN")] = None,
    /,
    *,
    quartets: Count = 24,
    seeds: Seeds = 2,
    by: str | None = None,
    epochs: Count | None = None,
    families_from: FamiliesFrom = (),
    budget: BudgetOptions = BudgetOptions(),
    machines: EngineOptions = EngineOptions(),
    dry_run: DryRun = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Train mixtures jointly, drawn over the whole ranking, to measure how far each score can be believed.

    A third is drawn from the top hundredth of the ranking, a third from the rest of its top tenth, a third from below.
    They are trained as the families were, as campaign CAMPAIGN-joint-EPOCHS; the same command resumes it, and more
    --quartets or --seeds let it grow. nngen surrogate rank then prints the agreement of each score with them.

    Args:
        campaign: Campaign of families alone; the last one by default.
        quartets: Mixtures to train in all.
        seeds: Seeds of each of them.
        by: Score whose ranking is drawn from; that of nngen surrogate rank by default.
        epochs: Epochs of the trials, which are a rung of the campaign; those of the last one by default.
        families_from: A folder or a Python entry point that the campaign took families from; may be given several
            times.

    Examples:
        nngen surrogate verify
        nngen surrogate verify experts --quartets 49 --seeds 3 --max-hours 8
    """
    from nngen.surrogate.ranking import rank_mixtures

    _check_score(by)
    with output.read() as store:
        alone = load_experts(store, campaign, epochs)
        record = store.campaign(alone.campaign)
        name = f"{alone.campaign}-joint-{alone.fidelity.epochs}"
        before = begun(store, name)
        drawn: tuple[tuple[str, ...], ...] = ()
        if by in UNTRAINED:
            alone = _untrained(store, alone)
        if before < quartets:
            with progress_bar("ranking mixtures") as report:
                found = rank_mixtures(alone, joint_accuracies(store, alone), progress=report)
            drawn = stratified(found, _score(found, by), quartets - before, record.spec.seed + before)
    spec = replace(
        record.spec,
        name=name,
        size=quartets,
        sampler=SURROGATE,
        families=alone.families,
        epochs=alone.fidelity.epochs,
        rungs=(),
        finalists=quartets if seeds > 1 else 0,
        replicates=seeds,
        keep_weights="best",
    )
    summary = train_mixtures(
        alone,
        spec,
        DrawnQuartets(quartets=drawn),
        families_from=families_from,
        budget=budget,
        machines=machines,
        output=output,
        dry_run=dry_run,
    )
    if summary is not None:
        finish(summary, ("surrogate", "verify", alone.campaign), ("surrogate", "rank", alone.campaign), output)


def _untrained(store: Archive, alone: Experts) -> Experts:
    """Score the families before training."""
    with progress_bar("scoring untrained families") as report:
        return with_untrained(store, alone, progress=report)


def _check_score(by: str | None) -> None:
    from nngen.surrogate.ranking import EFFECTS, LEARNED
    from nngen.surrogate.scores import SCORES

    known = (LEARNED, EFFECTS, *SCORES, *UNTRAINED)
    if by is not None and by not in known:
        raise UsageError(f"no score is called {by!r}: {did_you_mean(by, known, otherwise=', '.join(known))}")


def _score(found: Ranking, by: str | None) -> str:
    """Return the score to rank by."""
    chosen = by or found.default
    if chosen not in found.scores:
        raise UsageError(f"{chosen} is fitted to joint trainings, and {found.belief(chosen)}")
    return chosen


def _row(found: Ranking, place: int) -> dict[str, Any]:
    seeds = found.joint.get(tuple(found.mixtures[place].tolist()), ())
    scores = {name: float(values[place]) for name, values in found.scores.items()}
    return {
        "experts": [found.experts.families[member] for member in found.mixtures[place]],
        **{name: None if math.isnan(value) else value for name, value in scores.items()},
        "deviation": None if found.deviation is None else float(found.deviation[place]),
        "trained": sum(seeds) / len(seeds) if seeds else None,
    }


def _summary(found: Ranking, by: str) -> dict[str, Any]:
    alone = found.experts
    return {
        "campaign": alone.campaign,
        "epochs": alone.fidelity.epochs,
        "seeds": len(alone.logits),
        "images": len(alone.labels),
        "families": dict(zip(alone.families, alone.accuracies.tolist(), strict=True)),
        "missing": dict(alone.missing),
        "space": found.space,
        "scored": len(found.mixtures),
        "by": by,
        "belief": found.belief(by),
        "ceiling": found.ceiling,
        "agreements": [
            {"score": row.score, "mixtures": row.mixtures, "tau": row.tau, "low": row.low, "high": row.high}
            | {"regret": row.regret}
            for row in found.agreements
        ],
    }


def _print(found: Ranking, by: str, rows: list[dict[str, Any]]) -> None:
    from nngen.surrogate.ranking import LEARNED
    from nngen.surrogate.scores import SCORES

    alone = found.experts
    for family, reason in alone.missing.items():
        note(f"{family} is not ranked: {reason}")
    searched = f" (a search scored the best {len(found.mixtures):,})" if len(found.mixtures) < found.space else ""
    say(
        f"{counted(len(alone.families), 'family', 'families')} of {alone.campaign}"
        f" after {counted(alone.fidelity.epochs, 'epoch')},"
        f" {found.space:,} mixtures{searched}; two families disagree on"
        f" {percent(float(found.scores['disagreement'].mean()))} of {len(alone.labels):,} images"
    )
    say(f"{by}: {({**SCORES, **UNTRAINED}).get(by, 'accuracy predicted from joint trainings')}")
    columns = ["rank", "experts", by, *(name for name in (*_COLUMNS, *alone.untrained) if name != by)]
    if by == LEARNED:
        columns.insert(3, "deviation")
    print_table(rows, [*columns, "trained"] if found.joint else columns)
    if found.agreements:
        agreements = sorted(found.agreements, key=lambda row: -(row.tau or -1.0))
        print_table(
            [
                {"score": row.score, "tau": row.tau, "low_95%": row.low, "high_95%": row.high, "regret": row.regret}
                for row in agreements
            ]
        )
    say(f"{found.belief(by)}.")
