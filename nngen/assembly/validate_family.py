"""May a file join LEMUR's families? The same questions that LEMUR's own 34 had to answer."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nngen.assembly.assemble import Assembler
from nngen.assembly.identity import canonical_hash
from nngen.errors import AssemblyError, FamilyError
from nngen.families.catalogue import load_families, read_family
from nngen.families.probe import Profile, profiles
from nngen.lemur.source import Lemur
from nngen.types import Family, Shape

__all__ = ["Joining", "may_join"]

_METHODS = ("__init__", "forward", "train_setup", "learn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """What was found out about one file.

    Attributes:
        native: Whether it takes the shape asked for with no adapter.
        takes: The images it takes, in words.
        parameters: Trainable ones at that shape.
        message: Why it may not join; or what to know although it may.
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
    """Find out of each file whether it may be an expert beside LEMUR's families.

    It must be named and written as a family of LEMUR's, become an expert with names of its own, and
    work when it is built: forward in train and eval mode, backward, finite, behind an adapter if need be. It
    must not be a program that is there already.

    Args:
        paths: Files named as the families shall be.
        lemur: Whose families it joins.
        shape: Of the images.
        classes: Of the data set.
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
    """Read a file and ask all that can be asked without running it."""
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
    Assembler().expert(family)
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
    return Joining(
        path=path,
        name=profile.name,
        may_join=profile.usable,
        native=profile.native(shape) if profile.usable else None,
        takes=_takes(profile) if profile.usable else None,
        parameters=profile.parameters.get(str(shape)),
        message=profile.reason,
    )


def _takes(profile: Profile) -> str | None:
    found = profile.interface
    if found is None:
        return None
    sides = f"{found.low} px and more" if found.high is None else f"{found.low} to {found.high} px"
    return ("square, " if found.square else "") + ("complex, " if found.complex else "") + sides
