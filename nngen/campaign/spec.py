"""What a campaign is asked to do, and the rule that the same name means the same campaign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Self

from nngen.errors import UsageError
from nngen.space import SAMPLERS
from nngen.types import Shape, TrialSpec

__all__ = ["SCHEDULERS", "CampaignSpec"]

SCHEDULERS = ("asha", "halving")

_FLAGS = {"wall_s": "--wall"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSpec:
    """Every argument of a campaign, settled when it begins.

    Attributes:
        size: Quartets to draw.
        sampler: Their order; adaptive chooses by what the trials have shown, turn by turn.
        skip_known: Whether quartets that another campaign tried on the same data at the same shape
            are passed over, failed ones included.
        exclude_low_yield: Whether families whose quartets hardly ever train are left out.
        floor: Least share of exploration of the adaptive sampler, in (0, 1].
        families: The pool as it was typed, sorted; empty for every usable family.
        dataset: As in ``TrialSpec``.
        shape: What the images are brought to.
        epochs: How often the training split is shown; on the last rung where there are several.
        rungs: Epochs of each rung, rising; empty for one rung of ``epochs``.
        keep: One of so many goes on to the next rung.
        scheduler: ``halving`` waits for a rung to be complete, ``asha`` does not.
        finalists: The best of the last rung, trained again with other seeds.
        replicates: Seeds of each finalist in all, the first one included.
        seed: Of the sampler, and of every trial together with its candidate's id.
        batch: Samples per step.
        lr: Learning rate handed to the candidates.
        device: ``cpu`` or ``cuda``.
        threads: CPU threads of each worker.
        wall_s: Limit of one trial on the judge's clock.
        memory_mib: Limit on a worker's resident memory.
    """

    name: str
    size: int
    sampler: str = "stratified"
    skip_known: bool = False
    exclude_low_yield: bool = False
    floor: float = 0.25
    families: tuple[str, ...] = ()
    dataset: str = "digits"
    shape: Shape
    epochs: int = 1
    rungs: tuple[int, ...] = ()
    keep: int = 3
    scheduler: str = "halving"
    finalists: int = 0
    replicates: int = 1
    seed: int = 0
    batch: int = 64
    lr: float = 1e-3
    device: str = "cpu"
    threads: int = 1
    wall_s: float = 3600.0
    memory_mib: int = 12_288

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable() or self.name != self.name.strip():
            raise UsageError(f"{self.name!r} cannot be a campaign's name: use letters, digits and dashes")
        for name in ("size", "epochs", "batch", "lr", "threads", "wall_s", "memory_mib"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{_flag(name)} must be positive, not {getattr(self, name)}")
        if not 0 < self.floor <= 1:
            raise UsageError(f"--floor is a share of exploration above 0 and up to 1, not {self.floor}")
        self._check_rungs()

    def _check_rungs(self) -> None:
        rungs = _text(self.rungs)
        if any(low >= high for low, high in pairwise((0, *self.rungs))):
            raise UsageError(f"--rungs are epochs that rise, as 1,3,9, not {rungs}")
        if self.rungs and self.epochs != self.rungs[-1]:
            raise UsageError(
                f"--epochs {self.epochs} and --rungs {rungs} disagree: the last rung is what is trained to"
            )
        if self.rungs and self.sampler in SAMPLERS and SAMPLERS[self.sampler].choose is not None:
            raise UsageError(
                f"{self.sampler} learns from trials of one fidelity: choose another sampler, or leave --rungs out"
            )
        if self.keep < 2:
            raise UsageError(f"--keep is of how many one goes on, 2 at least, not {self.keep}")
        if self.scheduler not in SCHEDULERS:
            raise UsageError(f"no scheduler is called {self.scheduler!r}: there are {', '.join(SCHEDULERS)}")
        if self.finalists < 0 or (self.finalists > 0) != (self.replicates > 1):
            raise UsageError("--finalists K --replicates R trains the best K with R seeds: both, with R 2 at least")

    @property
    def fidelities(self) -> tuple[int, ...]:
        """Epochs of each rung; one where there are no rungs."""
        return self.rungs or (self.epochs,)

    @classmethod
    def default(cls, name: str) -> Any:
        """Give a field's default, None where it has none."""
        value = next(field.default for field in fields(cls) if field.name == name)
        return None if value is MISSING else value

    def to_dict(self) -> dict[str, Any]:
        """Write the specification as JSON's types."""
        plain = {"families": list(self.families), "shape": str(self.shape), "rungs": list(self.rungs)}
        return asdict(self) | plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; keys that are not fields are passed over."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        plain = {name: tuple(known.get(name, ())) for name in ("families", "rungs")}
        return cls(**known | plain | {"shape": Shape.parse(known["shape"])})

    def require(self, asked: Mapping[str, Any]) -> None:
        """See that what was typed now agrees with what the campaign began with.

        Raises:
            UsageError: If anything differs; the message names each such argument with both values.
        """
        differs = {name: value for name, value in asked.items() if getattr(self, name) != value}
        if differs:
            now = ", ".join(f"{_flag(name)} {_text(value)}" for name, value in differs.items())
            then = ", ".join(f"{_flag(name)} {_text(getattr(self, name))}" for name in differs)
            raise UsageError(
                f"campaign {self.name} began with {then}, not {now}: leave it out to go on, or choose another name"
            )

    def trial(self, seed: int, rung: int = 0) -> TrialSpec:
        """Give the specification of one of its trials."""
        shared = ("dataset", "shape", "batch", "lr", "device", "threads", "memory_mib")
        return TrialSpec(
            **{name: getattr(self, name) for name in shared},
            epochs=self.fidelities[rung],
            seed=seed,
            time_limit_s=self.wall_s,
        )


def _flag(name: str) -> str:
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return (",".join(map(str, value)) or "(all)") if isinstance(value, tuple) else str(value)
