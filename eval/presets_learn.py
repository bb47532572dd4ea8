"""Training of each preset on ``digits``: three seeds, within ten minutes on two cores.

    python eval/presets_learn.py                       # all three presets
    python eval/presets_learn.py --presets moev7 --seeds 1
    python eval/presets_learn.py --write               # write the table to eval/results/presets_learn.md

Prints validation accuracy, the accuracy of each expert alone on the same images, and the effective number of experts
(the exponential of the entropy of the gate's mean weights). Each preset is trained by its plan, with the sizes, epochs
and rates of ``BUDGETS``. AdamW uses PyTorch's fused kernel, which gives the same result: four AlexNets have 228 million
weights, and the unfused loop took more than half of the time. For the same reason they are trained under bfloat16
autocast, and the C library keeps freed memory (``MALLOC``). Exit code 1 unless every accuracy is above 0.95 and, with
all presets and seeds, all runs together took at most ten minutes.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _page import Evaluation, note, table

from nngen.assembly.assemble import Assembler
from nngen.assembly.plan_toml import preset
from nngen.checks.candidate_net import load_module
from nngen.datasets import Dataset, load_dataset
from nngen.datasets.batches import Batches, Preparation
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.lemur.source import open_lemur
from nngen.seeds import derive
from nngen.types import Candidate, Shape

WANTED = 0.95
# Otherwise glibc returns the gradients, 900 MB, to the kernel after each step and gets them back page by page.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "1000000000"}


@dataclass(frozen=True)
class Budget:
    """Training settings of a preset beside its plan."""

    shape: Shape
    epochs: int
    lr: float
    batch: int = 32
    momentum: float = 0.9
    bfloat16: bool = False


BUDGETS = {
    "moev7": Budget(shape=Shape(1, 16, 16), epochs=10, lr=3e-3),
    "moe-hetero4": Budget(shape=Shape(1, 8, 8), epochs=2, lr=1e-3, batch=64),
    "moev9-alexnetv3": Budget(shape=Shape(1, 8, 8), epochs=13, lr=3e-4, batch=64, bfloat16=True),
}
LIMIT_S = 600
COLUMNS = (
    "preset",
    "seed",
    "accuracy",
    "experts_alone",
    "experts_in_effect",
    "usage_entropy",
    "seconds",
)
EVALUATION = Evaluation(__file__, __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Train the requested presets and print a table; return 1 if an accuracy is at most 0.95."""
    presets = {"nargs": "+", "default": list(BUDGETS), "choices": list(BUDGETS)}
    asked = EVALUATION.arguments(argv, presets=presets, seeds=3, threads=2)
    torch.set_num_threads(asked.threads)
    data = load_dataset("digits")
    began = time.perf_counter()
    rows = []
    for name in asked.presets:
        candidate = assemble(name)
        for seed in range(asked.seeds):
            rows.append(run(name, candidate, data, seed))
            note(json.dumps(rows[-1]))
    seconds = time.perf_counter() - began
    found = f"{len(rows)} runs in {seconds:.0f} s on {asked.threads} threads, torch {torch.__version__}."
    good = all(row["accuracy"] > WANTED for row in rows) and seconds <= LIMIT_S
    return EVALUATION.finish(page(rows, found), good=good)


def page(rows: Sequence[dict[str, Any]], found: str) -> str:
    """Return the table as Markdown."""
    budgets = [
        f"- {name}: {BUDGETS[name].shape}, {BUDGETS[name].epochs} epochs, batch {BUDGETS[name].batch}, "
        f"lr {BUDGETS[name].lr:g}, momentum {BUDGETS[name].momentum:g}"
        f"{', bfloat16 autocast' if BUDGETS[name].bfloat16 else ''}"
        for name in dict.fromkeys(row["preset"] for row in rows)
    ]
    about = f"""`digits`, accuracy on the validation split. {found}
Above 0.95 is wanted of every run, and ten minutes in all."""
    columns = """`experts_alone`: each expert's own accuracy on all of these images, in the plan's order.
`experts_in_effect`: the exponential of `usage_entropy`, which is that of the gate's mean weights, in nats."""
    cells = [[_cell(row[column]) for column in COLUMNS] for row in rows]
    return EVALUATION.page("Does each preset learn?", about, budgets, columns, table(COLUMNS, cells))


