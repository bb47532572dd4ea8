"""``nngen experts`` and ``nngen surrogate``: families trained alone, and all their mixtures ranked by their outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Annotated, Any

from cyclopts import App, Parameter

from nngen.analysis.formatting import percent
from nngen.archive import CampaignRecord
from nngen.campaign import Campaign
from nngen.campaign.budget import Budget
from nngen.campaign.protocols import CampaignInputs, CandidateSource
from nngen.campaign.selection import FamiliesAlone
from nngen.campaign.setup import prepare, prepare_inputs
from nngen.campaign.summary import Summary
from nngen.campaign_spec import ALONE, CampaignSpec
from nngen.cli.options import ArchiveOptions, Count
from nngen.cli.options.dry_run import DryRun, foresee_campaign
from nngen.cli.options.engine import BudgetOptions, EngineOptions, ExpertOptions, Prepare, read_stored
from nngen.cli.options.family import FamilyOptions
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.cli.progress import print_summary, progress_bar, trial_progress
from nngen.datasets import Dataset
from nngen.errors import DataError, SomeFailedError, UsageError
from nngen.lemur.source import open_lemur
from nngen.ranges import Replicates, range_of
from nngen.space.adaptive import SURROGATE
from nngen.surrogate.experts import joint_accuracies, load_experts
from nngen.surrogate.ranking import EFFECTS, LEARNED, Ranking, rank_mixtures
from nngen.surrogate.scores import SCORES
from nngen.surrogate.source import DrawnQuartets, stratified
from nngen.text import counted, did_you_mean
from nngen.training import Engine, pick_device

experts = App(name="experts", help="Train every family alone, once, for the ranking of all their mixtures.")
surrogate = App(name="surrogate", help="Rank all mixtures of families by what the families do alone.")

_COLUMNS = ("mean_single", "best_single", "mean_probabilities", "stacking", "oracle")

_Seeds = Annotated[int, Parameter(validator=range_of(Replicates))]


@experts.command
def train(
    campaign: Annotated[str, Parameter(name="CAMPAIGN")] = "experts",
    /,
    *,
    spec: ExpertOptions = ExpertOptions(),
    seeds: _Seeds | None = None,
    selection: FamilyOptions = FamilyOptions(),
    budget: BudgetOptions = BudgetOptions(),
    machines: EngineOptions = EngineOptions(),
    dry_run: DryRun = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Train every family of the pool alone, under the recipe of mixtures, and keep its logits on the validation images.

    This is a campaign like any other: it can be stopped, killed, resumed by the same command, given a budget and run on
    a Ray cluster. With --rungs 1,2,5,10 each family is trained anew for each of these epochs, so that mixtures of that
    fidelity can be ranked too.

    Args:
        campaign: Name of the campaign.
        seeds: Seeds of each family after the last epochs; 1 by default.

    Examples:
        nngen experts train --dataset cifar-10 --epochs 10
        nngen experts train small --dataset digits --families ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,DPN68
        nngen experts train --dataset cifar-10 --rungs 1,2,5,10 --seeds 2 --max-hours 12
    """
    typed = machines.settle(spec, selection)
    stored, limits = read_stored(output.path, campaign, budget)
    if stored is not None and not stored.spec.alone:
        raise UsageError(f"campaign {campaign} holds mixtures: choose another name for the families alone")
    if seeds is not None and seeds != (stored.spec.replicates if stored else 1):
        # All of them are finalists; their number is settled with the pool.
        typed |= {"replicates": seeds, "finalists": stored.spec.size if stored else 1}
    if stored is None:
        typed |= {"sampler": ALONE, "reduction_factor": 1}
    inputs_of = _preparation(stored, selection.families_from)
    with machines.session(campaign, stored.spec if stored else None, typed, inputs_of, grows=True) as session:
        settled, inputs, engine = session
        size = len(inputs.families)
        settled = replace(settled, size=size, finalists=size if settled.replicates > 1 else 0)
        summary = _train(
            settled, inputs, engine, FamiliesAlone(), budget=limits, machines=machines, output=output, dry_run=dry_run
        )
    if summary is not None:
        _finish(summary, ("experts", "train", campaign), campaign, output)


