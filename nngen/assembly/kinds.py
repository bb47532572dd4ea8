"""Registries of the kinds of mixture and of the networks that weigh experts.

To add a gate, write its template under ``templates/gates`` and add a line to ``GATES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nngen.files import package_folder
from nngen.plan import Plan

__all__ = ["GATES", "KINDS", "GateNetwork", "Kind", "gate_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of mixture.

    Attributes:
        template: Template under ``templates/mixtures`` that writes it.
        gate: Gate network where the plan names none.
        features: Whether the gate sees the features of a trunk; otherwise it sees the images.
        only: The one name that its experts have; None where any family may take part.
        families: Whether its experts are families; otherwise the kind brings its own.
    """

    template: str
    gate: str
    features: bool = False
    only: str | None = None
    families: bool = True


KINDS: dict[str, Kind] = {
    "hetero": Kind(template="families", gate="convolution"),
    "homogeneous": Kind(template="homogeneous", gate="dense", features=True, only="Dense", families=False),
}
"""Kinds of mixture by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateNetwork:
    """A network that weighs experts.

    Attributes:
        meaning: Its layers, in one line.
        features: Whether it takes features, ``(B, F)``; otherwise images, ``(B, C, H, W)``.
        template: Its template; by default ``templates/gates/<name>.py.j2``.
    """

    meaning: str
    features: bool = False
    template: Path | None = None

    def text(self, name: str) -> str:
        """Read its template."""
        default = package_folder("templates") / "gates" / f"{name}.py.j2"
        return (self.template or default).read_text(encoding="utf-8")


GATES: dict[str, GateNetwork] = {
    "convolution": GateNetwork(meaning="convolutions, global pooling"),
    "convolution_linear": GateNetwork(meaning="convolutions, a coarse grid, two linear layers"),
    "dense": GateNetwork(meaning="linear layers with batch norm between them", features=True),
}
"""Gate networks by name."""


def gate_of(plan: Plan, kinds: Mapping[str, Kind] = KINDS) -> str:
    """Return the name of a plan's gate network."""
    return plan.gate.network or kinds[plan.kind].gate
