"""Command-line options that several commands share, as documented dataclasses.

Each field is at once a flag, its help text (the sentence under ``Attributes:``), a TOML key and a Python argument;
cyclopts flattens them into a command's own options. One spelling per thing: ``--out`` is what is written,
``--time-limit`` is in seconds, ``--memory-mib`` in MiB, and lists are written ``A,B,C`` or by repeating the flag.
A campaign is the positional argument CAMPAIGN wherever a command reads one: required where it needs exactly one,
optional where it otherwise reads the whole archive.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

from cyclopts import Parameter, Token
from docstring_parser import parse

from nngen.archive.connection import default_path
from nngen.archive.store import Archive
from nngen.assembly.plan_toml import find_plan
from nngen.assembly.plan_validation import check_drawn
from nngen.cli.errors import AFTERWARDS, place_of
from nngen.cli.output import Flag as Flag
from nngen.cli.output import OutputOptions as OutputOptions
from nngen.cli.output import detail
from nngen.datasets.registry import dataset_help, dataset_name
from nngen.errors import UsageError
from nngen.families.trust import check_level
from nngen.plan import Plan
from nngen.ranges import Classes, Epochs, MiB, Positive, Range, Seconds, Share, Threads, flag_of, range_of
from nngen.space import sampler_help
from nngen.text import split_names
from nngen.types import Hyperparameters, Shape


# Converters get all tokens of an option: cyclopts alone would split neither "A,B" nor a TOML list of "A, B".
def _names(_: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    # No name of a family, a region or a task has a space in it: "A B C" in quotes is meant as A,B,C.
    names = tuple(name for token in tokens for name in split_names(",".join(token.value.split())))
    if not names:
        raise UsageError(f"{_typed(tokens)} names nothing: write names separated by commas")
    return names


def _numbers(_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    parts = tuple(part for token in tokens for part in split_names(token.value))
    if not parts or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise UsageError(f"{_typed(tokens)} takes whole numbers separated by commas, not {','.join(parts)!r}")
    numbers = tuple(int(part) for part in parts)
    limits = range_of(Epochs)
    if limits is not None and (reason := next(filter(None, map(limits.refusal, numbers)), "")):
        raise UsageError(f"{_typed(tokens)} {reason}")
    return numbers


def _data_name(_: Any, tokens: Sequence[Token]) -> str:
    try:
        return dataset_name(tokens[0].value)
    except UsageError:  # an archive, and LEMUR, have data sets that nngen cannot load
        return tokens[0].value


def _plan(_: Any, tokens: Sequence[Token]) -> Plan:
    # Its experts have no effect, so that two files that differ in them are one plan.
    plan = replace(find_plan(tokens[0].value), experts=())
    check_drawn(plan)
    return plan


def _shape(_: Any, tokens: Sequence[Token]) -> Shape:
    shape = Shape.parse(tokens[0].value)
    shape.check_images()
    return shape


def _typed(tokens: Sequence[Token]) -> str:
    """Return the flag that tokens were typed under, or the TOML file and its key."""
    return "".join(place_of(tokens[0])) if tokens else ""


# n_tokens=1: each flag takes one value; without it cyclopts takes all words that follow for a tuple.
_NAMES = Parameter(converter=_names, negative="", n_tokens=1, allow_repeating=True, metavar="A,B,...")
_NUMBERS = Parameter(converter=_numbers, negative="", n_tokens=1, metavar="N,N,...")
# accepts_keys=False: no --shape.channels, though a shape is a dataclass.
SHAPE = Parameter(converter=_shape, n_tokens=1, accepts_keys=False, metavar="CxHxW")

PLAN = Parameter(converter=_plan, n_tokens=1, accepts_keys=False, metavar="FILE|PRESET")


# ``check_values`` and ``parsing_message`` of nngen.cli.errors refuse what is out of the range of a parameter.
def _within(low: float, high: float = math.inf, **more: bool) -> Parameter:
    return Parameter(validator=Range(low=low, high=high, **more))


Count = Annotated[int, _within(1, 10**9, whole=True)]
Index = Annotated[int, _within(0, 10**9, whole=True)]
PoolSize = Annotated[int, _within(4, 10_000, whole=True)]
"""Number of families in a pool, with the four of one mixture at least."""
PositiveOption = Annotated[float, Parameter(validator=range_of(Positive))]
Fraction = Annotated[float, _within(0, 1, above=True, below=True)]
Port = Annotated[int, _within(0, 65_535, whole=True)]
Price = Annotated[float, _within(0)]
ClassesOption = Annotated[int, Parameter(validator=range_of(Classes))]
ThreadsOption = Annotated[int, Parameter(validator=range_of(Threads))]
SecondsOption = Annotated[float, Parameter(validator=range_of(Seconds))]
MemoryOption = Annotated[int, Parameter(validator=range_of(MiB))]
TemperatureOption = Annotated[float, _within(0, 100)]
ShareOption = Annotated[float, Parameter(validator=range_of(Share))]
DataName = Annotated[str, Parameter(converter=_data_name, n_tokens=1)]
"""Name of a data set in an archive or in LEMUR, in any spelling."""
Names = Annotated[tuple[str, ...] | None, _NAMES]
"""Names separated by commas; None where nothing was typed."""
_SHAPE_HELP = "Channels, height and width of the images; 3x32x32 by default."
ShapeOption = Annotated[Shape, SHAPE, Parameter(show_default=False, help=_SHAPE_HELP)]
IsolationOption = Annotated[
    str,
    Parameter(
        validator=lambda _, level: check_level(level),
        help="Isolation level of code: ``sandbox`` (bubblewrap: no network, no files, no rights), ``process`` (own "
        "process, limits), ``none`` (time and memory alone), or ``auto``: process for what is assembled here, byte "
        "for byte, from families of the pinned LEMUR wheel, sandbox for everything else.",
    ),
]
"""Isolation level of a run; it is not stored, so that a campaign that is resumed chooses anew."""
CampaignName = Annotated[str, Parameter(help="Name of the campaign.")]
"""The one campaign that a command reads or controls."""
Assignments = Annotated[tuple[str, ...], Parameter(name="--prm", negative="", show_default=False, metavar="NAME=VALUE")]
"""Hyperparameters, one per flag; ``hyperparameters`` reads them."""


def hyperparameters(texts: Sequence[str]) -> Hyperparameters:
    """Read hyperparameters written as NAME=VALUE; a value that looks like a number is one.

    Raises:
        UsageError: If a text is not NAME=VALUE.
    """
    values: dict[str, float | int | str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name.isidentifier() and sign and value):
            raise UsageError(f"{text!r} is not NAME=VALUE: write --prm dropout=0.2")
        values[name] = _number(value)
    return values


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if not abs(number) < 2**63:  # nor is "nan"
            raise UsageError(f"--prm takes numbers below 2**63, not {text!r}")
        return number
    return text


@Parameter(name="*", group="Output")
@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOptions(OutputOptions):
    """The archive that is read or written, and the form of the output.

    Attributes:
        archive: SQLite file of the archive; by default NNGEN_ARCHIVE, else ./nngen.db.
    """

    archive: Path | None = None

    @property
    def path(self) -> Path:
        """Path of the archive, which may not exist yet."""
        return self.archive or default_path()

    @property
    def place(self) -> tuple[str, ...]:
        """Arguments with which another command finds the same archive."""
        return () if self.archive is None else ("--archive", str(self.archive))

    def open(self, *, create: bool = True) -> Archive:
        """Open the archive for writing."""
        detail(f"archive {self.path.absolute()}")
        return Archive.open(self.path, create=create)

    def peek(self) -> Archive:
        """Open the archive read-only, or an empty one in memory where there is none yet."""
        return self.read() if self.path.exists() else Archive.in_memory()

    def read(self) -> Archive:
        """Open the archive read-only; it has to exist."""
        detail(f"archive {self.path.absolute()}, read only")
        archive = Archive.open(self.path, readonly=True)
        AFTERWARDS.append(lambda: archive.damage)
        return archive


_FROM_REGISTRIES = {
    "dataset": f"Name of the data set: {dataset_help()}.",
    "sampler": f"Order of the quartets. {sampler_help()}.",
}
"""Help made from the registries, so that a new entry appears in every command."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Base of argument dataclasses that are derived from a specification.

    ``class CampaignOptions(Arguments, of=CampaignSpec)`` has the fields of ``CampaignSpec`` with their order, types and
    help sentences, but each is None until it is typed, so that a command can tell what was typed from what is
    a default: a campaign that is resumed takes its stored values for everything else.
    """

    def __init_subclass__(
        cls,
        *,
        of: type,
        only: Collection[str] = (),
        without: Collection[str] = (),
        undefined: Collection[str] = (),
        panel: str | None = None,
    ) -> None:
        """Derive the fields.

        Args:
            of: Specification, a dataclass with an ``Attributes:`` section.
            only: Names of the fields to take; all by default.
            without: Names of fields to leave out.
            undefined: Fields whose default a command settles itself, so that help does not show it.
            panel: Panel of the help that lists the options; that of all other options by default.
        """
        sentences = {item.arg_name: item.description for item in parse(of.__doc__ or "").params} | _FROM_REGISTRIES
        hints, ranged = get_type_hints(of), get_type_hints(of, include_extras=True)
        # The class body is empty: dataclass(), at the end, reads its fields from the annotations written here.
        cls.__annotations__ = {}
        for item in fields(of):
            if (not only or item.name in only) and item.name not in without:
                shown = item.name not in undefined and _default(item.default)
                option = Parameter(
                    name=flag_of(item.name),
                    help=sentences[item.name],
                    show_default=shown,
                    validator=range_of(ranged[item.name]) if get_origin(hints[item.name]) is not tuple else None,
                )
                cls.__annotations__[item.name] = _optional(hints[item.name], option)
                setattr(cls, item.name, field(default=None))
        Parameter(name="*", group=panel)(dataclass(frozen=True, kw_only=True)(cls))

    def typed(self) -> dict[str, Any]:
        """Return the arguments that were typed, by field name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def _optional(hint: Any, option: Parameter) -> Any:
    """Make a field's annotation that of an option which may be left out."""
    parts: dict[Any, tuple[Parameter, ...]] = {
        Shape: (SHAPE,),
        Plan: (PLAN,),
        tuple[str, ...]: (_NAMES,),
        tuple[int, ...]: (_NUMBERS,),
    }
    return Annotated[hint | None, *parts.get(hint, ()), option]


def _default(value: Any) -> str | bool:
    """Return a default as help shows it; what is empty or None is explained by its sentence instead."""
    if value is MISSING or value is None or value == () or value is False:
        return False
    return str(value)
