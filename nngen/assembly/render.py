"""Joins experts and templates into the text of one file."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from textwrap import fill
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nngen.assembly.expert import Expert
from nngen.assembly.identity import combine, statement_digests
from nngen.assembly.imports import Import, write_imports
from nngen.assembly.plan_toml import to_toml
from nngen.assembly.plan_validation import KINDS
from nngen.assembly.template_context import frame_values, number
from nngen.files import package_folder as folder
from nngen.plan import Plan
from nngen.types import Interface

__all__ = ["RESERVED", "render"]

RESERVED = frozenset(
    {
        "Adapter", "Average", "BALANCE", "BIAS", "CLIP", "DIVERSITY", "ENTROPY", "EXPERTS", "ExpertSpec", "FLOOR",
        "Gate", "LOAD", "Net", "Routing", "SWITCH", "Trunk", "WARMUP", "Z", "build_expert", "build_optimizer", "choose",
        "class_logits", "consult", "count_steps", "cutmix", "describe", "diversity_loss", "entropy_loss",
        "importance_loss", "load_loss", "mixup", "observe", "set_rates", "shift_bias", "soft_targets",
        "supported_hyperparameters", "switch_loss", "z_loss",
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
"""What the templates themselves may need; a file gets those that it names."""

_STATEMENT = re.compile(r"\n+(?=from |import )")
"""Where one import ends and the next begins."""

_ROOM = 106
"""Characters left of a line in the table of experts, at 120 in all."""


def render(plan: Plan, experts: Sequence[Expert], interfaces: Sequence[Interface]) -> tuple[str, str]:
    """Write a mixture.

    Args:
        plan: What to write.
        experts: In the plan's order, none where the kind brings its own; no name may be bound by two different ones.
        interfaces: What each accepts, in the same order.

    Returns:
        The source and its canonical hash.
    """
    unique = list(dict.fromkeys(experts))
    postponed = any(expert.postponed for expert in unique)
    frame = _frame(plan, experts, interfaces)
    # Two blank lines stand between the frame's statements, and most statements are the same in every mixture.
    blocks = [_read(block) for block in frame.split("\n\n\n")]
    named = frozenset().union(*(block.names for block in blocks))
    needed = [item for item in _IMPORTS if item.bound in named]
    imports = write_imports([*needed, *(item for expert in unique for item in expert.imports)])
    source = _template("mixture.py.j2").render(
        title=_title(plan),
        summary=_summary(plan),
        plan_toml=to_toml(plan),
        postponed=postponed,
        imports=imports,
        sections=[
            {"heading": f"{_positions(plan, expert.family)}: {expert.family}", "body": expert.body} for expert in unique
        ],
        frame=frame,
    )
    head = ("from __future__ import annotations\n" if postponed else "") + imports
    lines = (digest for line in _STATEMENT.split(head) for digest in _line_digests(line))
    digests = [*lines, *(digest for expert in unique for digest in expert.digests)]
    digests += [digest for block in blocks for digest in block.digests]
    return source.rstrip("\n") + "\n", combine(digests)


def _frame(plan: Plan, experts: Sequence[Expert], interfaces: Sequence[Interface]) -> str:
    """Write what the plan's kind adds to the experts."""
    table = [
        {"network": expert.network, "prm": _dictionary(expert.hyperparameters), "interface": interface}
        for expert, interface in zip(experts, interfaces, strict=True)
    ]
    template = _template(f"mixtures/{KINDS[plan.kind].template}.py.j2")
    text: str = template.render(experts=table, **frame_values(plan))
    # Parts that a plan leaves out leave their blank lines behind.
    while "\n\n\n\n" in text:
        text = text.replace("\n\n\n\n", "\n\n\n")
    return text.strip("\n")


@dataclass(frozen=True, slots=True)
class _Block:
    """A piece of the frame, read once: its statements' digests, and every name it reads."""

    digests: tuple[str, ...]
    names: frozenset[str]


@lru_cache(maxsize=512)
def _read(block: str) -> _Block:
    names = frozenset(node.id for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Name))
    return _Block(statement_digests(block), names)


@lru_cache(maxsize=4096)
def _line_digests(line: str) -> tuple[str, ...]:
    """Digests of an import statement; most lines stand in many mixtures."""
    return statement_digests(line)


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


def _title(plan: Plan) -> str:
    if not KINDS[plan.kind].families:
        return f"Mixture of {_count(plan)} equal experts over one trunk."
    often = Counter(plan.experts)
    names = [name if often[name] == 1 else f"{name} {number(often[name])} times" for name in often]
    return f"Mixture of {_count(plan)} experts: {_join(names)}."


def _summary(plan: Plan) -> str:
    families = len(set(plan.experts))
    source = f"{number(families)} model {'family' if families == 1 else 'families'} of LEMUR (nn-dataset)"
    text = (
        f"Written by nngen from {source}. Each expert is a family's own network under "
        "names of its own; a convolutional gate weighs the experts image by image."
    )
    if not KINDS[plan.kind].families:
        text = (
            "Written by nngen. Each expert is three linear layers with weights of its own; all see the features of "
            "one trunk of convolutions, and so does the gate that weighs them image by image."
        )
    return fill(text, width=110)


def _dictionary(pairs: Sequence[tuple[str, float | int | str]]) -> str:
    """Write an expert's hyperparameters, indented as the table of experts is."""
    items = [f'"{name}": {value!r}' for name, value in pairs]
    line = "{" + ", ".join(items) + "}"
    if len(line) <= _ROOM:
        return line
    return "{\n" + "".join(f"            {item},\n" for item in items) + "        }"


def _count(plan: Plan) -> str:
    return number(len(plan.experts))


def _join(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _positions(plan: Plan, family: str) -> str:
    places = [str(place) for place, name in enumerate(plan.experts, 1) if name == family]
    return f"Expert {places[0]}" if len(places) == 1 else f"Experts {_join(places)}"