@surrogate.command
def rank(
    campaign: Annotated[str | None, Parameter(name="CAMPAIGN")] = None,
    /,
    *,
    by: str | None = None,
    epochs: Count | None = None,
    top: Count = 20,
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
        device: ``auto``, ``cpu`` or ``cuda``.

    Examples:
        nngen surrogate rank
        nngen surrogate rank experts --by stacking --top 100 --json
        nngen surrogate rank experts --epochs 2
    """
    _check_score(by)
    device = pick_device(device)
    with output.read() as store:
        alone = load_experts(store, campaign, epochs)
        joint = joint_accuracies(store, alone)
    with progress_bar("ranking mixtures") as report:
        found = rank_mixtures(alone, joint, device=device, progress=report)
    chosen = _score(found, by)
    rows = [{"rank": number, **_row(found, place)} for number, place in enumerate(found.order(chosen)[:top], 1)]
    if output.json:
        print_json(_summary(found, chosen) | {"mixtures": rows})
    else:
        _print(found, chosen, rows)
    suggest("surrogate", "verify", alone.campaign, *output.place)


@surrogate.command
def verify(
    campaign: Annotated[str | None, Parameter(name="CAMPAIGN")] = None,
    /,
    *,
    quartets: Count = 24,
    seeds: _Seeds = 2,
    by: str | None = None,
    epochs: Count | None = None,
    families_from: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
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
    _check_score(by)
    with output.read() as store:
        alone = load_experts(store, campaign, epochs)
        record = store.campaign(alone.campaign)
        name = f"{alone.campaign}-joint-{alone.fidelity.epochs}"
        stored, limits = read_stored(output.path, name, budget)
        before = sum(line.rung == line.replicate == 0 for line in store.lines(name)) if stored else 0
        drawn: tuple[tuple[str, ...], ...] = ()
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
    )
    typed = {item.name: getattr(spec, item.name) for item in fields(spec)}
    inputs_of = _preparation(stored, families_from)
    with machines.session(name, stored.spec if stored else None, typed, inputs_of, grows=True) as session:
        settled, inputs, engine = session
        changed = [family for family in alone.families if inputs.fingerprints.get(family) != record.pool[family]]
        if changed or inputs.dataset.fingerprint != record.data_fingerprint:
            raise DataError(
                f"{f'family {changed[0]}' if changed else f'data set {settled.dataset}'} has changed since"
                f" {alone.campaign} was trained: train the families again under another name"
            )
        summary = _train(
            settled,
            inputs,
            engine,
            DrawnQuartets(quartets=drawn),
            budget=limits,
            machines=machines,
            output=output,
            dry_run=dry_run,
        )
    if summary is not None:
        _finish(summary, ("surrogate", "verify", alone.campaign), alone.campaign, output)


def _preparation(stored: CampaignRecord | None, families_from: Sequence[str]) -> Prepare:
    """Return the preparation of a campaign of a pool, whatever it tries; one that is resumed keeps its families."""

    def inputs_of(
        spec: CampaignSpec, dataset: Dataset, /, *, progress: Callable[[int, int], None], wanted: str
    ) -> CampaignInputs:
        lemur, names = open_lemur(), spec.families
        if stored is not None:
            return prepare(
                spec, dataset, stored, lemur=lemur, families_from=families_from, progress=progress, wanted=wanted
            )
        return prepare_inputs(
            dataset, spec.shape, names, lemur=lemur, families_from=families_from, progress=progress, wanted=wanted
        )

    return inputs_of


def _train(
    spec: CampaignSpec,
    inputs: CampaignInputs,
    engine: Engine,
    source: CandidateSource,
    *,
    budget: Budget | None,
    machines: EngineOptions,
    output: ArchiveOptions,
    dry_run: bool,
) -> Summary | None:
    """Run a campaign, or print what it would cost and return None."""
    with output.peek() if dry_run else output.open() as store:
        campaign = Campaign(
            spec=spec,
            archive=store,
            inputs=inputs,
            engine=engine,
            source=source,
            budget=budget,
            reveal=False,
            isolation=machines.isolation,
            timed=True,
        )
        if dry_run:
            foresee_campaign(campaign, output)
            return None
        return _run(campaign, machines, output)


def _run(campaign: Campaign, machines: EngineOptions, output: ArchiveOptions) -> Summary:
    """Run a campaign with its progress, and print its summary."""
    with trial_progress(compiled=machines.compiled) as watcher:
        for family, reason in campaign.inputs.left_out.items():
            watcher.note(f"{family} is left out: {reason}")
        summary = replace(campaign, watcher=watcher).run()
    if output.json:
        print_json(summary.to_dict())
    else:
        print_summary(summary)
    return summary


def _finish(summary: Summary, again: tuple[str, ...], alone: str, output: ArchiveOptions) -> None:
    """Suggest the next command; trials that failed are named by the exit code."""
    if summary.failed:
        raise SomeFailedError(
            f"{summary.failed} of {summary.total} trials failed: nngen campaign status {summary.name} says why; nngen "
            f"surrogate rank {alone} ranks what was trained"
        )
    suggest(*(("surrogate", "rank", alone) if summary.over else again), *output.place)


def _check_score(by: str | None) -> None:
    known = (LEARNED, EFFECTS, *SCORES)
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
    say(f"{by}: {SCORES.get(by, 'accuracy predicted from joint trainings')}")
    columns = ["rank", "experts", by, *(name for name in _COLUMNS if name != by)]
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
