"""``nngen campaign``: run campaigns, list them, print their status, control and follow them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from nngen.campaign import summarise
from nngen.campaign.status import read_status
from nngen.cli.campaign_control import events, pause, resume, stop, watch
from nngen.cli.campaign_run import run_campaign
from nngen.cli.engine_options import BudgetOptions, CampaignOptions, EngineOptions
from nngen.cli.family_options import FamilyOptions
from nngen.cli.options import ArchiveOptions
from nngen.cli.output import print_json, print_table
from nngen.cli.progress import print_status, print_summary
from nngen.errors import UsageError

__all__ = ["app"]

app = App(name="campaign", help="Sample, assemble, check, train and store; resumes after any stop.")


@app.command
def run(
    campaign: Annotated[str | None, Parameter(name="CAMPAIGN|FILE.toml")] = None,
    /,
    *,
    config: Path | None = None,
    spec: CampaignOptions = CampaignOptions(),
    selection: FamilyOptions = FamilyOptions(),
    budget: BudgetOptions = BudgetOptions(),
    machines: EngineOptions = EngineOptions(),
    data_root: Path | None = None,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Run a campaign, or resume it: the same name again goes on where it stopped.

    Every draw and every result is stored at once, so a campaign may be stopped or killed at any moment. Arguments
    that are left out when resuming keep their stored values; those that are typed must agree with them, except
    budgets and machines, which may change. Ctrl-C finishes the running trials, a second one ends at once.
    When all is done, the candidate with the best validation accuracy gets its test accuracy.

    Args:
        campaign: Name of the campaign, or a TOML file of arguments.
        config: TOML file of arguments, named as the flags are; typed arguments come first.
        data_root: Folder that torchvision's files are read from, or downloaded to.

    Examples:
        nngen campaign run small --size 8 --families ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,DPN68
        nngen campaign run first --size 100 --sampler stratified --dataset cifar-10 --epochs 1 --seed 0
        nngen campaign run first
        nngen campaign run first --engine ray --address head.example.org:6379
        nngen campaign run second --size 100 --sampler balanced --skip-known --exclude-low-yield
        nngen campaign run other --size 50 --exclude AirNet --without-near-twins
        nngen campaign run third --size 27 --rungs 1,3,9 --finalists 2 --replicates 3 --max-hours 12
        nngen campaign run third.toml --workers 2
    """
    if campaign is None:
        raise UsageError("the campaign has no name: type one, or a TOML file of arguments")
    run_campaign(campaign, spec, selection, budget, machines, data_root, output)


@app.command
def ls(*, output: ArchiveOptions = ArchiveOptions()) -> None:
    """List the campaigns of an archive.

    Examples:
        nngen campaign ls
        nngen campaign ls --archive other.db --json
    """
    with output.read() as store:
        rows = []
        for campaign in store.campaigns():
            found = summarise(store, campaign.name).to_dict()
            best = found["best"]["validation_accuracy"] if found["best"] else None
            counts = {key: found[key] for key in ("campaign", "trials", "done", "failed")}
            more = {key: getattr(campaign.spec, key) for key in ("dataset", "sampler", "epochs", "seed")}
            rows.append(counts | more | {"best_accuracy": best, "created_at": campaign.created_at})
    if output.json:
        print_json(rows)
    elif rows:
        print_table([row | {"created_at": row["created_at"][:19]} for row in rows], list(rows[0]))
    else:
        print("no campaign yet")


@app.command
def status(campaign: str, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Print the status of a campaign: trials, rungs, rate, budget, failures with their reasons, the best candidate.

    Args:
        campaign: Name of the campaign.

    Examples:
        nngen campaign status first
        nngen campaign status first --json
    """
    with output.read() as store:
        stored = store.campaign(campaign)
        summary, stands = summarise(store, campaign), read_status(store, campaign)
        failed = [trial for trial in store.trials(campaign) if trial.verdict is not None and not trial.verdict.valid]
    failures: list[dict[str, Any]] = [
        {
            "experts": list(trial.experts),
            "candidate": trial.candidate_id,
            "outcome": trial.verdict.outcome.value,
            "rule": trial.verdict.rule,
            "message": trial.verdict.message,
        }
        for trial in failed
        if trial.verdict is not None
    ]
    if output.json:
        more = {"standing": stands.to_dict(), "arguments": stored.arguments(), "failures": failures}
        print_json(summary.to_dict() | more)
        return
    print_summary(summary)
    print_status(summary, stands)
    if failures:
        rows = [row | {"experts": ", ".join(row["experts"])} for row in failures]
        print_table(rows, ("outcome", "experts", "rule", "message"))


for _command in (pause, resume, stop, watch, events):
    app.command(_command)
