"""Writes a plan and its families' functions as the text of one file."""

from __future__ import annotations

import ast
import builtins
import json
import keyword
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from textwrap import fill
from typing import TYPE_CHECKING

from nngen.assembly.identity import combine, statement_digests
from nngen.assembly.plan_toml import to_toml
from nngen.assembly.registries import GATES, KINDS, LOSSES, Loss, gate_of
from nngen.assembly.template_context import OWN_SETTINGS, SNIPPETS, definitions, number, template_context
from nngen.families.family_function import FamilyFunction, function_name
from nngen.files import package_folder
from nngen.jinja import environment, render_template
from nngen.plan import Plan
from nngen.text import listed
from nngen.types import Interface

if TYPE_CHECKING:
    from jinja2 import Template

_IMPORTS = ("cache", "math", "random", "np", "Any", "NamedTuple", "Optional", "torch", "nn", "F")
"""Names that ``mixture.py.j2`` imports where a file needs them."""

_DEFINES = re.compile(r"^(?:class|def) (\w+)|^([A-Za-z_]\w*) = ", re.MULTILINE)

_ROOM = 106  # characters left of a line in the table of experts, at 120 in all


def reserved_names() -> frozenset[str]:
    """Return every name that the templates and snippets bind at the top of a file, and those of Python itself."""
    return _reserved(tuple(LOSSES.items()))  # anew where a plug-in registered a loss


@lru_cache(maxsize=8)
def _reserved(losses: tuple[tuple[str, Loss], ...]) -> frozenset[str]:
    files = [*package_folder("templates").rglob("*.py.j2"), *(loss.file for _, loss in losses)]
    found = {name for file in files for pair in _DEFINES.findall(file.read_text(encoding="utf-8")) for name in pair}
    found |= {name for file in (*SNIPPETS.glob("*.py"), OWN_SETTINGS) for name in definitions(file)}
    found |= {name.upper() for name, _ in losses} | {"CLIP", "FLOOR", "WARMUP"}
    return frozenset(found | {*_IMPORTS, *keyword.kwlist, *keyword.softkwlist, *dir(builtins)}) - {""}


def render(plan: Plan, functions: Sequence[FamilyFunction], interfaces: Sequence[Interface]) -> tuple[str, str]:
    """Write a mixture.

    Args:
        plan: Plan to write.
        functions: Families in the plan's order, one named twice twice; none where the kind brings its own experts.
        interfaces: Inputs that each accepts, in the same order.

    Returns:
        The source and its canonical hash.
    """
    unique = list({function.family: function for function in functions}.values())
    names = _function_names(unique)
    texts = [function.text(names[function.family]) for function in unique]
    frame = _frame(plan, functions, interfaces, names)
    # Two blank lines stand between the frame's statements, and most statements are the same in every mixture.
    blocks = [read_block(block) for block in frame.split("\n\n\n")]
    used = frozenset({"cache"} if unique else ()).union(*(block.names for block in blocks))
    imports = render_template("imports.py.j2", used=used).strip("\n")  # each family imports for itself
    source = render_template(
        "mixture.py.j2",
        title=_title(plan),
        summary=_summary(plan),
        plan_toml=to_toml(plan),
        imports=imports,
        sections=[
            {
                "heading": f"{_positions(plan, function.family)}: {function.family}",
                "fingerprint": function.fingerprint,
                "text": text,
            }
            for function, text in zip(unique, texts, strict=True)
        ],
        heading="The mixture" if KINDS[plan.kind].gate else "The network",
        frame=frame,
    )
    digests = (digest for text in (imports, *texts) for digest in read_block(text).digests)
    return source.rstrip("\n") + "\n", combine([*digests, *(item for block in blocks for item in block.digests)])


def _function_names(functions: Iterable[FamilyFunction]) -> Mapping[str, str]:
    """Give each family's function a name of its own in the file."""
    names: dict[str, str] = {}
    for function in functions:
        wanted = name = function_name(function.family)
        count = 2
        while name in reserved_names() or name in names.values():
            name, count = f"{wanted}_{count}", count + 1
        names[function.family] = name
    return names


def _frame(
    plan: Plan, functions: Sequence[FamilyFunction], interfaces: Sequence[Interface], names: Mapping[str, str]
) -> str:
    """Write what the plan's kind adds to the experts."""
    table = [
        {"function": names[function.family], "prm": _dictionary(function.hyperparameters), "interface": interface}
        for function, interface in zip(functions, interfaces, strict=True)
    ]
    gate = gate_of(plan)
    text = render_template(
        f"mixtures/{KINDS[plan.kind].template}.py.j2",
        experts=table,
        gate_template=_template_of(GATES[gate].text(gate) if gate else ""),
        own_settings=any(interface.own_settings for interface in interfaces),
        **template_context(plan),
    )
    # Parts that a plan leaves out leave their blank lines behind.
    while "\n\n\n\n" in text:
        text = text.replace("\n\n\n\n", "\n\n\n")
    return text.strip("\n")


@dataclass(frozen=True, slots=True)
class _Block:
    """A piece of a file, read once: its statements' digests, and every name it reads."""

    digests: tuple[str, ...]
    names: frozenset[str]


@lru_cache(maxsize=1024)
def read_block(block: str) -> _Block:
    """Parse a block of the frame; kept, because all files share most of their blocks."""
    names = frozenset(node.id for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Name))
    return _Block(statement_digests(block), names)


@lru_cache(maxsize=64)
def _template_of(text: str) -> Template:
    return environment().from_string(text)


def _title(plan: Plan) -> str:
    if not KINDS[plan.kind].gate:
        return f"{plan.experts[0]} alone, trained with the recipe of mixtures."
    if not KINDS[plan.kind].families:
        return f"Mixture of {number(len(plan.experts))} equal experts over one trunk."
    often = Counter(plan.experts)
    names = [name if often[name] == 1 else f"{name} {number(often[name])} times" for name in often]
    return f"Mixture of {number(len(plan.experts))} experts: {listed(names)}."


def _summary(plan: Plan) -> str:
    families = len(set(plan.experts))
    source = f"{number(families)} model {'family' if families == 1 else 'families'} of LEMUR (nn-dataset)"
    gate = gate_of(plan)
    if not gate:
        text = f"Written by nngen from {source}, whose source stands unchanged inside a function. It has no gate."
        return fill(text, width=110)
    text = (
        f"Written by nngen from {source}. Each expert is a family's own network: its source stands unchanged "
        f"inside a function. A gate ({GATES[gate].meaning}) weighs the experts image by image."
    )
    if plan.recipe.frozen:
        text += " The experts stay as they were trained alone, so the file needs the weights that come with it."
    if not KINDS[plan.kind].families:
        text = (
            "Written by nngen. Each expert is three linear layers with weights of its own; all see the features of "
            "one trunk of convolutions, and so does the gate that weighs them image by image."
        )
    return fill(text, width=110)


def _dictionary(pairs: Sequence[tuple[str, float | int | str]]) -> str:
    """Write an expert's hyperparameters, indented as the table of experts is."""
    items = [f"{json.dumps(name)}: {value!r}" for name, value in pairs]
    line = "{" + ", ".join(items) + "}"
    if len(line) <= _ROOM:
        return line
    return "{\n" + "".join(f"            {item},\n" for item in items) + "        }"


def _positions(plan: Plan, family: str) -> str:
    places = [str(place) for place, name in enumerate(plan.experts, 1) if name == family]
    return f"Expert {places[0]}" if len(places) == 1 else f"Experts {listed(places)}"
