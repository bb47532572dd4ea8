"""``nngen campaign``: sample, assemble, check, train, store; list campaigns and how they stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from nngen.cli.output import print_json, print_table
from nngen.cli.progress import progress_bar

if TYPE_CHECKING:
    from nngen.campaign import Summary

__all__ = ["app"]

app = App(name="campaign", help="Sample, assemble, check, train and store; resumes where it stopped.")


@app.command
def run(
    name: str,
    /,
    *,
    size: int | None = None,
    sampler: str | None = None,
    skip_known: bool | None = None,
    exclude_low_yield: bool | None = None,
    floor: float | None = None,
    families: str | None = None,
    families_from: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    dataset: str | None = None,
    shape: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    device: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    wall: float | None = None,
    memory: int | None = None,
    engine: str = "local",
    address: str | None = None,
    gpu_share: float | None = None,
    data_root: Path | None = None,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Run a campaign, or go on with it: the same name again resumes where it stopped.

    Everything that is drawn and every result is kept at once, so it may be stopped or killed at any
    instant. What is left out when resuming stands as the campaign began; what is typed must agree with
    it. When all trials are done, the candidate that is best on validation gets its test accuracy.

    Args:
        name: The campaign's name.
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
        dataset: digits (default), fashion-mnist, mnist, cifar-10, cifar-100, svhn or folder:PATH.
        shape: Channels, height and width of the images, as 3x32x32; the data set's own by default.
        epochs: How often the training split is shown; 1 by default.
        seed: Of every draw; 0 by default.
        batch: Samples per step; 64 by default.
        lr: Learning rate handed to the candidates; 0.001 by default.
        device: auto (default), cpu or cuda.
        workers: Trainings at once; results do not depend on it. 1 by default; with Ray, as many as fit.
        threads: CPU threads of a worker; this machine's cores shared out among the workers by default; with Ray,
            those of the smallest node.
        wall: Limit of one trial in seconds; 3600 by default.
        memory: Limit of one trial in MiB; 12288 by default.
        engine: Where trials run: local (this machine) or ray (the nodes of a Ray cluster; docs/clusters.md).
        address: With Ray, HOST:PORT of the cluster's head; by default the cluster that runs on this machine.
        gpu_share: With Ray and cards, how much of a card a trial takes, as 0.5; 1 by default.
        data_root: Where torchvision's files lie or are downloaded to.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print what it came to as JSON.

    Examples:
        nngen campaign run small --size 8 --families ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,DPN68
        nngen campaign run first --size 100 --sampler stratified --dataset cifar-10 --epochs 1 --seed 0
        nngen campaign run first
        nngen campaign run first --engine ray --address head.example.org:6379
        nngen campaign run second --size 100 --sampler balanced --skip-known --exclude-low-yield
    """
    from nngen.archive import Archive, default_path
    from nngen.assembly.assemble import Assembler
    from nngen.campaign import Campaign
    from nngen.campaign.prepare import prepare
    from nngen.cli.engines import join, open_engine, suggest
    from nngen.cli.watcher import watch
    from nngen.errors import UsageError
    from nngen.lemur.source import open_lemur

    asked: dict[str, Any] = {
        "size": size,
        "sampler": sampler,
        "skip_known": skip_known,
        "exclude_low_yield": exclude_low_yield,
        "floor": floor,
        "dataset": dataset,
        "epochs": epochs,
        "seed": seed,
        "batch": batch,
    }
    asked |= {"lr": lr, "threads": threads, "wall_s": wall, "memory_mib": memory}
    typed = {field: value for field, value in asked.items() if value is not None}
    typed |= _parsed(families, shape, device, here=engine == "local")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}")
    place = archive or default_path()
    stored = _stored(place, name)
    with join(engine, address, gpu_share) as cluster:
        with progress_bar("measuring families") as report:
            spec, bench = prepare(
                name,
                stored,
                typed,
                suggest(cluster, workers, gpu_share),
                lemur=open_lemur(),
                families_from=families_from,
                data_root=data_root,
                progress=report,
            )
        with (
            open_engine(cluster, spec, workers, gpu_share) as machines,
            Archive.open(place) as store,
            watch() as watcher,
        ):
            for family, reason in bench.left_out.items():
                watcher.note(f"{family} is left out: {reason}")
            campaign = Campaign(
                spec=spec,
                archive=store,
                bench=bench,
                engine=machines,
                assemble=Assembler().assemble,
                watcher=watcher,
            )
            summary = campaign.run()
    _report(summary, json=json)


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
    """Say how a campaign stands: trials by state, outcomes with their reasons, coverage, the best.

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

    with Archive.open(archive or default_path(), readonly=True) as store:
        campaign = store.campaign(name)
        summary = summarise(store, name)
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
        print_json(summary.to_dict() | {"arguments": dict(campaign.spec), "failures": failures})
        return
    _print(summary)
    if failures:
        rows = [row | {"experts": ", ".join(row["experts"])} for row in failures]
        print_table(rows, ("outcome", "experts", "rule", "message"))


def _stored(place: Path, name: str) -> dict[str, Any] | None:
    """What an archive holds of a campaign; a missing archive is not created yet, but could be."""
    from nngen.archive import Archive, check_creatable

    if not place.exists():
        check_creatable(place)
        return None
    with Archive.open(place) as store:
        return next((dict(campaign.spec) for campaign in store.campaigns() if campaign.name == name), None)


def _parsed(families: str | None, shape: str | None, device: str | None, *, here: bool) -> dict[str, Any]:
    """Read the arguments that are more than a number or a word; the device need not be here."""
    from nngen.errors import UsageError
    from nngen.execution.device import pick_device
    from nngen.lemur.probe import check_shape
    from nngen.types import Shape

    read: dict[str, Any] = {}
    if families is not None:
        read["families"] = tuple(sorted(name.strip() for name in families.split(",") if name.strip()))
        if not read["families"]:
            raise UsageError("--families names no family: write names separated by commas")
    if shape is not None:
        read["shape"] = Shape.parse(shape)
        check_shape(read["shape"])
    if device not in (None, "auto"):
        read["device"] = pick_device(device, here=here)
    return read


def _report(summary: Summary, *, json: bool) -> None:
    from nngen.errors import SomeFailedError

    if json:
        print_json(summary.to_dict())
    else:
        _print(summary)
    if summary.failed:
        raise SomeFailedError(
            f"{summary.failed} of {summary.total} candidates failed: nngen campaign status {summary.name} says why"
        )


def _print(summary: Summary) -> None:
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(summary.outcomes.items())) or "none yet"
    print(f"campaign {summary.name}: {summary.done} of {summary.total} trials done ({outcomes})")
    print(f"coverage {summary.coverage.share:.2%} of {summary.coverage.space:,} quartets: {summary.coverage.verdict}")
    best = summary.best
    if best is not None:
        test = "not revealed yet" if best.test_accuracy is None else f"{best.test_accuracy:.4f}"
        print(f"best {best.candidate_id} ({', '.join(best.experts)})")
        print(f"     validation accuracy {best.validation_accuracy:.4f}, test accuracy {test}")
