"""Options of commands that run trials: their specification, a budget, and the machines they run on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from cyclopts import Parameter

from nngen.archive import Archive, CampaignRecord, check_creatable
from nngen.campaign.budget import Budget, last_budget
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign_spec import TABLE, CampaignSpec
from nngen.cli.options import Arguments, Flag, IsolationOption, ThreadsOption
from nngen.cli.options.family import FamilyOptions, note_family_levels
from nngen.cli.options.table import on_table, replaying, with_table
from nngen.cli.output import note
from nngen.cli.progress import progress_bar
from nngen.datasets import Dataset, load_dataset
from nngen.datasets.registry import dataset_name
from nngen.errors import MissingExtraError, UsageError
from nngen.families.profile import check_shape
from nngen.lemur.source import open_lemur
from nngen.ranges import Range
from nngen.training import LocalEngine, pick_device
from nngen.types import Shape, TrialSpec

if TYPE_CHECKING:
    from nngen.surrogate.table_engine import TableEngine  # loads scikit-learn
    from nngen.training.ray import Cluster, RayEngine  # loads ray, an optional extra

_ENGINES = ("local", "ray")
_MOST_THREADS = 16
_NOT_TYPED = ("hyperparameters", "start", "horizon")
_TRIAL = [*(item.name for item in fields(TrialSpec) if item.name not in _NOT_TYPED), "keep_weights"]
_OF_MACHINE = ("device", "threads")  # their defaults are EngineOptions.defaults


class CampaignOptions(
    Arguments,
    of=CampaignSpec,
    without=("name", "families", "hyperparameters", "start"),
    undefined=(*_OF_MACHINE, "plan"),
    panel="Campaign",
):
    """Arguments of a campaign that were typed; its families are those of ``FamilyOptions``."""


class TrialOptions(Arguments, of=CampaignSpec, only=_TRIAL, undefined=_OF_MACHINE, panel="Training"):
    """Arguments of trials that were typed, for commands whose candidates are not sampled."""


class ExpertOptions(
    Arguments, of=CampaignSpec, only=[*_TRIAL, "rungs"], undefined=(*_OF_MACHINE, "keep_weights"), panel="Training"
):
    """Arguments of families trained alone that were typed; the command keeps all weights by default."""


class BudgetOptions(Arguments, of=Budget, panel="Budget"):
    """Limits of a campaign that were typed; a resumed campaign keeps the others."""

    def change(self, budget: Budget) -> Budget:
        """Return a budget with the typed limits in place of its own."""
        return replace(budget, **self.typed())


class Prepare(Protocol):
    """Prepares the families of a campaign."""

    def __call__(
        self, spec: CampaignSpec, dataset: Dataset, /, *, progress: Callable[[int, int], None], wanted: str
    ) -> CampaignInputs: ...


@Parameter(name="*", group="Machines")
@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Machines that trials run on, and the place of their data.

    Attributes:
        engine: Where trials run: local (this machine) or ray (the nodes of a Ray cluster; docs/clusters.md).
        workers: Trials at a time; results do not depend on it. 1 by default; with Ray, as many as fit. Of several
            graphics cards each takes one.
        address: With Ray, HOST:PORT of the cluster's head; by default the cluster that runs on this machine.
        gpu_share: With Ray and cards, share of a card per trial, as 0.5; 1 by default.
        compiled: Compile each network with torch.compile before it trains; takes minutes, and pays for many
            epochs on a card.
        data_root: Folder that torchvision's files are read from, or downloaded to.
        skip_unreadable: With images of your own, leave out those that cannot be read; they are named.
    """

    isolation: IsolationOption = "auto"
    engine: str = "local"
    workers: ThreadsOption | None = None
    address: str | None = None
    gpu_share: Annotated[float, Parameter(validator=Range(low=0, high=64, above=True))] | None = None
    compiled: Flag = False
    data_root: Path | None = None
    skip_unreadable: Flag = False

    def __post_init__(self) -> None:
        if self.engine not in _ENGINES:
            raise UsageError(f"unknown engine {self.engine!r}: choose {' or '.join(_ENGINES)}")
        if self.here:
            for flag, value in (("--address", self.address), ("--gpu-share", self.gpu_share)):
                if value is not None:
                    raise UsageError(f"{flag} is for --engine ray")

    @property
    def here(self) -> bool:
        """Whether trials run on this machine."""
        return self.engine == "local"

    def settle(
        self, options: Arguments, selection: FamilyOptions | None = None, *, table: Path | None = None
    ) -> dict[str, Any]:
        """Return the typed arguments of trials by field; what is wrong is refused before anything starts.

        Args:
            options: Arguments that were typed.
            selection: Families that were typed; None for commands without a pool.
            table: Recorded trainings that answer; None where trials are trained.

        Raises:
            UsageError: If the device is missing, or no family takes images of the shape.
            FamilyError: If a family to leave out is not in the pool.
        """
        typed = options.typed()
        # "auto" is what the machine suggests later, with the other defaults.
        device = typed.pop("device", "auto")
        if device != "auto":
            typed["device"] = pick_device(device, here=self.here)
        if typed.get("rungs"):
            typed.setdefault("epochs", typed["rungs"][-1])  # the last rung is the longest training
        if table is not None:
            if not self.here:
                raise UsageError("--table answers on this machine: leave out --engine")
            typed, selection = with_table(table, typed, selection or FamilyOptions())
        if selection is not None:
            if "shape" in typed:
                check_shape(typed["shape"])
            names = selection.pool() if selection.narrowed else selection.families
            if names is not None:
                typed["families"] = tuple(sorted(names))
        if "dataset" in typed and not typed["dataset"].startswith(TABLE):
            typed["dataset"] = dataset_name(typed["dataset"])
        if self.skip_unreadable:
            kind, _, path = str(typed.get("dataset", "")).partition(":")
            if not path or kind == TABLE[:-1]:
                raise UsageError("--skip-unreadable is for --dataset folder:PATH, csv:FILE and hf:NAME")
            # Part of the name: a campaign that is resumed, or exported, reads the same images.
            typed["dataset"] = f"readable-{kind.removeprefix('readable-')}:{path}"
        # Refused before a data set is read; numbers of seeds may go with stored ones.
        alone: dict[str, Any] = {"name": "x", "size": 1, "shape": Shape(3, 32, 32)} | typed
        CampaignSpec(**{name: alone[name] for name in alone.keys() - {"finalists", "replicates"}})
        return typed

    @contextmanager
    def session(
        self,
        name: str,
        stored: CampaignSpec | None,
        typed: Mapping[str, Any],
        prepare: Prepare,
        *,
        size: int = 1,
        grows: bool = False,
    ) -> Iterator[tuple[CampaignSpec, CampaignInputs, LocalEngine | RayEngine | TableEngine]]:
        """Settle every argument of a campaign, prepare its inputs and open its engine.

        Args:
            name: Name of the campaign.
            stored: Arguments that it began with; None for one that begins.
            typed: Result of ``settle``; a campaign that began with other arguments is refused.
            prepare: Prepares the families from the settled arguments and the data set.
            size: Number of candidates where none was typed.
            grows: Whether a campaign that begun may be extended by what was typed.

        Raises:
            NngenError: See ``CampaignSpec``, ``load_dataset``, ``prepare`` and the engines.
        """
        wanted = typed.get("dataset", stored.dataset if stored is not None else "digits")
        if stored is not None and typed:
            if ":" in wanted and wanted.partition(":")[0] == stored.dataset.partition(":")[0]:
                # A folder may have moved, or be typed otherwise: its content must be the same, and is compared later.
                typed = dict(typed) | {"dataset": stored.dataset}
            if grows:
                stored = stored.extended(**typed)
            else:
                stored.require(replace(stored, **typed))
        if wanted.startswith(TABLE):
            spec, table = on_table(wanted, stored, {"name": name, "size": size, **self._machine(None), **typed})
            with progress_bar("measuring families") as report:
                inputs = prepare(spec, table.dataset(), progress=report, wanted=self.isolation)
            with replaying(table) as answering:
                yield spec, inputs, answering
            return
        with self._join() as cluster:
            shape = stored.shape if stored is not None else typed.get("shape")
            with progress_bar("reading images") as report:
                dataset = load_dataset(wanted, data_root=self.data_root, shape=shape, progress=report)
            defaults = {"name": name, "size": size, "shape": dataset.default_shape, **self._machine(cluster)}
            spec = stored or CampaignSpec(**defaults | dict(typed))
            # Refused before families are measured.
            dataset.training_images(spec.train_size)
            dataset.class_weights(spec.class_weights)
            for line in dataset.describe() if dataset.notes else ():
                note(f"{dataset.name}: {line}")
            with progress_bar("measuring families") as report:
                inputs = prepare(spec, dataset, progress=report, wanted=self.isolation)
            note_family_levels((family for family, _ in inputs.families.values()), self.isolation)
            if self.compiled:
                note("each network is compiled in its first epoch, which takes minutes")
            with self._open(cluster, spec, inputs) as engine:
                yield spec, inputs, engine

    @contextmanager
    def _join(self) -> Iterator[Cluster | None]:
        """Join the cluster; yields None for this machine alone."""
        if self.here:
            yield None
            return
        try:
            from nngen.training.ray import connect
        except ImportError as error:
            raise MissingExtraError("ray", "ray") from error
        # Ray prints about lost nodes on stdout, which is for results alone.
        with redirect_stdout(sys.stderr), connect(self.address or "auto") as cluster:
            yield cluster

    def _machine(self, cluster: Cluster | None) -> dict[str, Any]:
        """Return the device and the threads that the machines suggest, for what was not typed."""
        if cluster is not None:
            return cluster.machine(self.gpu_share or 1.0)
        cores = len(os.sched_getaffinity(0))
        return {"device": pick_device("auto"), "threads": max(1, min(cores // (self.workers or 1), _MOST_THREADS))}

    def _open(self, cluster: Cluster | None, spec: CampaignSpec, inputs: CampaignInputs) -> LocalEngine | RayEngine:
        from nngen.training.memory_model import predictor

        predict = predictor(inputs.families, classes=inputs.dataset.classes, wanted=self.isolation)
        if cluster is None:
            return LocalEngine(slots=self.workers or 1, predict=predict, compiled=self.compiled)
        from nngen.training.ray import RayEngine, Request

        share = 0.0 if spec.device == "cpu" else self.gpu_share or 1.0
        request = Request(cpus=spec.threads, gpus=share, memory_mib=spec.memory_mib)
        return RayEngine(cluster, request, slots=self.workers, predict=predict, compiled=self.compiled)


def usable_pool(selection: FamilyOptions) -> Prepare:
    """Return the preparation of a campaign whose candidates are proposed: its usable families."""

    def prepare(
        spec: CampaignSpec, dataset: Dataset, /, *, progress: Callable[[int, int], None], wanted: str
    ) -> CampaignInputs:
        from nngen.campaign.setup import prepare_inputs

        return prepare_inputs(
            dataset,
            spec.shape,
            spec.families,
            lemur=open_lemur(),
            families_from=selection.families_from,
            progress=progress,
            wanted=wanted,
        )

    return prepare


def read_stored(place: Path, name: str, budget: BudgetOptions) -> tuple[CampaignRecord | None, Budget]:
    """Read a campaign's stored specification and budget; an archive that is missing is not created yet."""
    if not place.exists():
        check_creatable(place)
        return None, budget.change(Budget())
    with Archive.open(place) as store:
        found = next((campaign for campaign in store.campaigns() if campaign.name == name), None)
        return found, budget.change(last_budget(store.events(name)))
