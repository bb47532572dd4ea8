"""``nngen llm-propose``: asks a rewriter for better mixtures, checks and trains them, and counts the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated

from cyclopts import Parameter

from nngen.archive import Archive, StoredTrial
from nngen.campaign.budget import last_budget
from nngen.campaign.protocols import CampaignInputs, GivenCandidates
from nngen.campaign_spec import CampaignSpec
from nngen.cli.options import ArchiveOptions, Count, Flag, Names, TemperatureOption
from nngen.cli.options.dry_run import DryRun
from nngen.cli.options.engine import BudgetOptions, EngineOptions, TrialOptions, usable_pool
from nngen.cli.options.family import FamilyOptions
from nngen.cli.options.rewriter import RewriterOptions, foresee_proposals, read_kinds
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.cli.progress import trial_progress
from nngen.errors import UsageError
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.log import Funnel, Proposal, funnel, proposals, shortfall, to_row
from nngen.llm.proposals.parents import Parent, at_fidelity, named_parent, new_candidates, top_parents, trained_funnel
from nngen.llm.proposals.pool import Drafts, read_drafts
from nngen.llm.rewriters.base import Kind
from nngen.training import pick_device
from nngen.training.engine import Engine


def llm_propose(
    *,
    source: RewriterOptions,
    kind: str = "plan",
    number: Annotated[Count, Parameter(name=["--number", "-n"])] = 10,
    parent: str | None = None,
    from_top: Count | None = None,
    region: Names = None,
    temperature: TemperatureOption = 1.0,
    repair: Flag = False,
    train: Flag = False,
    name: str | None = None,
    trials: TrialOptions = TrialOptions(),
    selection: FamilyOptions = FamilyOptions(),
    machines: EngineOptions = EngineOptions(),
    budget: BudgetOptions = BudgetOptions(),
    dry_run: DryRun = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Ask a rewriter for better mixtures; check its proposals, and train them if asked.

    Every proposal is logged, whatever its result; one that repeats a candidate is refused before training. With --pool,
    many plans are drafted, and a ranker picks the new ones that are checked. Of several rewriters (--rewriter
    random,mutate,tpe) those whose children gain more are asked more often. Training is a campaign of the batch's name,
    with its machines and budgets. The same command continues a batch that was stopped, and asks again where a server
    gave no reply: the exit code is 1 if none came back, 3 if some did not.

    Args:
        kind: plan (a new plan), region (new code for a part of a file) or file (a whole file).
        number: Proposals in all.
        parent: Id of the candidate to improve on, or its beginning.
        from_top: Improve on the best K in turn.
        region: Regions to rewrite, separated by commas; all in turn by default.
        temperature: Temperature of a model's draws; 0 takes the most likely token.
        repair: Ask once more, with the error message, where a proposal failed.
        train: Train the valid and new proposals.
        name: Name of the batch; made of rewriter, kind and seed by default.

    Examples:
        nngen llm-propose --rewriter random --kind plan -n 8 --families ShuffleNet,MobileNetV3,ICNet,DPN68,AirNext
        nngen llm-propose --rewriter random,mutate,tpe --pool 64 -n 8 --from-top 3 --train
        nngen llm-propose --rewriter model.gguf --kind plan -n 8 --from-top 3 --train --json
        nngen llm-propose --rewriter mutate --kind region --region gate,mixing -n 20 --from-top 5
    """
    from nngen.llm.proposals.propose import Proposer

    if parent is not None and from_top is not None:
        raise UsageError("--parent names one candidate and --from-top takes the best: give one of them")
    if source.pool is not None:
        _check_drafting(kind, repair=repair)
    (wanted,) = read_kinds((kind,), source.rewriter, machines.isolation)
    if dry_run:
        count = number if train else 0
        foresee_proposals(
            count,
            name or kind,
            trials,
            machines=machines,
            selection=selection,
            budget=budget,
            output=output,
        )
        return
    typed = machines.settle(trials, selection)
    writer = source.open(pick_device(typed.get("device", "auto")))
    title = name or f"{writer.name}-{kind}-{typed.get('seed', 0)}"
    with output.open() as store:
        stored = next((record.spec for record in store.campaigns() if record.name == title), None)
        with machines.session(title, stored, typed, usable_pool(selection)) as (spec, inputs, engine):
            proposer = Proposer(
                archive=store,
                rewriter=writer,
                engine=engine,
                inputs=inputs,
                spec=spec,
                batch=title,
                count=getattr(writer, "tokens", estimate_tokens),
                repair=repair,
                temperature=temperature,
                watch=_note,
                isolation=machines.isolation,
                max_reply_tokens=source.max_reply_tokens,
                pool=source.pool,
                note=note,
            )
            trials_alike = at_fidelity(store.trials(), spec.trial(0).fidelity(inputs.dataset.fingerprint))
            parents = _parents(store, trials_alike, parent, from_top, wanted)
            failed = proposals(store)
            rows = proposer.ask(wanted, number, parents, spec.seed, region or (), trials=trials_alike, failed=failed)
            candidates = new_candidates(store, rows)
            lost = shortfall(rows, number)
            # A campaign keeps the candidates that it began with, so it waits until the batch is whole.
            if train and candidates.suggestions and lost is None:
                new = replace(spec, size=len(candidates.suggestions), sampler=f"rewriter {writer.name}")
                _train(store, stored or new, inputs, engine, candidates, machines, budget)
        counted = trained_funnel(store, title, rows) if train else funnel(rows)
        drafts = read_drafts(store, title)
    _print(title, counted, rows, drafts, output)
    if lost is not None:
        raise lost
    best = next((row.candidate for row in rows if row.new), "")
    if best:
        suggest("leaderboard", title, *output.place) if train else suggest("show", best[:13], *output.place)


