"""Tiny families in LEMUR's contract, each with one construct that is hard to assemble, and golden files of them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import ModuleType

from nngen.assembly.assemble import assemble
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.assembly.plan_toml import preset
from nngen.families.family_function import FamilyFunction, family_function
from nngen.plan import Plan
from nngen.types import Candidate, Family, Interface, Record

FAMILIES = Path(__file__).parent / "families"
TINY = ("TinyConv", "TinyBayes", "TinyComplex", "TinyAux")
INTERFACES = {
    "TinyConv": Interface(low=1),
    "TinyBayes": Interface(low=2, high=12),
    "TinyComplex": Interface(low=8, high=8, square=True, complex=True),
    "TinyAux": Interface(low=16),
}
BEST: Mapping[str, float] = {"lr": 0.05, "momentum": 0.5, "dropout": 0.3, "dropout_aux": 0.25, "batch": 64}


def make_family(name: str, source: str, hyperparameters: Mapping[str, float] | None = None) -> Family:
    """Return a family as ``load_families`` reads it."""
    best = None
    if hyperparameters is not None:
        best = Record(
            model=name, dataset="cifar-10", epoch=1, accuracy=0.5, duration_s=1.0, hyperparameters=hyperparameters
        )
    return Family(name=name, source=source, fingerprint=hashlib.sha256(source.encode()).hexdigest(), best=best)


def as_function(source: str, name: str = "Toy") -> FamilyFunction:
    return family_function(make_family(name, source))


def tiny_families() -> dict[str, Family]:
    return {name: make_family(name, (FAMILIES / f"{name}.py").read_text(), BEST) for name in TINY}


_numbers = count()


def import_source(source: str, folder: Path) -> ModuleType:
    """Import a source as LEMUR does: from a file, under a unique name."""
    name = f"assembled_{next(_numbers)}"
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


GOLDEN = Path(__file__).parents[1] / "golden"
"""Mixtures byte for byte: one of each preset's form."""

KINDS = ("hetero", "homogeneous", "alexnet")
GOLDEN_KINDS = (*KINDS, "single")


def kind_families(plan: Plan) -> list[tuple[Family, Interface]]:
    """Return tiny stand-ins for a plan's families; AlexNet is TinyConv under its name."""
    tiny = tiny_families()
    alexnet = make_family("AlexNet", tiny["TinyConv"].source, BEST)
    found = {
        **{name: (family, INTERFACES[name]) for name, family in tiny.items()},
        "AlexNet": (alexnet, Interface(low=8)),
    }
    return [] if plan.kind == "homogeneous" else [found[name] for name in plan.experts]


def kind_plan(kind: str) -> Plan:
    """Return a plan for each golden file: the default for ``hetero``, the presets for the others."""
    return {
        "hetero": Plan(experts=TINY),
        "homogeneous": preset("moev7"),
        "alexnet": preset("moev9-alexnetv3"),
        "single": Plan(experts=()).alone("TinyAux"),
    }[kind]


def golden_candidate(kind: str = "hetero") -> Candidate:
    plan = kind_plan(kind)
    return assemble(plan, kind_families(plan))


def golden_digest() -> str:
    """Return the SHA-256 of all golden files, which ``versions.json`` records for each version of the templates."""
    return hashlib.sha256(b"".join((GOLDEN / f"{kind}.py").read_bytes() for kind in GOLDEN_KINDS)).hexdigest()


if __name__ == "__main__":  # rewrites the golden files, after a change that was meant
    for name in GOLDEN_KINDS:
        (GOLDEN / f"{name}.py").write_text(golden_candidate(name).source)
    versions = json.loads((GOLDEN / "versions.json").read_text()) | {str(TEMPLATE_VERSION): golden_digest()}
    (GOLDEN / "versions.json").write_text(json.dumps(versions, indent=4) + "\n")
