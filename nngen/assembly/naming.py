"""Which name a family's definition gets inside a mixture.

Every module-level name carries the family's name, spelled as its kind asks for:
``DenseNetDenseLayer``, ``shufflenet_channel_shuffle``, ``MNASNET_BN_MOMENTUM``. It depends on the family
alone, never on the expert's place in a mixture, so that a family is transformed once.
"""

from __future__ import annotations

import builtins
import enum
import keyword
from collections.abc import Collection, Mapping

__all__ = ["Style", "assign_names", "class_prefix", "style_of"]

_TAKEN = frozenset(keyword.kwlist) | frozenset(dir(builtins))


class Style(enum.Enum):
    """How PEP 8 spells a name."""

    CLASS = "CapWords"
    FUNCTION = "snake_case"
    CONSTANT = "UPPER_CASE"


def class_prefix(family: str) -> str:
    """Return the family's name as the start of a class name: ``BayesianNet-1`` becomes ``BayesianNet1``."""
    letters = "".join(part[:1].upper() + part[1:] for part in _words(family))
    return letters if letters[:1].isalpha() else f"Family{letters}"


def style_of(name: str) -> Style:
    """Guess the kind of an imported or assigned name from its spelling."""
    bare = name.strip("_")
    if bare.upper() == bare and len(bare) > 1:
        return Style.CONSTANT
    return Style.CLASS if bare[:1].isupper() else Style.FUNCTION


def assign_names(prefix: str, styles: Mapping[str, Style], used: Collection[str]) -> dict[str, str]:
    """Give every name of a family its name in a mixture.

    Args:
        prefix: What all of them start with, as ``class_prefix`` spells it.
        styles: The family's module-level names in the order of its source, each with its kind.
        used: Every identifier of the source. A new name is never one of them, lest a local of
            the same spelling hide it; a name that is the family's own already may stay.

    Returns:
        Old name to new name; the new ones differ from each other.
    """
    names: dict[str, str] = {}
    # Public names first: of ``Outputs`` and ``_Outputs``, the private one yields.
    for name, style in sorted(styles.items(), key=lambda item: item[0].startswith("_")):
        wanted = _spell(prefix, name, style)
        new, number = wanted, 2
        while new in names.values() or new in _TAKEN or (new in used and new != name):
            new, number = f"{wanted}{number}" if style is Style.CLASS else f"{wanted}_{number}", number + 1
        names[name] = new
    return names


def _spell(prefix: str, name: str, style: Style) -> str:
    bare = name.strip("_") or "x"
    if style is Style.CLASS:
        word = "".join(part[:1].upper() + part[1:] for part in bare.split("_"))
        return word if word.startswith(prefix) else prefix + word
    word = _snake(bare)
    start = prefix.lower() + "_"
    lower = word if word.startswith(start) else start + word
    return lower.upper() if style is Style.CONSTANT else lower


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in text).split()


def _snake(name: str) -> str:
    """Spell ``CapWords`` as ``cap_words``; what is upper or lower case throughout is only lowered."""
    letters = []
    for index, letter in enumerate(name):
        follows_lower = index > 0 and (name[index - 1].islower() or name[index - 1].isdigit())
        if letter.isupper() and follows_lower and not name.isupper():
            letters.append("_")
        letters.append(letter.lower())
    return "".join(letters)
