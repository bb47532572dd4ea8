"""Comparison of a family as an expert with the same family alone, bit for bit."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten

from nngen.assembly.family_function import family_function
from nngen.checks.candidate_net import load_module
from nngen.types import Family, Shape


def compare(
    family: Family, shape: Shape, *, complex_input: bool = False, classes: int = 10, seed: int = 0
) -> list[str]:
    """List the differences between a family alone and the same family as an expert; none where they are equal.

    Both are built, run and trained for one epoch with the same seeds, on two batches of random images. Compared, bit
    for bit, are the names, shapes and values of parameters and buffers, ``requires_grad``, the outputs in evaluation
    and training, and all values after ``learn``. What fails must fail with the same message. The family's code runs
    in this process.

    Args:
        family: Its source is run twice: as a module of its own, and as the function that mixtures hold.
        shape: Shape of an image that the family takes without an adapter.
        complex_input: Whether images are complex numbers.
        classes: Number of classes of the data set.
        seed: Seed of every draw.

    Raises:
        AssemblyError: If the family cannot become an expert.
    """
    function = family_function(family)
    sources = {"alone": family.source, "expert": f"from functools import cache\n\n\n{function.text('family')}"}
    with tempfile.TemporaryDirectory() as folder:
        modules = {}
        for name, source in sources.items():
            file = Path(folder) / f"family_{name}.py"  # torch.jit and inspect read the source there
            file.write_text(source, encoding="utf-8")
            _seed(seed)
            modules[name] = load_module(file, file.stem)
        alone, expert = modules["alone"].Net, modules["expert"].family()
        # The function may leave the methods out that train; those of the family alone train both.
        options: Any = (shape, complex_input, classes, seed, dict(function.hyperparameters))
        one, other = (_observations(kind, alone, *options) for kind in (alone, expert))
    failed = [f"{name} fails alone: {found}" for name, found in one.items() if isinstance(found, str)]
    return failed + [f"{name} differs" for name, found in one.items() if not _same(found, other[name])]


def _observations(
    kind: Any, trains: Any, shape: Shape, complex_input: bool, classes: int, seed: int, prm: dict[str, Any]
) -> dict[str, object]:
    """Build, run and train a network, and keep what it is and gives under a name each."""
    generator = torch.Generator().manual_seed(seed)
    size = (4, shape.channels, shape.height, shape.width)
    batches = [
        (torch.rand(size, generator=generator), torch.randint(classes, (4,), generator=generator)) for _ in range(2)
    ]
    if complex_input:
        batches = [(images.to(torch.complex64), labels) for images, labels in batches]
    prm = {**prm, "batch": 4, "epoch": 1, "transform": "norm_32"}  # as LEMUR passes them
    found: dict[str, object] = {}
    net: Any = None

    def attempt(name: str, step: Callable[[], object]) -> None:
        _seed(seed)
        try:
            found[name] = step()
        except Exception as error:  # whatever a family's code raises must be the same in both
            found[name] = f"{type(error).__name__}: {error}"

    def build() -> None:
        nonlocal net
        net = kind(size, (classes,), dict(prm), torch.device("cpu"))

    def state() -> dict[str, object]:
        pairs = [*net.named_parameters(), *net.named_buffers()]
        values = {name: value.detach().clone() for name, value in pairs if not torch.nn.parameter.is_lazy(value)}
        return {name: (value.requires_grad, values.get(name)) for name, value in pairs}

    def learn() -> None:
        trains.train_setup(net, dict(prm))
        trains.learn(net, batches)

    attempt("building", build)
    attempt("the first state", state)
    with torch.no_grad():
        attempt("the output in evaluation", lambda: net.eval()(batches[0][0]))
        attempt("the output in training", lambda: net.train()(batches[0][0]))
    attempt("learn", learn)
    attempt("the state after learn", state)
    return found


def _same(one: object, other: object) -> bool:
    """Whether two observations are equal to the last bit; NaN equals NaN."""
    left, right = tree_flatten(one)[0], tree_flatten(other)[0]
    if len(left) != len(right):
        return False
    for a, b in zip(left, right, strict=True):
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            if a.dtype != b.dtype or a.shape != b.shape or not bool(((a == b) | ((a != a) & (b != b))).all()):
                return False
        elif type(a) is not type(b) or a != b:
            return False
    return True


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
