"""A plan and its experts become one candidate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nngen.assembly.expert import Expert, kept_or_transformed
from nngen.assembly.identity import lemur_id
from nngen.assembly.naming import class_prefix
from nngen.assembly.render import KINDS, RESERVED, render
from nngen.errors import PlanError
from nngen.types import Candidate, Family, Interface, Plan

__all__ = ["Assembler", "assemble", "check_plan"]

SIZE = 4
"""Experts in a mixture."""


class Assembler:
    """Assembles plans; each family is transformed once."""

    def __init__(self) -> None:
        self._experts: dict[tuple[str, str, str | None], Expert] = {}

    def assemble(self, plan: Plan, experts: Sequence[tuple[Family, Interface]]) -> Candidate:
        """Write a plan out as one self-contained file.

        Args:
            plan: What to write.
            experts: The plan's families in the plan's order, each with the inputs it accepts.

        Returns:
            The candidate; the same plan and families give the same bytes in every process.

        Raises:
            PlanError: If the plan cannot be assembled; the message says why.
            AssemblyError: If a family's source cannot become an expert.
        """
        check_plan(plan)
        given = tuple(family.name for family, _ in experts)
        if given != plan.experts:
            raise PlanError(f"the plan names {', '.join(plan.experts)}, but was given {', '.join(given) or 'nothing'}")
        ready = self._distinct([family for family, _ in experts])
        source, canonical = render(plan, ready, [interface for _, interface in experts])
        return Candidate(id=f"MoE{len(ready)}-{lemur_id(source)}", source=source, canonical=canonical, plan=plan)

    def expert(self, family: Family, prefix: str | None = None) -> Expert:
        """Transform a family, or return what was made of it before."""
        key = (family.name, family.fingerprint, prefix)
        if key not in self._experts:
            self._experts[key] = kept_or_transformed(family, prefix)
        return self._experts[key]

    def _distinct(self, families: Sequence[Family]) -> list[Expert]:
        """Transform the families so that no two bind one name.

        A family's prefix keeps its names apart from all others, unless one family's name starts
        another's (a class ``NetUnit`` of ``Air``, a class ``Unit`` of ``AirNet``). Then the later one gets
        a longer prefix.
        """
        taken = set(RESERVED)
        done: dict[str, Expert] = {}
        for family in families:
            if family.name in done:
                continue
            expert, number = self.expert(family), 2
            while not taken.isdisjoint(expert.bound):
                expert, number = self.expert(family, f"{class_prefix(family.name)}Alt{number}"), number + 1
            done[family.name] = expert
            taken |= expert.bound
        return [done[family.name] for family in families]


def assemble(plan: Plan, experts: Sequence[tuple[Family, Interface]]) -> Candidate:
    """Write a plan out as one self-contained file; see ``Assembler`` for many."""
    return Assembler().assemble(plan, experts)


def check_plan(plan: Plan) -> None:
    """Refuse a plan that cannot be assembled.

    Raises:
        PlanError: If it does not name four different families, or a value is out of range.
    """
    if plan.kind not in KINDS:
        raise PlanError(f"no kind of mixture is called {plan.kind!r}: there are {', '.join(KINDS)}")
    if len(plan.experts) != SIZE:
        raise PlanError(f"a mixture takes {SIZE} experts, not {len(plan.experts)}: {', '.join(plan.experts) or 'none'}")
    twice = [name for name, count in Counter(plan.experts).items() if count > 1]
    if twice:
        raise PlanError(f"{twice[0]} is named twice: a mixture takes {SIZE} different families")
    strange = [name for name in plan.experts if not name.replace("-", "").replace(".", "").replace("_", "").isalnum()]
    if strange:
        raise PlanError(f"{strange[0]!r} is no name of a family: letters, digits, hyphens, points and underscores")
    gate, losses, recipe = plan.gate, plan.losses, plan.recipe
    for name, value, low, high in (
        ("gate.width", gate.width, 2, 4096),
        ("gate.depth", gate.depth, 1, 8),
        ("gate.temperature", gate.temperature, 1e-3, 1e3),
        ("gate.noise", gate.noise, 0, 1e3),
        ("losses.label_smoothing", losses.label_smoothing, 0, 1),
        ("losses.balance", losses.balance, 0, 1e3),
        ("recipe.gate_rate", recipe.gate_rate, 0, 1e3),
        ("recipe.weight_decay", recipe.weight_decay, 0, 1e3),
        ("recipe.mixup", recipe.mixup, 0, 1e3),
        ("recipe.warmup", recipe.warmup, 0, 0.99),
        ("recipe.clip", recipe.clip, 1e-6, 1e6),
    ):
        if not low <= value <= high:
            raise PlanError(f"{name} is {value}: it must lie between {low} and {high}")
