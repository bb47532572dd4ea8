"""Assembles a plan and its families into one candidate."""

from __future__ import annotations

from collections.abc import Sequence

from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.assembly.plan_validation import check_plan
from nngen.assembly.registries import KINDS
from nngen.assembly.render import render
from nngen.errors import PlanError
from nngen.families.family_function import FamilyFunction, family_function
from nngen.families.hyperparameters import recorded
from nngen.lemur.layout import nn_id
from nngen.plan import Plan
from nngen.types import Candidate, Family, Interface


class Assembler:
    """Assembles plans; each family is read once."""

    def __init__(self) -> None:
        self._functions: dict[tuple[object, ...], FamilyFunction] = {}

    def assemble(self, plan: Plan, experts: Sequence[tuple[Family, Interface]]) -> Candidate:
        """Write a plan as one self-contained file.

        Args:
            plan: Plan to write.
            experts: The plan's families in the plan's order, each with the inputs it accepts; none for a kind that
                brings its own experts.

        Returns:
            The candidate; the same plan and families give the same bytes in every process.

        Raises:
            PlanError: If the plan cannot be assembled; the message gives the reason.
            AssemblyError: If a family's source cannot become an expert.
        """
        check_plan(plan)
        given = tuple(family.name for family, _ in experts)
        if given != (plan.experts if KINDS[plan.kind].families else ()):
            raise PlanError(f"the plan names {', '.join(plan.experts)}, but was given {', '.join(given) or 'nothing'}")
        functions = [self.function(family, interface.hyperparameters) for family, interface in experts]
        source, canonical = render(plan, functions, [interface for _, interface in experts])
        return Candidate(
            id=f"MoE{len(plan.experts)}-{nn_id(source)}",
            source=source,
            canonical=canonical,
            plan=plan,
            template_version=TEMPLATE_VERSION,
        )

    def function(self, family: Family, names: tuple[str, ...] | None = None) -> FamilyFunction:
        """Turn a family into a function, or return the one made before; arguments and errors of ``family_function``."""
        key = (family.name, family.fingerprint, names, repr(sorted(recorded(family).items())))
        if key not in self._functions:
            self._functions[key] = family_function(family, names)
        return self._functions[key]


def assemble(plan: Plan, experts: Sequence[tuple[Family, Interface]]) -> Candidate:
    """Write a plan as one self-contained file; see ``Assembler`` for many."""
    return Assembler().assemble(plan, experts)
