"""Checks whether a file may join LEMUR's families, and whether a family as an expert is what it is alone."""

from __future__ import annotations

import ast
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nngen.assembly.family_function import family_function
from nngen.assembly.identity import canonical_hash
from nngen.errors import AssemblyError, FamilyError
from nngen.families.catalogue import load_families, read_family
from nngen.families.probe import Profile, profiles
from nngen.lemur.reader import Lemur
from nngen.types import Family, Shape

_METHODS = ("__init__", "forward", "train_setup", "learn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """Result of checking one file.

    Attributes:
        native: Whether it takes the shape asked for without an adapter.
        takes: Images that it takes, in words.
        parameters: Number of trainable parameters at that shape.
        message: Reason why it may not join, or a note although it may.
    """

    path: Path
    name: str
    may_join: bool
    native: bool | None = None
    takes: str | None = None
    parameters: int | None = None
    message: str = ""


def may_join(
    paths: Sequence[Path],
    lemur: Lemur,
    shape: Shape,
    *,
    classes: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Joining, ...]:
    """Check whether each file may be an expert beside LEMUR's families.

    A file must be named and written as a family of LEMUR's, fit into a function, and work when it is built: forward in
    train and eval mode, backward, finite, behind an adapter if need be. It must not be a program that is there already.

    Args:
        paths: Files, each named as its family shall be.
        lemur: LEMUR whose families it joins.
        shape: Shape of the images.
        classes: Number of classes of the data set.
        progress: Called with (files measured, files to measure).

    Raises:
        LemurError: If LEMUR cannot be read.
    """
    there = load_families(lemur)
    known = {canonical_hash(family.source): family.name for family in there.values()}
    refused: dict[Path, str] = {}
    families: dict[Path, Family] = {}
    for path in dict.fromkeys(paths):
        try:
            family = _read(path, there, known)
            if family.name in {other.name for other in families.values()}:
                raise FamilyError(f"{path}: another file names its family {family.name} too")
            families[path] = family
        except (AssemblyError, FamilyError) as error:
            refused[path] = str(error)
    measured = profiles(list(families.values()), shape, classes=classes, progress=progress)
    return tuple(
        Joining(path=path, name=path.stem, may_join=False, message=refused[path])
        if path in refused
        else _measured(path, measured[families[path].name], shape)
        for path in paths
    )


def _read(path: Path, there: Mapping[str, Family], known: dict[str, str]) -> Family:
    """Read a file and make every check that does not run it."""
    family = read_family(path)
    if family.name in there and there[family.name].source != family.source:
        raise FamilyError(f"LEMUR has a family {family.name} already: give the file another name")
    try:
        tree = ast.parse(family.source)
        twin = known.setdefault(canonical_hash(family.source), family.name)
    except (SyntaxError, ValueError) as error:
        raise FamilyError(f"{path} is not Python: {error}") from error
    if twin != family.name:
        raise FamilyError(f"{path} is the same program as {twin}: a mixture gains nothing from it")
    _check_contract(path, tree)
    family_function(family)
    return family


def _check_contract(path: Path, tree: ast.Module) -> None:
    top = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    if not isinstance(top.get("supported_hyperparameters"), ast.FunctionDef):
        raise FamilyError(f"{path} has no function supported_hyperparameters(): LEMUR asks it what to choose")
    net = top.get("Net")
    if not isinstance(net, ast.ClassDef):
        raise FamilyError(f"{path} has no class Net: LEMUR builds it as Net(in_shape, out_shape, prm, device)")
    methods = {node.name: node for node in net.body if isinstance(node, ast.FunctionDef)}
    if missing := [name for name in _METHODS if name not in methods]:
        raise FamilyError(
            f"{path}: line {net.lineno}: Net has no method {missing[0]}: LEMUR calls {', '.join(_METHODS)}"
        )
    arguments = methods["__init__"].args
    count = len(arguments.posonlyargs) + len(arguments.args)
    if count - len(arguments.defaults) > 5 or (count < 5 and arguments.vararg is None):
        line = methods["__init__"].lineno
        raise FamilyError(f"{path}: line {line}: Net must be built by Net(in_shape, out_shape, prm, device)")


def _measured(path: Path, profile: Profile, shape: Shape) -> Joining:
    found = profile.interface if profile.usable else None
    form = "square, " * found.square + "complex, " * found.complex if found else ""
    return Joining(
        path=path,
        name=profile.name,
        may_join=profile.usable,
        native=profile.native(shape) if profile.usable else None,
        takes=form + found.sides if found else None,
        parameters=profile.parameters.get(str(shape)),
        message=profile.reason,
    )


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
    from nngen.checks.candidate_net import load_module  # loads torch

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
        options: Any = (shape, complex_input, classes, seed, function.prm())
        one, other = (_observations(kind, alone, *options) for kind in (alone, expert))
    failed = [f"{name} fails alone: {found}" for name, found in one.items() if isinstance(found, str)]
    return failed + [f"{name} differs" for name, found in one.items() if not _same(found, other[name])]


def _observations(
    kind: Any, trains: Any, shape: Shape, complex_input: bool, classes: int, seed: int, prm: dict[str, Any]
) -> dict[str, object]:
    """Build, run and train a network, and keep what it is and gives under a name each."""
    import torch

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
    import torch
    from torch.utils._pytree import tree_flatten

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
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
