"""Joins experts and templates into the text of one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from textwrap import fill
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nngen.assembly.expert import Expert
from nngen.assembly.identity import combine, statement_digests
from nngen.assembly.imports import Import, write_imports
from nngen.assembly.plan_text import to_toml
from nngen.errors import PlanError
from nngen.resources import folder
from nngen.types import Interface, Plan

__all__ = ["KINDS", "RESERVED", "render"]

KINDS = ("hetero",)
"""Kinds of mixture that have a template under ``mixtures/``."""

RESERVED = frozenset(
    {
        "Adapter", "BALANCE", "CLIP", "EXPERTS", "ExpertSpec", "FLOOR", "Gate", "Net", "WARMUP",
        "build_expert", "build_optimizer", "class_logits", "consult", "count_steps", "importance_loss", "mixup",
        "set_rates", "supported_hyperparameters",
    }
)  # fmt: skip
"""Names that the templates bind; no expert may bind one."""

_IMPORTS = (
    Import("math"),
    Import("typing", "NamedTuple"),
    Import("typing", "Optional"),
    Import("torch"),
    Import("torch", "nn"),
    Import("torch.nn", "functional", "F"),
)
"""What the templates themselves need."""

_ROOM = 106
"""Characters left of a line in the table of experts, at 120 in all."""

_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}


def render(plan: Plan, experts: Sequence[Expert], interfaces: Sequence[Interface]) -> tuple[str, str]:
    """Write a mixture.

    Args:
        plan: What to write.
        experts: In the plan's order; no name may be bound by two different ones.
        interfaces: What each accepts, in the same order.

    Returns:
        The source and its canonical hash.
    """
    unique = list(dict.fromkeys(experts))
    postponed = any(expert.postponed for expert in unique)
    imports = write_imports([*_IMPORTS, *(item for expert in unique for item in expert.imports)])
    frame = _frame(plan, experts, interfaces)
    source = _template("mixture.py.j2").render(
        title=f"Mixture of {_count(plan)} experts: {_join(plan.experts)}.",
        summary=_summary(),
        plan_toml=to_toml(plan),
        postponed=postponed,
        imports=imports,
        sections=[
            {"heading": f"{_positions(plan, expert.family)}: {expert.family}", "body": expert.body} for expert in unique
        ],
        frame=frame,
    )
    head = ("from __future__ import annotations\n" if postponed else "") + imports
    digests = [*statement_digests(head), *(digest for expert in unique for digest in expert.digests)]
    # Two blank lines stand between the frame's statements, and most statements are the same in every mixture.
    digests += [digest for block in frame.split("\n\n\n") for digest in _digests(block)]
    return source.rstrip("\n") + "\n", combine(digests)


def _frame(plan: Plan, experts: Sequence[Expert], interfaces: Sequence[Interface]) -> str:
    """Write what the plan's kind adds to the experts."""
    if plan.kind not in KINDS:
        raise PlanError(f"no kind of mixture is called {plan.kind!r}: there are {', '.join(KINDS)}")
    gate = plan.gate
    widths = tuple(gate.width * 2**block for block in range(gate.depth))
    text: str = _template(f"mixtures/{plan.kind}.py.j2").render(
        words=_count(plan),
        experts=[
            {"network": expert.network, "prm": _dictionary(expert.hyperparameters), "interface": interface}
            for expert, interface in zip(experts, interfaces, strict=True)
        ],
        gate=_floats(gate, "temperature", "noise"),
        gate_widths=widths,
        log_temperature=math.log(gate.temperature),
        losses=_floats(plan.losses, "label_smoothing", "balance"),
        recipe=_floats(plan.recipe, "gate_rate", "weight_decay", "mixup", "warmup", "clip"),
    )
    return text.strip("\n")


def _floats(part: Any, *names: str) -> Mapping[str, float]:
    return {name: float(getattr(part, name)) for name in names}


@lru_cache(maxsize=256)
def _digests(block: str) -> tuple[str, ...]:
    return statement_digests(block)


@cache
def _template(name: str) -> Any:
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    # What is written is Python, not HTML: nothing to escape.
    return Environment(
        loader=FileSystemLoader(folder("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        autoescape=False,  # noqa: S701
    )


def _summary() -> str:
    return fill(
        "Written by nngen from four model families of LEMUR (nn-dataset). Each expert is a family's own network under "
        "names of its own; a convolutional gate weighs the experts image by image.",
        width=110,
    )


def _dictionary(pairs: Sequence[tuple[str, float | int | str]]) -> str:
    """Write an expert's hyperparameters, indented as the table of experts is."""
    items = [f'"{name}": {value!r}' for name, value in pairs]
    line = "{" + ", ".join(items) + "}"
    if len(line) <= _ROOM:
        return line
    return "{\n" + "".join(f"            {item},\n" for item in items) + "        }"


def _count(plan: Plan) -> str:
    return _WORDS.get(len(plan.experts), str(len(plan.experts)))


def _join(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _positions(plan: Plan, family: str) -> str:
    places = [str(place) for place, name in enumerate(plan.experts, 1) if name == family]
    return f"Expert {places[0]}" if len(places) == 1 else f"Experts {_join(places)}"
