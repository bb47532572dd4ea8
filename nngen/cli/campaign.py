"""``nngen campaign``: run campaigns, list them, say how they stand; control and watch them from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from nngen.cli.campaign_control import events, pause, resume, stop, watch
from nngen.cli.campaign_text import print_standing, print_summary
from nngen.cli.output import print_json, print_table

__all__ = ["app"]

app = App(name="campaign", help="Sample, assemble, check, train and store; resumes where it stopped.")


@app.command
def run(
    name: str | None = None,
    /,
    *,
    config: Path | None = None,
    size: int | None = None,
    sampler: str | None = None,
    skip_known: bool | None = None,
    exclude_low_yield: bool | None = None,
    floor: float | None = None,
    families: str | None = None,
    families_from: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    exclude: str | None = None,
    without_near_twins: bool = False,
    dataset: str | None = None,
    shape: str | None = None,
    epochs: int | None = None,
    rungs: str | None = None,
    keep: int | None = None,
    scheduler: str | None = None,
    finalists: int | None = None,
    replicates: int | None = None,
    seed: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    device: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    wall: float | None = None,
    memory: int | None = None,
    max_trials: int | None = None,
    max_hours: float | None = None,
    max_cost: float | None = None,
    price_per_hour: float | None = None,
    engine: str = "local",
    address: str | None = None,
    gpu_share: float | None = None,
    compiled: bool = False,
    data_root: Path | None = None,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Run a campaign, or go on with it: the same name again resumes where it stopped.

    Everything that is drawn and every result is kept at once, so it may be stopped or killed at any
    instant. What is left out when resuming stands as the campaign began; what is typed must agree with
    it, but for budgets and workers, which may change. Ctrl-C lets what trains be finished, a second one
    ends at once. When all is done, the candidate that is best on validation gets its test accuracy.

    Args:
        name: The campaign's name, or a TOML file of arguments.
        config: A TOML file of arguments, named and written as they are here; what is typed comes first.
        size: Quartets to draw; needed when it begins.
        sampler: Their order: stratified (default), balanced, random, lexicographic, or adaptive, which
            chooses by what the trials have shown so far.
        skip_known: Pass over quartets that another campaign of the archive tried on the same data at the
            same shape, failed ones included.
        exclude_low_yield: Leave out families whose quartets hardly ever train, as the archive's campaigns on
            the same data at the same shape show; the reasons are kept with the campaign.
        floor: Least share of exploration of the adaptive sampler; 0.25 by default.
        families: The pool, separated by commas; every usable family by default.
        families_from: A folder of files in LEMUR's contract, or a Python entry point, whose families join
            LEMUR's; may be given several times, and again when resuming.
        exclude: Families to leave out of the pool, separated by commas.
        without_near_twins: Keep one of each group of families whose sources differ in a few tokens only.
        dataset: digits (default), fashion-mnist, mnist, cifar-10, cifar-100, svhn or folder:PATH.
        shape: Channels, height and width of the images, as 3x32x32; the data set's own by default.
        epochs: How often the training split is shown; 1 by default.
        rungs: Epochs of each rung, as 1,3,9: every quartet trains for the first, the best go on to the next
            and train anew for so many.
        keep: One of so many goes on to the next rung; 3 by default.
        scheduler: halving (default) waits for a rung to be complete, asha does not.
        finalists: How many of the best are trained again with other seeds.
        replicates: Seeds of each finalist in all.
        seed: Of every draw; 0 by default.
        batch: Samples per step; 64 by default.
        lr: Learning rate handed to the candidates; 0.001 by default.
        device: auto (default), cpu or cuda.
        workers: Trainings at once; results do not depend on it. 1 by default; with Ray, as many as fit.
        threads: CPU threads of a worker; this machine's cores shared out among the workers by default; with Ray,
            those of the smallest node.
        wall: Limit of one trial in seconds; 3600 by default.
        memory: Limit of one trial in MiB; 12288 by default.
        max_trials: Stop when so many trials are done; a larger number goes on, as with the next two.
        max_hours: Stop when drivers have worked on it for so long; pauses do not count.
        max_cost: Stop when it has cost so much.
        price_per_hour: What an hour of all machines costs.
        engine: Where trials run: local (this machine) or ray (the nodes of a Ray cluster; docs/clusters.md).
        address: With Ray, HOST:PORT of the cluster's head; by default the cluster that runs on this machine.
        gpu_share: With Ray and cards, how much of a card a trial takes, as 0.5; 1 by default.
        compiled: Have torch.compile translate each net before it trains: minutes, for trials of many epochs on a card.
        data_root: Where torchvision's files lie or are downloaded to.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print what it came to as JSON.

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
    typed = dict(locals())
    from nngen.cli.campaign_file import merge
    from nngen.cli.campaign_run import carry_out

    carry_out(**merge(run, typed))


@app.command
def ls(*, archive: Path | None = None, json: bool = False) -> None:
    """List the campaigns of an archive.

    Args:
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print the rows as JSON.

    Examples:
        nngen campaign ls
        nngen campaign ls --archive other.db --json
    """
    from nngen.archive import Archive, default_path
    from nngen.campaign import summarise

    with Archive.open(archive or default_path(), readonly=True) as store:
        rows = []
        for campaign in store.campaigns():
            told = summarise(store, campaign.name).to_dict()
            best = told["best"]["validation_accuracy"] if told["best"] else None
            same = {key: told[key] for key in ("campaign", "trials", "done", "failed")}
            more = {key: campaign.spec[key] for key in ("dataset", "sampler", "epochs", "seed")}
            rows.append(same | more | {"best_accuracy": best, "created_at": campaign.created_at})
    if json:
        print_json(rows)
    elif rows:
        print_table([row | {"created_at": row["created_at"][:19]} for row in rows], list(rows[0]))
    else:
        print("no campaign yet")


@app.command
def status(name: str, /, *, archive: Path | None = None, json: bool = False) -> None:
    """Say how a campaign stands: trials by state, rungs, pace, budget, outcomes with their reasons, the best.

    Args:
        name: The campaign's name.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print it as JSON.

    Examples:
        nngen campaign status first
        nngen campaign status first --json
    """
    from nngen.archive import Archive, default_path
    from nngen.campaign import summarise
    from nngen.campaign.status import standing

    with Archive.open(archive or default_path(), readonly=True) as store:
        campaign = store.campaign(name)
        summary, stands = summarise(store, name), standing(store, name)
        failed = [trial for trial in store.trials(name) if trial.verdict is not None and not trial.verdict.valid]
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
    if json:
        more = {"standing": stands.to_dict(), "arguments": dict(campaign.spec), "failures": failures}
        print_json(summary.to_dict() | more)
        return
    print_summary(summary)
    print_standing(summary, stands)
    if failures:
        rows = [row | {"experts": ", ".join(row["experts"])} for row in failures]
        print_table(rows, ("outcome", "experts", "rule", "message"))


for _command in (pause, resume, stop, watch, events):
    app.command(_command)
