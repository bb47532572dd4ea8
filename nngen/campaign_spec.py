"""The specification of a campaign: every argument, with the checks on its values."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import InitVar, asdict, dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Self

from nngen.datasets.class_weights import parse
from nngen.errors import UsageError
from nngen.plan import Plan, changes
from nngen.ranges import (
    Batch,
    Epochs,
    Finalists,
    LearningRate,
    MiB,
    Momentum,
    ReductionFactor,
    Replicates,
    Seconds,
    Seed,
    Share,
    Size,
    Threads,
    check_ranges,
    flag_of,
)
from nngen.types import AUGMENTATIONS, Hyperparameters, Shape, TrialSpec, historic_augment

_LONGEST_NAME = 200
_PLAIN = Plan(experts=())
SCHEDULERS = ("asha", "halving")
ALONE = "alone"
"""Sampler of a campaign of baselines, whose candidates are the families themselves."""

TABLE = "table:"
"""Beginning of the name of the data set of trials that are replayed from a recorded table; its path follows."""

_GROW = ("size", "epochs", "finalists", "replicates")
_GROWING = "--size, --epochs, --rungs, --finalists and --replicates"

_RENAMED = {"wall_s": "time_limit_s", "floor": "min_explore", "keep": "reduction_factor"}
"""Keys of archives written before the fields had their present names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSpec:
    """Every argument of a campaign, settled when it begins.

    The sentences below are the help of the flags of the same names.

    Attributes:
        name: Name of the campaign in its archive.
        size: Number of candidates to draw; needed when the campaign begins.
        sampler: Order of the quartets, a name of ``nngen.space.SAMPLERS``.
        skip_known: Pass over quartets that another campaign of the archive tried on the same data at the same
            shape, failed ones included.
        exclude_low_yield: Leave out families whose quartets hardly ever train, as the archive's campaigns on the
            same data at the same shape show; the reasons are stored with the campaign.
        min_explore: Least share of exploration of the adaptive sampler, above 0 and up to 1.
        plan: Plan of every candidate besides its experts: a TOML file or a preset (nngen plans ls) with gate, losses
            and recipe.
        families: Families of the pool, separated by commas; all usable families by default.
        dataset: Data set by its name in ``nngen.datasets.registry``.
        shape: Channels, height and width of the images, as 3x32x32; the data set's own by default.
        train_size: Images of the training split to train on, each class with its share; all by default.
        epochs: Passes over the training split; with rungs, those of the last rung.
        rungs: Epochs of each rung, as 5,15,45: every candidate trains for the first, the best go on to the next and
            train anew for that many. ``nngen fidelity`` prints after how many epochs a ranking can be relied on.
        reduction_factor: Share of a rung that goes on to the next one: 1 in so many.
        rungs_continue: Go on from the checkpoint of the rung before, in place of training anew. Schedules then stretch
            over the epochs of the last rung, so that its results are those of one training.
        scheduler: halving waits for a rung to be complete, asha does not.
        stop_early: End a trial once it is, with 95 % confidence, not going on to the next rung, as the first ten
            trials of the rung tell; needs rungs, of which the first has two epochs or more.
        finalists: Number of the best candidates that are trained again with other seeds.
        replicates: Seeds of each finalist in all, the first one included.
        seed: Seed of every random draw.
        batch: Samples per training step.
        lr: Learning rate passed to the candidates.
        momentum: Momentum passed to the candidates; AdamW's first beta in assembled files.
        augment: Random changes of training images: none, flip (mirrored), crop-flip (moved by up to an eighth of each
            side, and mirrored), or trivial (TrivialAugment, made for photographs).
        class_weights: Weights of the classes in training: none, balanced (all classes count alike), or by class as
            cat=2,dog=0.5. Images are drawn that often, so it holds for every file, whatever its loss.
        hyperparameters: Further values of prm, for files that name more than lr and momentum; in a campaign that draws
            mixtures, in place of LEMUR's best values for the families that have them.
        device: Device of the trials, cpu or cuda; the commands take a card where there is one.
        threads: CPU threads of each worker; the commands share this machine's cores among the workers, and with Ray
            take those of the smallest node.
        time_limit_s: Time limit of one trial in seconds.
        memory_mib: Memory limit of one trial in MiB.
        keep_weights: Trials whose weights are kept beside the archive: none, best, top:N or all of the campaign.
        start: SHA-256 of the weights that its trials start from (train --from); empty for new ones.
        note: Remark on the campaign, printed with its status and in its report; has no effect, and may change.
    """

    name: str
    size: Size
    sampler: str = "stratified"
    skip_known: bool = False
    exclude_low_yield: bool = False
    min_explore: Share = 0.25
    plan: Plan = _PLAIN
    families: tuple[str, ...] = ()
    dataset: str = "digits"
    shape: Shape
    train_size: Size | None = None
    epochs: Epochs = 1
    rungs: tuple[Epochs, ...] = ()
    rungs_continue: bool = False
    reduction_factor: ReductionFactor = 3
    scheduler: str = "halving"
    stop_early: bool = False
    finalists: Finalists = 0
    replicates: Replicates = 1
    seed: Seed = 0
    batch: Batch = 64
    lr: LearningRate = 1e-3
    momentum: Momentum = 0.9
    augment: str = "none"
    class_weights: str = "none"
    hyperparameters: Hyperparameters = field(default_factory=dict)
    device: str = "cpu"
    threads: Threads = 1
    time_limit_s: Seconds = 3600.0
    memory_mib: MiB = 12_288
    keep_weights: str = "best"
    start: str = ""
    note: str = ""
    stored: InitVar[bool] = False

    def __post_init__(self, stored: bool) -> None:
        # An archive of earlier versions may hold values that are refused today.
        if not stored:
            check_ranges(self)
            self.shape.check_images()
        if not self.name or not self.name.isprintable() or self.name != self.name.strip():
            raise UsageError(f"{self.name[:60]!r} cannot be a campaign's name: use letters, digits and dashes")
        if len(self.name) > _LONGEST_NAME:
            raise UsageError(
                f"{self.name[:60]}... is too long for a campaign's name: at most {_LONGEST_NAME} characters"
            )
        if self.augment not in AUGMENTATIONS:
            raise UsageError(f"no augmentation is called {self.augment!r}: there are {', '.join(AUGMENTATIONS)}")
        parse(self.class_weights)
        self._check_rungs()
        _ = self.weights_kept

    def _check_rungs(self) -> None:
        rungs = shown(self.rungs)
        if any(low >= high for low, high in pairwise((0, *self.rungs))):
            raise UsageError(f"--rungs are epochs that rise, as 5,15,45, not {rungs}")
        if self.rungs and self.epochs != self.rungs[-1]:
            raise UsageError(
                f"--epochs {self.epochs} and --rungs {rungs} disagree: the last rung is the longest training"
            )
        if self.rungs_continue and len(self.rungs) < 2:
            raise UsageError("--rungs-continue goes on from one rung to the next: give at least two with --rungs")
        if self.scheduler not in SCHEDULERS:
            raise UsageError(f"no scheduler is called {self.scheduler!r}: there are {', '.join(SCHEDULERS)}")
        if self.stop_early and (len(self.rungs) < 2 or self.rungs[-2] < 2):
            raise UsageError("--stop-early ends trials that do not go on to the next rung: add rungs, as --rungs 5,15")
        if (self.finalists > 0) != (self.replicates > 1):
            raise UsageError("--finalists K --replicates R trains the best K with R seeds: both, with R 2 at least")

    @property
    def weights_kept(self) -> float:
        """Number of trials whose weights are kept; infinite for all.

        Raises:
            UsageError: If ``keep_weights`` is none of its forms.
        """
        found = re.fullmatch(r"top:([1-9]\d{0,8})", self.keep_weights, re.ASCII)
        known = {"none": 0.0, "best": 1.0, "all": math.inf}
        if found is None and self.keep_weights not in known:
            raise UsageError(f"--keep-weights is none, best, top:N or all, not {self.keep_weights!r}")
        return float(found[1]) if found else known[self.keep_weights]

    @property
    def fidelities(self) -> tuple[int, ...]:
        """Epochs of each rung; one entry without rungs."""
        return self.rungs or (self.epochs,)

    @property
    def alone(self) -> bool:
        """Whether it trains families alone."""
        return self.sampler == ALONE

    @property
    def replayed(self) -> bool:
        """Whether its trials are answered from a recorded table, and nothing is trained."""
        return self.dataset.startswith(TABLE)

    @property
    def baselines_name(self) -> str:
        """Name of the campaign of its baselines; another one where its epochs have grown."""
        return f"{self.name}-alone-{self.epochs}"

    def baselines(self, families: Collection[str]) -> Self:
        """Return the specification of its baselines: families alone, trained as its last rung and its finalists are."""
        return replace(
            self,
            name=self.baselines_name,
            size=len(families),
            sampler=ALONE,
            families=tuple(sorted(families)),
            rungs=(),
            stop_early=False,
            rungs_continue=False,
            finalists=len(families) if self.finalists else 0,
            skip_known=False,
            exclude_low_yield=False,
        )

    def to_dict(self) -> dict[str, Any]:
        """Write the specification as JSON types."""
        plain = {"families": list(self.families), "shape": str(self.shape), "rungs": list(self.rungs)}
        return asdict(self) | plain | {"plan": self.plan.to_dict() if changes(_PLAIN, self.plan) else {}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the output of ``to_dict``, of this version or an earlier one; other keys are ignored."""
        data = {_RENAMED.get(name, name): value for name, value in data.items()}
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        plain = {name: tuple(known.get(name, ())) for name in ("families", "rungs")}
        known.setdefault("augment", historic_augment(known["dataset"]))
        plan = Plan.from_dict({"experts": ()} | known.get("plan", {}))
        return cls(**known | plain | {"plan": plan, "shape": Shape.parse(known["shape"])}, stored=True)

    def require(self, asked: Self) -> None:
        """Check that a specification asked for now agrees with this one, that the campaign began with.

        Raises:
            UsageError: If any argument differs; the message names each such argument with both values.
        """
        now = {item.name: getattr(asked, item.name) for item in fields(self) if item.name != "note"}
        self._refuse({name: value for name, value in now.items() if value != getattr(self, name)})

    def _refuse(self, differs: Mapping[str, object]) -> None:
        if differs:
            now = ", ".join(f"{flag_of(name)} {shown(value)}" for name, value in differs.items())
            then = ", ".join(f"{flag_of(name)} {shown(getattr(self, name))}" for name in differs)
            more = f"; {_GROWING} may grow by nngen campaign run" if differs.keys() & {*_GROW, "rungs"} else ""
            if [*differs] == ["time_limit_s"]:
                more = ", which takes over what was trained within its limit"
            raise UsageError(
                f"campaign {self.name} began with {then}, not {now}: leave it out to go on, or choose another name"
                + more
            )

    def extended(self, **asked: Any) -> Self:
        """Return this specification with those arguments of a later call that may grow.

        More epochs are a further rung, which trains anew. Where the campaign had no rungs, every candidate goes on to
        it, unless a factor is asked for.

        Raises:
            UsageError: If another argument differs; the message names each with both values.
        """
        if asked.get("epochs", 0) > self.epochs and not asked.get("rungs"):
            factor = self.reduction_factor if self.rungs else 1
            asked = {"reduction_factor": factor} | asked | {"rungs": (*self.fidelities, asked["epochs"])}
        changes = {name: value for name, value in asked.items() if value != getattr(self, name)}
        if self.rungs_continue and "rungs" in changes:
            # Schedules that stretch over the last rung cannot be stretched later.
            raise UsageError(
                f"campaign {self.name} began with --rungs-continue, so that its schedules end after epoch"
                f" {self.epochs}: it takes no further rung; choose another name"
            )
        self._refuse({name: value for name, value in changes.items() if not self._may_become(name, value)})
        return replace(self, **changes)

    def _may_become(self, name: str, value: Any) -> bool:
        if name in ("reduction_factor", "scheduler"):
            return not self.rungs
        if name == "note":
            return True
        if name == "rungs":
            return bool(value[: len(self.fidelities)] == self.fidelities)
        return name in _GROW and value > getattr(self, name)

    def trial(self, seed: int, rung: int = 0) -> TrialSpec:
        """Return the specification of one of its trials."""
        shared = ("dataset", "shape", "train_size", "batch", "lr", "momentum", "augment", "class_weights")
        limits = ("hyperparameters", "device", "start", "threads", "time_limit_s", "memory_mib")
        return TrialSpec(
            **{name: getattr(self, name) for name in shared + limits},
            epochs=self.fidelities[rung],
            seed=seed,
            # The last rung is the whole of the training, and comparable with any other that is as long.
            horizon=self.epochs if self.rungs_continue and self.fidelities[rung] < self.epochs else None,
        )


def shown(value: object) -> str:
    """Return an argument as it is typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "(all)"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={given}" for name, given in value.items()) or "(none)"
    if isinstance(value, Plan):
        fields_of = changes(_PLAIN, value)
        return ", ".join(f"{name} {shown(new)}" for name, (_, new) in fields_of.items()) or "(default)"
    return (",".join(map(str, value)) or "(all)") if isinstance(value, tuple) else str(value)
