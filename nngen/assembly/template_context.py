"""Values that a plan gives to the templates under ``templates/mixtures``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nngen.assembly.registries import GATES, KINDS, LOSSES, Loss, gate_of
from nngen.plan import Plan

SNIPPETS = Path(__file__).parent / "snippets"
OWN_SETTINGS = Path(__file__).parents[1] / "families" / "own_settings.py"
"""Code for families whose own code changes settings of torch."""

TRUNK = {
    "trunk_widths": (32, 32, 64, 64, 128, 128),
    "trunk_dropout": 0.1,
    "expert_widths": (128, 64),
    "expert_dropout": 0.2,
}
"""Network of kind ``homogeneous``: six convolutions, then three linear layers per expert."""

_CONSTANTS = (
    ("CLIP", "clip", "largest norm of the gradient"),
    ("WARMUP", "warmup", "share of the budget over which the rates rise"),
)
_RATES = "learning rate of each expert as a multiple of the trial's"
_RECIPE = ("gate_rate", "weight_decay", "mixup", "cutmix", "ema")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def number(count: int) -> str:
    """Spell a small number."""
    return _NUMBERS[count] if 0 <= count < len(_NUMBERS) else str(count)


def template_context(plan: Plan) -> dict[str, Any]:
    """Return the values that the templates name, experts and the gate's template aside."""
    gate, rate, gated = plan.gate, plan.recipe.gate_rate, bool(KINDS[plan.kind].gate)
    top_k = gated and gate.routing == "top-k"
    losses = {name: loss for name, loss in LOSSES.items() if gated and plan.losses.weight(name) > 0}
    # Where more than the weights is needed, the gate returns a ``Routing``.
    routed = top_k or (gated and gate.learned_noise) or any("logits" in loss.needs for loss in losses.values())
    words = {"probabilities": "probabilities" if routed else "weights", "k": int(gate.k)}
    routing, diagnostics = definitions(SNIPPETS / "routing.py"), definitions(SNIPPETS / "diagnostics.py")
    return {
        "count": len(plan.experts),
        "gated": gated,
        "gate": {"noise": float(gate.noise), "learned_noise": gate.learned_noise, "k": int(gate.k)},
        "gate_widths": tuple(int(gate.width) * 2**block for block in range(int(gate.depth))),
        "gate_hidden": (int(gate.width),) * (int(gate.depth) - 1),
        "log_temperature": math.log(gate.temperature),
        "log_noise": math.log(gate.noise) if gate.noise > 0 else 0.0,
        "top_k": top_k,
        "frozen": plan.recipe.frozen,
        "calibrated": gated and GATES[gate_of(plan)].calibrates,
        "routed": routed,
        "routing_code": "\n\n\n".join(routing.values() if top_k else [routing["Routing"]]) if routed else "",
        "losses": {"label_smoothing": float(plan.losses.label_smoothing), "bias": float(plan.losses.bias)},
        "loss_code": "\n\n\n".join(definitions(loss.file)[loss.function] for loss in losses.values()),
        "terms": [f"{name.upper()} * {loss.term.format(**words)}" for name, loss in losses.items() if loss.term],
        "uses_probabilities": any("{probabilities}" in loss.term for loss in losses.values()),
        "constants": list(_constants(plan, losses)),
        "recipe": {"optimizer": plan.recipe.optimizer, **{name: float(getattr(plan.recipe, name)) for name in _RECIPE}},
        "rates": _rates(plan),
        "rate_words": f"{'the same' if rate == 1 else 'a higher' if rate > 1 else 'a lower'} rate",
        "trained": _trained(plan),
        "diagnostics": "\n\n\n".join(diagnostics.values() if gated else [diagnostics["soft_targets"]]),
        "own_settings_code": "\n\n\n".join(definitions(OWN_SETTINGS).values()),
        "net_summary": _net_summary(plan),
        **TRUNK,
    }


def _rates(plan: Plan) -> tuple[float, ...]:
    """Return the multiple of the learning rate for each expert; empty where all have 1."""
    known = dict(plan.rates)
    return tuple(float(known.get(name, 1.0)) for name in plan.experts) if known else ()


def _constants(plan: Plan, losses: Mapping[str, Loss]) -> Iterator[Mapping[str, Any]]:
    for name, loss in losses.items():
        yield {"name": name.upper(), "value": float(plan.losses.weight(name)), "meaning": loss.meaning}
    for constant, name, meaning in _CONSTANTS:
        yield {"name": constant, "value": float(getattr(plan.recipe, name)), "meaning": meaning}
    if (rates := _rates(plan)) and KINDS[plan.kind].gate:
        yield {"name": "RATES", "value": rates, "meaning": _RATES}
    yield {"name": "FLOOR", "value": 0.01, "meaning": "share of the peak rates that is left at the end"}


def _trained(plan: Plan) -> str:
    """Return the expression of what the optimizer updates besides the gate."""
    kind = KINDS[plan.kind]
    return (
        "nn.ModuleList([self.trunk, self.experts])"
        if not kind.families
        else "self.experts"
        if kind.gate
        else "self.expert"
    )


def _net_summary(plan: Plan) -> str:
    if not KINDS[plan.kind].gate:
        return "A family's network behind its adapter, trained with the recipe of mixtures."
    count = number(len(plan.experts)).capitalize()
    experts = f"{count} experts" if KINDS[plan.kind].families else f"{count} equal experts over one trunk"
    if plan.gate.routing == "top-k":
        return f"{experts}; a gate chooses {number(int(plan.gate.k))} per image and blends their logits."
    if plan.recipe.frozen:
        return f"{experts} that were trained alone and stay as they are; a gate blends their probabilities."
    return f"{experts} whose logits a gate blends with soft weights."


@cache
def definitions(file: Path) -> Mapping[str, str]:
    """Read the functions and classes of a Python file as text, by name; two blank lines separate them."""
    blocks = [block.strip("\n") for block in file.read_text(encoding="utf-8").split("\n\n\n")]
    heads = {block: block.partition("\n")[0].split(maxsplit=1) for block in blocks}
    return {
        head[1].partition("(")[0].rstrip(":"): block
        for block, head in heads.items()
        if head and head[0] in ("def", "class")
    }
