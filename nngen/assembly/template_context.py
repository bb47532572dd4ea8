"""What a plan puts into the templates of a mixture's frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nngen.assembly.plan_validation import KINDS
from nngen.plan import Plan

__all__ = ["frame_values", "number"]

TRUNK = {
    "trunk_widths": (32, 32, 64, 64, 128, 128),
    "trunk_dropout": 0.1,
    "expert_widths": (128, 64),
    "expert_dropout": 0.2,
}
"""The network of kind ``homogeneous``: six convolutions, then three linear layers per expert."""

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def number(count: int) -> str:
    """Spell a small number."""
    return _NUMBERS[count] if 0 <= count < len(_NUMBERS) else str(count)


def frame_values(plan: Plan) -> dict[str, Any]:
    """Return the values that the templates under ``templates/mixtures`` name, experts aside."""
    gate, top_k = plan.gate, plan.gate.routing == "top-k"
    routed = top_k or gate.learned_noise or plan.losses.z > 0
    return {
        "count": len(plan.experts),
        "gate": {"noise": float(gate.noise), "learned_noise": gate.learned_noise, "k": int(gate.k)},
        "gate_template": f"gates/{KINDS[plan.kind].gate}.py.j2",
        "gate_widths": tuple(int(gate.width) * 2**block for block in range(int(gate.depth))),
        "gate_hidden": (int(gate.width),) * (int(gate.depth) - 1),
        "log_temperature": math.log(gate.temperature),
        "log_noise": math.log(gate.noise) if gate.noise > 0 else 0.0,
        "top_k": top_k,
        "routed": routed,
        "routing_parts": _routing_parts(top_k=top_k) if routed else "",
        "losses": {"label_smoothing": float(plan.losses.label_smoothing), "bias": float(plan.losses.bias)},
        "loss_parts": "\n\n\n".join(_parts("losses")[name] for name in _loss_names(plan)),
        "terms": list(_terms(plan, routed=routed)),
        "uses_probabilities": any(
            value > 0 for value in (plan.losses.balance, plan.losses.switch, plan.losses.entropy)
        ),
        "constants": list(_constants(plan)),
        "recipe": _recipe(plan),
        "rate_words": _rate_words(plan.recipe.gate_rate),
        "trained": "self.experts" if KINDS[plan.kind].families else "nn.ModuleList([self.trunk, self.experts])",
        "watching": "\n\n\n".join(_parts("diagnostics").values()),
        "net_summary": _net_summary(plan),
        **TRUNK,
    }


def _routing_parts(*, top_k: bool) -> str:
    parts = _parts("routing")
    return "\n\n\n".join(parts.values() if top_k else [parts["Routing"]])


def _recipe(plan: Plan) -> dict[str, Any]:
    names = ("gate_rate", "weight_decay", "mixup", "cutmix", "ema")
    return {"optimizer": plan.recipe.optimizer, **{name: float(getattr(plan.recipe, name)) for name in names}}


def _rate_words(rate: float) -> str:
    return "the same rate" if rate == 1 else "a higher rate" if rate > 1 else "a lower rate"


def _loss_names(plan: Plan) -> Iterator[str]:
    for name, part in (
        ("balance", "importance_loss"),
        ("load", "load_loss"),
        ("switch", "switch_loss"),
        ("z", "z_loss"),
        ("entropy", "entropy_loss"),
        ("diversity", "diversity_loss"),
        ("bias", "shift_bias"),
    ):
        if getattr(plan.losses, name) > 0:
            yield part


def _terms(plan: Plan, *, routed: bool) -> Iterator[str]:
    """Write what is added to the cross-entropy."""
    every = "probabilities" if routed else "weights"
    for name, term in (
        ("balance", f"BALANCE * importance_loss({every})"),
        ("load", f"LOAD * load_loss(routing.clean, routing.noisy, routing.spread, {int(plan.gate.k)})"),
        ("switch", f"SWITCH * switch_loss({every})"),
        ("z", "Z * z_loss(routing.clean)"),
        ("entropy", f"ENTROPY * entropy_loss({every})"),
        ("diversity", "DIVERSITY * diversity_loss(weights, each)"),
    ):
        if getattr(plan.losses, name) > 0:
            yield term


def _constants(plan: Plan) -> Iterator[Mapping[str, Any]]:
    losses, recipe = plan.losses, plan.recipe
    for name, value, meaning, wanted in (
        ("BALANCE", losses.balance, "weight of the importance loss", losses.balance > 0),
        ("LOAD", losses.load, "weight of the load loss", losses.load > 0),
        ("SWITCH", losses.switch, "weight of the Switch balance", losses.switch > 0),
        ("Z", losses.z, "weight of the z-loss", losses.z > 0),
        ("ENTROPY", losses.entropy, "weight of the penalty on a gate that is too sure", losses.entropy > 0),
        ("DIVERSITY", losses.diversity, "weight of the likeness of experts", losses.diversity > 0),
        ("BIAS", losses.bias, "step of the bias that evens out the choice", losses.bias > 0),
        ("CLIP", recipe.clip, "largest norm of the gradient", True),
        ("WARMUP", recipe.warmup, "share of the budget over which the rates rise", True),
        ("FLOOR", 0.01, "share of the peak rates that is left at the end", True),
    ):
        if wanted:
            yield {"name": name, "value": float(value), "meaning": meaning}


def _net_summary(plan: Plan) -> str:
    count = number(len(plan.experts)).capitalize()
    experts = f"{count} experts" if KINDS[plan.kind].families else f"{count} equal experts over one trunk"
    if plan.gate.routing == "top-k":
        return f"{experts}; a gate chooses {number(int(plan.gate.k))} per image and blends their logits."
    return f"{experts} whose logits a gate blends with soft weights."


@cache
def _parts(file: str) -> Mapping[str, str]:
    """Read the definitions of a file of ``nngen/assembly/snippets`` as text, by name."""
    text = (Path(__file__).parent / "snippets" / f"{file}.py").read_text(encoding="utf-8")
    blocks = [block.strip("\n") for block in text.split("\n\n\n")]
    return {_name(block): block for block in blocks if block.startswith(("def ", "class "))}


def _name(block: str) -> str:
    head = block.partition("\n")[0]
    return head.split(maxsplit=1)[1].partition("(")[0].rstrip(":")
