"""What a campaign is asked to do, and the rule that the same name means the same campaign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Self

from nngen.errors import UsageError
from nngen.types import Shape, TrialSpec

__all__ = ["CampaignSpec"]

_FLAGS = {"wall_s": "--wall", "memory_mib": "--memory"}


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
        epochs: How often the training split is shown.
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

    @classmethod
    def default(cls, name: str) -> Any:
        """Give a field's default, None where it has none."""
        value = next(field.default for field in fields(cls) if field.name == name)
        return None if value is MISSING else value

    def to_dict(self) -> dict[str, Any]:
        """Write the specification as JSON's types."""
        return asdict(self) | {"families": list(self.families), "shape": str(self.shape)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; keys that are not fields are passed over."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**known | {"families": tuple(known["families"]), "shape": Shape.parse(known["shape"])})

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

    def trial(self, seed: int) -> TrialSpec:
        """Give the specification of one of its trials."""
        shared = ("dataset", "shape", "epochs", "batch", "lr", "device", "threads", "wall_s", "memory_mib")
        return TrialSpec(**{name: getattr(self, name) for name in shared}, seed=seed)


def _flag(name: str) -> str:
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return (",".join(value) or "(all)") if isinstance(value, tuple) else str(value)
