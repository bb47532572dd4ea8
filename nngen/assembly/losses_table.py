"""Registry of the terms that a plan may add to the cross-entropy.

To add a loss, write its function in ``snippets/losses.py`` and a line of ``LOSSES``: range, constant, term and the
checks of plans follow from it. A loss without a field in ``nngen.plan.Losses`` is named in a plan as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["LOSSES", "Loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A term of the training loss, or a rule that acts after a step.

    Attributes:
        function: Name of its function.
        term: Expression that is added, times the constant. ``{probabilities}`` stands for the gate's softmax over all
            experts, ``{k}`` for the experts per image; other names are those of ``Net.take_step``. Empty for a rule.
        constant: Name of its weight in generated files.
        meaning: Meaning of the weight, in a few words.
        range: Smallest and largest weight.
        needs: ``logits`` where the gate must return its logits, ``top-k`` where each image must choose its experts,
            ``noise`` where the gate must add noise.
        file: Python file with the function; by default ``snippets/losses.py``.
    """

    function: str
    term: str
    constant: str
    meaning: str
    range: tuple[float, float] = (0, 1e3)
    needs: frozenset[str] = frozenset()
    file: Path = Path(__file__).parent / "snippets" / "losses.py"


LOSSES: dict[str, Loss] = {
    "balance": Loss(
        function="importance_loss",
        term="importance_loss({probabilities})",
        constant="BALANCE",
        meaning="weight of the importance loss",
    ),
    "load": Loss(
        function="load_loss",
        term="load_loss(routing.clean, routing.noisy, routing.spread, {k})",
        constant="LOAD",
        meaning="weight of the load loss",
        needs=frozenset({"top-k", "noise"}),
    ),
    "switch": Loss(
        function="switch_loss",
        term="switch_loss({probabilities})",
        constant="SWITCH",
        meaning="weight of the Switch balance",
    ),
    "z": Loss(
        function="z_loss",
        term="z_loss(routing.clean)",
        constant="Z",
        meaning="weight of the z-loss",
        needs=frozenset({"logits"}),
    ),
    "entropy": Loss(
        function="entropy_loss",
        term="entropy_loss({probabilities})",
        constant="ENTROPY",
        meaning="weight of the penalty on a gate that is too sure",
    ),
    "diversity": Loss(
        function="diversity_loss",
        term="diversity_loss(weights, outputs)",
        constant="DIVERSITY",
        meaning="weight of the likeness of experts",
    ),
    "bias": Loss(
        function="shift_bias",
        term="",  # acts on the gate's buffer after each step
        constant="BIAS",
        meaning="step of the bias that evens out the choice",
        range=(0, 1),
        needs=frozenset({"top-k"}),
    ),
}
"""Losses by the names that plans give them, in the order in which files hold them."""
