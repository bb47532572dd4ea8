"""Registries of the kinds of plan, of the networks that weigh experts, and of the losses added to the cross-entropy.

To add a gate, write its template under ``templates/gates`` and add a line to ``GATES``. To add a loss, write its
function in ``snippets/losses.py`` and a line of ``LOSSES``: range, term, constant and the checks of plans follow from
it. A loss without a field in ``nngen.plan.Losses`` is named in a plan as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nngen.files import package_folder
from nngen.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of plan."""

    template: str  # template under ``templates/mixtures`` that writes it
    gate: str  # gate network where the plan names none; empty for a kind without a gate
    # smallest and largest number of experts
    experts: tuple[int, int] = (2, 64)  # a trial's report has room for so many
    features: bool = False  # whether the gate sees the features of a trunk; otherwise it sees the images
    only: str | None = None  # the one name that its experts have; None where any family may take part
    families: bool = True  # whether its experts are families; otherwise the kind brings its own


KINDS: dict[str, Kind] = {
    "hetero": Kind(template="families", gate="convolution"),
    "homogeneous": Kind(template="homogeneous", gate="dense", features=True, only="Dense", families=False),
    "single": Kind(template="single", gate="", experts=(1, 1)),
}
"""Kinds by name; a ``single`` is one family alone, trained with the recipe of mixtures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateNetwork:
    """A network that weighs experts."""

    meaning: str  # its layers, in one line
    features: bool = False  # whether it takes features, ``(B, F)``; otherwise images, ``(B, C, H, W)``
    calibrates: bool = False  # whether it maps the experts' probabilities too; for frozen experts
    template: Path | None = None  # its template; by default ``templates/gates/<name>.py.j2``

    def text(self, name: str) -> str:
        """Read its template."""
        default = package_folder("templates") / "gates" / f"{name}.py.j2"
        return (self.template or default).read_text(encoding="utf-8")


GATES: dict[str, GateNetwork] = {
    "convolution": GateNetwork(meaning="convolutions, global pooling"),
    "convolution_linear": GateNetwork(meaning="convolutions, a coarse grid, two linear layers"),
    "linear": GateNetwork(meaning="a linear layer on mean colours"),
    "calibrated": GateNetwork(
        meaning="a linear layer on mean colours, and a linear map of each frozen expert's log-probabilities",
        calibrates=True,
    ),
    "dense": GateNetwork(meaning="linear layers with batch norm between them", features=True),
}
"""Gate networks by name."""


def gate_of(plan: Plan, kinds: Mapping[str, Kind] = KINDS) -> str:
    """Return the name of a plan's gate network; empty for a kind without a gate."""
    own = kinds[plan.kind].gate
    return own and (plan.gate.network or own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A term of the training loss, or a rule that acts after a step."""

    function: str  # name of its function
    # expression that is added, times its weight. ``{probabilities}`` stands for the gate's softmax over all experts,
    # ``{k}`` for the experts per image; other names are those of ``Net.take_step``. Empty for a rule
    term: str
    meaning: str  # meaning of the weight, in a few words
    range: tuple[float, float] = (0, 1e3)  # smallest and largest weight
    # ``logits`` where the gate must return its logits, ``top-k`` where each image must choose its experts, ``noise``
    # where the gate must add noise
    needs: frozenset[str] = frozenset()
    # Python file with the function; by default ``snippets/losses.py``
    file: Path = Path(__file__).parent / "snippets" / "losses.py"


LOSSES: dict[str, Loss] = {
    "balance": Loss(
        function="importance_loss", term="importance_loss({probabilities})", meaning="weight of the importance loss"
    ),
    "load": Loss(
        function="load_loss",
        term="load_loss(routing.clean, routing.noisy, routing.spread, {k})",
        meaning="weight of the load loss",
        needs=frozenset({"top-k", "noise"}),
    ),
    "switch": Loss(function="switch_loss", term="switch_loss({probabilities})", meaning="weight of the Switch balance"),
    "z": Loss(
        function="z_loss", term="z_loss(routing.clean)", meaning="weight of the z-loss", needs=frozenset({"logits"})
    ),
    "entropy": Loss(
        function="entropy_loss",
        term="entropy_loss({probabilities})",
        meaning="weight of the penalty on a gate that is too sure",
    ),
    "diversity": Loss(
        function="diversity_loss", term="diversity_loss(weights, outputs)", meaning="weight of the likeness of experts"
    ),
    "bias": Loss(
        function="shift_bias",
        term="",  # acts on the gate's buffer after each step
        meaning="step of the bias that evens out the choice",
        range=(0, 1),
        needs=frozenset({"top-k"}),
    ),
}
"""Losses by the names that plans give them, in the order in which files hold them.

A file's constant with the weight has the same name in capitals."""
