"""A plan and its experts become one candidate."""

from __future__ import annotations

from collections.abc import Sequence

from nngen.assembly.expert import Expert, kept_or_transformed
from nngen.assembly.naming import class_prefix
from nngen.assembly.plan_validation import KINDS, check_plan
from nngen.assembly.render import RESERVED, render
from nngen.errors import PlanError
from nngen.lemur.layout import nn_id
from nngen.plan import Plan
from nngen.types import Candidate, Family, Interface

__all__ = ["Assembler", "assemble", "check_plan"]


class Assembler:
    """Assembles plans; each family is transformed once."""

    def __init__(self) -> None:
        self._experts: dict[tuple[str, str, str | None], Expert] = {}

    def assemble(self, plan: Plan, experts: Sequence[tuple[Family, Interface]]) -> Candidate:
        """Write a plan out as one self-contained file.

        Args:
            plan: What to write.
            experts: The plan's families in the plan's order, each with the inputs it accepts; nothing for a kind
                that brings its own experts.

        Returns:
            The candidate; the same plan and families give the same bytes in every process.

        Raises:
            PlanError: If the plan cannot be assembled; the message says why.
            AssemblyError: If a family's source cannot become an expert.
        """
        check_plan(plan)
        given = tuple(family.name for family, _ in experts)
        if given != (plan.experts if KINDS[plan.kind].families else ()):
            raise PlanError(f"the plan names {', '.join(plan.experts)}, but was given {', '.join(given) or 'nothing'}")
        ready = self._distinct([family for family, _ in experts])
        source, canonical = render(plan, ready, [interface for _, interface in experts])
        return Candidate(id=f"MoE{len(plan.experts)}-{nn_id(source)}", source=source, canonical=canonical, plan=plan)

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
