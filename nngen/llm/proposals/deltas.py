"""Changes of a file as unified diffs: written between two files, and applied to one where their context fits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice

from nngen.llm.proposals.parsing import Fault, ReplyError
from nngen.text import one_line

_HEAD = re.compile(r"@@+ *(?:-(\d{1,9}))?")
_MOST_HUNKS = 200  # each is looked for in the whole file
_BEFORE_HUNKS = ("---", "+++", "diff ", "index ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """One change of consecutive lines, without their line breaks."""

    line: int | None  # number of its first line in the file, as the head says; None where it does not
    old: tuple[str, ...]  # lines that are replaced, with those around them
    new: tuple[str, ...]  # lines in their place


def write_delta(before: str, after: str) -> str:
    """Write the change between two files as a unified diff with three lines of context; "" between equal ones."""
    # Python's lines: form feeds and Unicode separators do not end one.
    lines = unified_diff(before.split("\n"), after.split("\n"), lineterm="")
    return "\n".join(islice(lines, 2, None))  # without the names of the files


def apply_delta(source: str, delta: str) -> str:
    """Apply a unified diff to a file.

    Lines are compared without blanks at their ends. Where a hunk fits at several places, the number in its head
    chooses the nearest: models write wrong numbers, so a number alone places nothing.

    Raises:
        ReplyError: If the text is not a diff, or a hunk does not fit the file at one place.
    """
    lines, shift = source.split("\n"), 0
    for hunk in _hunks(delta):
        place = _place(lines, hunk, shift)
        lines[place : place + len(hunk.old)] = hunk.new
        shift += len(hunk.new) - len(hunk.old)
    return "\n".join(lines)


def _hunks(delta: str) -> list[Hunk]:
    found: list[Hunk] = []
    line, old, new, begun = None, list[str](), list[str](), False
    for text in [*delta.strip("\n").split("\n"), "@@"]:
        if head := _HEAD.match(text):
            if old or new:
                found.append(Hunk(line=line, old=tuple(old), new=tuple(new)))
            line, old, new, begun = int(head[1]) if head[1] else None, [], [], True
        elif not begun and (not text.strip() or text.startswith(_BEFORE_HUNKS)):
            continue
        elif not text.startswith(("+", "-", " ", "\\")) and text:
            raise ReplyError(Fault.CONTEXT, f"a line of a diff begins with a blank, + or -, not {one_line(text, 60)!r}")
        elif not text.startswith("\\"):  # a remark on the end of the file
            begun = True
            old += [] if text.startswith("+") else [text[1:]]
            new += [] if text.startswith("-") else [text[1:]]
    if not 0 < len(found) <= _MOST_HUNKS:
        reason = f"has {len(found):,} changes; at most {_MOST_HUNKS} are read" if found else "changes nothing"
        raise ReplyError(Fault.CONTEXT, f"the diff {reason}")
    return found


def _place(lines: Sequence[str], hunk: Hunk, shift: int) -> int:
    """Find the one place of a hunk in the file.

    Raises:
        ReplyError: If there is none, or several without a number that chooses.
    """
    wanted, present = [[text.rstrip() for text in some] for some in (hunk.old, lines)]
    if not any(wanted):
        raise ReplyError(Fault.CONTEXT, "a hunk has no line of the file around it: write three")
    size = len(wanted)
    places = [at for at, text in enumerate(present) if text == wanted[0] and present[at : at + size] == wanted]
    if not places:
        strange = next((text for text in wanted if text not in present), wanted[0])
        raise ReplyError(Fault.CONTEXT, f"the change does not fit the file at the line {one_line(strange, 80)!r}")
    if len(places) > 1 and hunk.line is None:
        raise ReplyError(Fault.CONTEXT, f"the change fits the file at {len(places)} places: write more lines around it")
    target = (hunk.line or 1) - 1 + shift
    return min(places, key=lambda at: abs(at - target))
