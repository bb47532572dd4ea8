"""Does each preset learn? Every kind of mixture on ``digits``, three seeds, in minutes.

    python eval/kinds_learn.py                       # all three, about ten minutes on two cores
    python eval/kinds_learn.py --presets moev7 --seeds 1

Prints validation accuracy, the accuracy of each expert alone on the same images, and how many experts the gate uses in
effect (the exponential of the entropy of its mean weights). Leaves with 1 unless every run is above 0.95.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nngen.assembly.assemble import Assembler
from nngen.assembly.presets import preset, preset_names
from nngen.checks.importing import load_module
from nngen.cli.output import print_table
from nngen.execution.batches import Batches, Preparation
from nngen.execution.data import Dataset, load_dataset
from nngen.lemur.families import load_families
from nngen.lemur.probe import profiles
from nngen.lemur.source import open_lemur
from nngen.seeds import derive
from nngen.types import Candidate, Shape

WANTED = 0.95


@dataclass(frozen=True)
class Budget:
    """How a preset is trained here; the plan says all else."""

    shape: Shape
    epochs: int
    lr: float
    batch: int = 32


BUDGETS = {
    "moev7": Budget(shape=Shape(1, 16, 16), epochs=10, lr=3e-3),
    "moev9-alexnetv3": Budget(shape=Shape(1, 16, 16), epochs=6, lr=3e-4),
    "moe-hetero4": Budget(shape=Shape(1, 16, 16), epochs=3, lr=1e-3),
}


def main() -> int:
    """Train what was asked for and print a table; 1 if any run stays at or below 0.95."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    data = load_dataset("digits")
    began = time.perf_counter()
    rows = []
    for name in arguments.presets:
        candidate = assemble(name)
        for seed in range(arguments.seeds):
            rows.append(run(name, candidate, data, seed))
            print(json.dumps(rows[-1]), file=sys.stderr)
    seconds = time.perf_counter() - began
    columns = (
        "preset",
        "seed",
        "accuracy",
        "experts_alone",
        "experts_in_effect",
        "usage_entropy",
        "seconds",
        "cpu_seconds",
    )
    print_table(rows, columns)
    print(f"{len(rows)} runs in {seconds:.0f} s on {arguments.threads} threads, torch {torch.__version__}")
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"seconds": seconds, "runs": rows}, indent=2) + "\n")
    return 0 if all(row["accuracy"] > WANTED for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=list(BUDGETS), choices=preset_names())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", help="write the rows as JSON")
    return parser.parse_args()


def assemble(name: str) -> Candidate:
    """Assemble a preset, with LEMUR's own families where it names any."""
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
        began, busy = time.perf_counter(), time.process_time()
        torch.manual_seed(derive(seed, "kinds", name))
        size = (budget.shape.channels, budget.shape.height, budget.shape.width)
        net = module.Net(
            (budget.batch, *size), (data.classes,), {"lr": budget.lr, "momentum": 0.9}, torch.device("cpu")
        )
        net.train_setup({"lr": budget.lr, "momentum": 0.9, "batch": budget.batch, "epoch": budget.epochs})
        prepare = Preparation(shape=budget.shape, mean=data.mean, std=data.std)
        images, labels = torch.tensor(data.train_images), torch.tensor(data.train_labels)
        for epoch in range(budget.epochs):
            net.learn(Batches(images, labels, prepare, batch=budget.batch, seed=derive(seed, "order", epoch)))
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
            "cpu_seconds": round(time.process_time() - busy, 1),
        }


@torch.no_grad()
def score(net: Any, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """Accuracy of the mixture and of each expert asked about every image, and how the gate spreads its weight."""
    net.eval()
    hits, alone, weights = 0, torch.zeros(len(net.experts)), torch.zeros(len(net.experts))
    for x, y in zip(images.split(128), labels.split(128), strict=True):
        mixed, decision, each = net.blend(x)
        hits += int((mixed.argmax(dim=1) == y).sum())
        part = getattr(decision, "weights", decision)
        weights += part.sum(dim=0)
        if bool((part == 0).any()):  # experts that were not asked have no logits there: ask them all
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
    """One expert's logits, ``(B, C)``, whatever the gate thinks."""
    logits: torch.Tensor
    if hasattr(net, "trunk"):
        logits = net.experts[place](net.trunk(x))
        return logits
    module = sys.modules[type(net).__module__]
    logits = module.consult(net.experts[place], net.adapters[place], x)
    return logits


if __name__ == "__main__":
    sys.exit(main())