def _cell(value: object) -> str:
    return ", ".join(f"{share:.3f}" for share in value) if isinstance(value, list) else str(value)


def assemble(name: str) -> Candidate:
    """Assemble a preset, with LEMUR's families if it names any."""
    plan, assembler = preset(name), Assembler()
    if plan.kind == "homogeneous":
        return assembler.assemble(plan, [])
    families = load_families(open_lemur())
    measured = profiles([families[name] for name in dict.fromkeys(plan.experts)], BUDGETS[name].shape)
    experts = []
    for family in plan.experts:
        interface = measured[family].interface
        assert interface is not None, measured[family].reason
        experts.append((families[family], interface))
    return assembler.assemble(plan, experts)


def run(name: str, candidate: Candidate, data: Dataset, seed: int) -> dict[str, Any]:
    """Train once with the file's own ``learn``; score mixture and experts on the validation split."""
    budget = BUDGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{candidate.id}.py"
        path.write_text(candidate.source)
        module: Any = load_module(path)
        began = time.perf_counter()
        torch.manual_seed(derive(seed, "kinds", name))
        size = (budget.shape.channels, budget.shape.height, budget.shape.width)
        net = module.Net(
            (budget.batch, *size), (data.classes,), {"lr": budget.lr, "momentum": budget.momentum}, torch.device("cpu")
        )
        net.train_setup({"lr": budget.lr, "momentum": budget.momentum, "batch": budget.batch, "epoch": budget.epochs})
        for group in net.optimizer.param_groups:
            group["fused"] = True
        prepare = Preparation(shape=budget.shape, mean=data.mean, std=data.std)
        images, labels = torch.tensor(data.train_images), torch.tensor(data.train_labels)
        for epoch in range(budget.epochs):
            batches = Batches(images, labels, prepare, batch=budget.batch, seed=derive(seed, "order", epoch))
            with torch.autocast("cpu", torch.bfloat16, enabled=budget.bfloat16, cache_enabled=False):
                share, loss = net.learn(batches)
            past = time.perf_counter() - began
            note(f"{name}: epoch {epoch + 1}, {past:.0f} s, training {share:.3f}, {loss:.3f}")
        return {
            "preset": name,
            "seed": seed,
            **score(net, prepare(torch.tensor(data.validation_images)), torch.tensor(data.validation_labels)),
            "usage": [round(share, 4) for share in net.history[-1]["usage"]],
            "specialisation": round(net.history[-1]["specialisation"], 4),
            "shape": str(budget.shape),
            "epochs": budget.epochs,
            "lr": budget.lr,
            "seconds": round(time.perf_counter() - began, 1),
        }


@torch.no_grad()
def score(net: Any, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Return the accuracies of the mixture and of each expert on all images, and the effective number of experts."""
    net.eval()
    hits, alone, weights = 0, torch.zeros(len(net.experts)), torch.zeros(len(net.experts))
    for x, y in zip(images.split(128), labels.split(128), strict=True):
        mixed, decision, each = net.blend(x)
        hits += int((mixed.argmax(dim=1) == y).sum())
        part = getattr(decision, "weights", decision)
        weights += part.sum(dim=0)
        if bool((part == 0).any()):  # experts that were not chosen have no logits: run all of them
            each = torch.stack([ask(net, place, x) for place in range(len(net.experts))], dim=1)
        alone += (each.argmax(dim=2) == y[:, None]).float().sum(dim=0)
    usage = weights / weights.sum()
    entropy = float(torch.special.entr(usage).sum())
    return {
        "accuracy": round(hits / len(labels), 4),
        "experts_alone": [round(share, 4) for share in (alone / len(labels)).tolist()],
        "usage_entropy": round(entropy, 4),
        "experts_in_effect": round(math.exp(entropy), 2),
    }


def ask(net: Any, place: int, x: torch.Tensor) -> torch.Tensor:
    """Return one expert's logits, ``(B, C)``, independent of the gate."""
    logits: torch.Tensor
    if hasattr(net, "trunk"):
        logits = net.experts[place](net.trunk(x))
        return logits
    module = sys.modules[type(net).__module__]
    logits = module.expert_logits(net.experts[place], net.adapters[place], x)
    return logits


if __name__ == "__main__":
    if not MALLOC.items() <= os.environ.items():  # read once, when a process begins
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    sys.exit(main())
