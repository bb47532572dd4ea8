"""The plan of a mixture as a value: its experts, gate, losses and recipe, and its form as plain dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self, TypeAlias

from nngen.errors import UsageError

FieldValue: TypeAlias = float | str | tuple[object, ...]
"""Value of one field of a plan: a number, a name, or names with weights."""

OMIT_DEFAULT = {"omit_default": True}
"""Metadata of a field that is written only where it differs from its default, so that a plan written before the field
existed keeps its text and its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The gating network, which weights the experts.

    Attributes:
        width: Channels of the first convolution; doubled by each further one.
        depth: Number of convolution blocks, each halving height and width.
        temperature: Initial softmax temperature; it is learned.
        noise: Standard deviation of the Gaussian noise on the logits in training.
        routing: ``soft`` (every expert sees every image) or ``top-k`` (each image chooses ``k`` experts).
        k: Experts per image where routing is ``top-k``.
        learned_noise: Whether the noise's scale is learned, one per expert; ``noise`` is where it starts.
        network: Name in ``nngen.assembly.registries.GATES``; empty for the default of the plan's kind.
    """

    width: int = 32
    depth: int = 3
    temperature: float = 1.0
    noise: float = 0.1
    routing: str = field(default="soft", metadata=OMIT_DEFAULT)
    k: int = field(default=2, metadata=OMIT_DEFAULT)
    learned_noise: bool = field(default=False, metadata=OMIT_DEFAULT)
    network: str = field(default="", metadata=OMIT_DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Weights of the terms added to the cross-entropy, and its label smoothing.

    Attributes:
        label_smoothing: Share of the target spread over all classes.
        balance: Weight of the importance loss, the squared coefficient of variation of the
            experts' total weights (Shazeer et al. 2017); it does not depend on the batch's size.
        load: Weight of the load loss, the same over the probabilities of the choice (Shazeer et al. 2017);
            needs routing ``top-k`` with noise.
        switch: Weight of the Switch balance (Fedus et al. 2021).
        z: Weight of the router z-loss (Zoph et al. 2022, ST-MoE).
        bias: Step of the bias that balances the routing without a loss (Wang et al. 2024, DeepSeek-V3); needs
            routing ``top-k``.
        entropy: Weight of the penalty on gates with low entropy (Pereyra et al. 2017).
        diversity: Weight of the similarity of experts that share an image (Guo et al. 2025).
        others: Weights of further losses of ``nngen.assembly.registries.LOSSES``, by name; written like the others.
    """

    label_smoothing: float = 0.1
    balance: float = 0.01
    load: float = field(default=0.0, metadata=OMIT_DEFAULT)
    switch: float = field(default=0.0, metadata=OMIT_DEFAULT)
    z: float = field(default=0.0, metadata=OMIT_DEFAULT)
    bias: float = field(default=0.0, metadata=OMIT_DEFAULT)
    entropy: float = field(default=0.0, metadata=OMIT_DEFAULT)
    diversity: float = field(default=0.0, metadata=OMIT_DEFAULT)
    others: tuple[tuple[str, float], ...] = field(default=(), metadata=OMIT_DEFAULT)

    def weight(self, name: str) -> float:
        """Return the weight of a loss; 0 for one that the plan does not name."""
        value: float = getattr(self, name) if name in _OWN_LOSSES else dict(self.others).get(name, 0.0)
        return value

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read weights by name; names without a field of their own become ``others``."""
        others = {name: value for name, value in data.items() if name not in _OWN_LOSSES}
        own = {name: value for name, value in data.items() if name in _OWN_LOSSES}
        return cls(**own, others=tuple(sorted(others.items())))


_OWN_LOSSES = frozenset(item.name for item in fields(Losses)) - {"others"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of a mixture's own training loop.

    Attributes:
        gate_rate: The gate's learning rate as a multiple of the experts'.
        weight_decay: Weight decay of the optimizer; decoupled in AdamW.
        mixup: Alpha of the Beta distribution that mixes pairs of samples; 0 turns it off.
        warmup: Share of the trial's steps over which the rate rises; a cosine follows.
        clip: Largest norm of the gradient.
        optimizer: ``adamw``, or ``sgd`` with Nesterov's momentum.
        cutmix: Alpha of the Beta distribution that sizes the patch one sample takes from another; 0 turns it off.
            With ``mixup`` as well, each step takes one of the two.
        ema: Decay per step of the average of the weights that predictions are made with; 0 turns it off.
        frozen: Whether the gate alone is trained, and blends probabilities; the experts keep the weights of their
            training alone, which a campaign gives them.
    """

    gate_rate: float = 3.0
    weight_decay: float = 0.01
    mixup: float = 0.2
    warmup: float = 0.1
    clip: float = 1.0
    optimizer: str = field(default="adamw", metadata=OMIT_DEFAULT)
    cutmix: float = field(default=0.0, metadata=OMIT_DEFAULT)
    ema: float = field(default=0.0, metadata=OMIT_DEFAULT)
    frozen: bool = field(default=False, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A mixture, or one family alone, as a value: experts, gate, losses and recipe.

    Attributes:
        experts: Families in their order; a kind that brings its own experts names them too.
        kind: Name in ``nngen.assembly.registries.KINDS``: ``hetero``, ``homogeneous`` or ``single``.
        repeats: Whether a family may appear more than once.
        rates: Learning rates of single families as multiples of the trial's rate, by name. Families that are not named
            have 1. A plan without experts may name any, one with experts keeps theirs.
    """

    experts: tuple[str, ...]
    kind: str = "hetero"
    gate: Gate = field(default_factory=Gate)
    losses: Losses = field(default_factory=Losses)
    recipe: Recipe = field(default_factory=Recipe)
    repeats: bool = field(default=False, metadata=OMIT_DEFAULT)
    rates: tuple[tuple[str, float], ...] = field(default=(), metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if self.rates:  # equal mixtures have equal plans
            known, experts = sorted(dict(self.rates).items()), self.experts
            kept = tuple((name, rate) for name, rate in known if rate != 1 and (name in experts or not experts))
            object.__setattr__(self, "rates", kept)

    def alone(self, family: str) -> Self:
        """Return the plan of one family alone under the same recipe; of the losses the label smoothing is left."""
        losses = Losses(label_smoothing=self.losses.label_smoothing)
        recipe = replace(self.recipe, gate_rate=Recipe().gate_rate, frozen=False)
        return type(self)(experts=(family,), kind="single", losses=losses, recipe=recipe, rates=self.rates)

    def to_dict(self) -> dict[str, Any]:
        """Write the plan as plain lists and dictionaries (the types of TOML and JSON)."""
        data = {**_without_defaults(self), "experts": list(self.experts)}
        data |= {name: _without_defaults(getattr(self, name)) for name in ("gate", "losses", "recipe")}
        data["losses"] |= data["losses"].pop("others", ())
        return data | ({"rates": dict(self.rates)} if self.rates else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote, with this or an earlier version.

        Raises:
            UsageError: If a key is unknown, or a value cannot be that of a plan; ``check_plan`` checks the rest.
        """
        try:
            gate, kind, repeats = data.get("gate", {}), data.get("kind", "hetero"), data.get("repeats", False)
            if kind == "alexnet":  # once a kind of its own, which differed by its gate alone
                gate, kind, repeats = {"network": "convolution_linear", **gate}, "hetero", True
            if isinstance(experts := data["experts"], str):
                raise TypeError("experts is a text, not a list of names")
            rates: Mapping[str, float] = data.get("rates", {})
            if experts and (strange := [name for name in rates if name not in experts]):
                raise TypeError(f"rates names {strange[0]}, which is not among the experts")
            plan = cls(
                experts=tuple(experts),
                kind=kind,
                gate=Gate(**gate),
                losses=Losses.from_dict(data.get("losses", {})),
                recipe=Recipe(**data.get("recipe", {})),
                repeats=repeats,
                rates=tuple(rates.items()),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"not a plan: {error!s:.200}") from error
        names = (*plan.experts, plan.kind, plan.gate.network, plan.gate.routing, plan.recipe.optimizer)
        if strange := [name for name in names if not isinstance(name, str)]:
            raise UsageError(f"not a plan: {strange[0]!r:.40} stands where a name in quotes is needed")
        if not isinstance(plan.repeats, bool):
            raise UsageError("not a plan: repeats is true or false")
        return plan


def changes(old: Plan, new: Plan) -> dict[str, tuple[Any, Any]]:
    """Compare two plans: old and new value of each field that differs, by its dotted name as in ``gate.network``."""
    before, after = flat_fields(old), flat_fields(new)
    pairs = {
        name: tuple(values.get(name, 1.0 if name.startswith("rates.") else None) for values in (before, after))
        for name in dict.fromkeys([*before, *after])
    }
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}


def flat_fields(plan: Plan) -> dict[str, FieldValue]:
    """Return every field of a plan by its dotted name as in ``gate.network``, those at their defaults included.

    Of the rates, those that the plan names.
    """
    return _flat({**asdict(plan), "rates": dict(plan.rates)})


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _without_defaults(part: Gate | Losses | Recipe | Plan) -> dict[str, Any]:
    """Write a part of a plan without the ``OMIT_DEFAULT`` fields that are at their defaults."""
    values = ((item, getattr(part, item.name)) for item in fields(part))
    return {item.name: value for item, value in values if not (item.metadata and value == item.default)}