def _check_drafting(kind: str, *, repair: bool) -> None:
    """Refuse what --pool does not do."""
    if kind != Kind.PLAN:
        raise UsageError(f"--pool drafts plans, not a {kind}: leave it out, or ask for --kind plan")
    if repair:
        raise UsageError("--repair asks again about one proposal, and --pool drafts others instead: give one of them")


def _train(
    store: Archive,
    spec: CampaignSpec,
    inputs: CampaignInputs,
    engine: Engine,
    candidates: GivenCandidates,
    machines: EngineOptions,
    budget: BudgetOptions,
) -> None:
    """Train the new candidates of a batch as the campaign of its name."""
    from nngen.campaign.runner import Campaign

    with trial_progress(compiled=machines.compiled) as watcher:
        Campaign(
            spec=spec,
            archive=store,
            inputs=inputs,
            engine=engine,
            source=candidates,
            watcher=watcher,
            budget=budget.change(last_budget(store.events(spec.name))),
            reveal=False,
            isolation=machines.isolation,
        ).run()


def _parents(
    store: Archive, trials: Sequence[StoredTrial], parent: str | None, from_top: int | None, kind: Kind
) -> list[Parent]:
    """Select the candidates to improve on; a plan may start from none."""
    if parent is not None:
        return [named_parent(store, parent, trials)]
    if from_top is None and kind is Kind.PLAN:
        return []
    return top_parents(store, trials, from_top or 1)


def _note(row: Proposal) -> None:
    result = f"repeats {row.twin_of[:13]}" if row.twin else row.stage
    reason = f": {row.fault or row.outcome}, {row.message[:80]}" if not row.valid else ""
    note(f"{row.batch} {row.index + 1}  {row.region or row.kind}  {result}{reason}", prefix="")


def _print(
    batch: str, counted: Funnel, rows: Sequence[Proposal], drafts: Sequence[Drafts], output: ArchiveOptions
) -> None:
    table = [to_row(row) for row in rows]
    names = {row.rewriter for row in rows}.union(*(turn.writers for turn in drafts))
    writers = [_writer(name, rows, drafts) for name in sorted(names)]
    if output.json:
        told = {
            "batch": batch,
            "funnel": asdict(counted),
            "writers": writers,
            "drafts": [turn.to_dict() for turn in drafts],
        }
        print_json(told | {"proposals": table})
        return
    print_table([asdict(counted)], list(asdict(counted)))
    if len(writers) > 1:
        print_table(writers, list(writers[0]))
    failed = [row for row in table if not row["new"]]
    if failed:
        print_table(failed, ("index", "region", "stage", "fault", "outcome", "twin", "message"))
    say(f"batch {batch}")


def _writer(name: str, rows: Sequence[Proposal], drafts: Sequence[Drafts]) -> dict[str, object]:
    """Count what one of several rewriters wrote."""
    mine = funnel(row for row in rows if row.rewriter == name)
    drafted = sum(turn.writers.get(name, 0) for turn in drafts)
    return {"rewriter": name, "drafts": drafted, "asked": mine.asked, "valid": mine.checked, "new": mine.new}
