"""Files of a feedback set: names of its views, and the reading of its head and rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nngen.errors import RewriterError
from nngen.llm.finetuning.splits import Row
from nngen.llm.proposals.parsing import well_formed

VIEWS = ("sft", "dpo", "kto", "source")
"""Views of the set: good answers; pairs of a better and a worse answer; good and bad answers with a label; and whole
files, which are long."""

META = "feedback.json"
"""File of a feedback set with its fingerprint, counts and prompts."""

_DIALOGUES = {
    "sft": {"messages": 2},
    "dpo": {"prompt": 1, "chosen": 1, "rejected": 1},
    "kto": {"prompt": 1, "completion": 1},
    "source": {"messages": 2},
}
"""Fields of a view's rows that hold turns of a dialogue, with the fewest turns."""

_DAMAGED = (ValueError, LookupError, TypeError, RecursionError, MemoryError)
_REBUILD = "build the set again with nngen feedback build"
_MAX_LINE = 4 * 2**20  # characters; a row holds a question of a limited number of tokens and an answer
_MAX_WEIGHT = 100


def read_meta(folder: Path) -> Row:
    """Read ``feedback.json`` of a feedback set: at least the ``fingerprint`` and the ids of the ``prompts``.

    Raises:
        RewriterError: If the folder is not a feedback set, or the file is damaged.
    """
    file = folder / META
    try:
        if not file.is_file():
            raise RewriterError(f"{folder} is not a feedback set: nngen feedback build writes one")
        with file.open(encoding="utf-8") as text:
            meta = json.loads(text.read(_MAX_LINE))
        mark, ids = meta["fingerprint"], meta["prompts"]
        if isinstance(mark, str) and isinstance(ids, list) and all(isinstance(name, str) for name in ids):
            return dict(meta)
    except (OSError, *_DAMAGED) as error:
        raise RewriterError(f"{file} is damaged ({type(error).__name__}): {_REBUILD}") from error
    raise RewriterError(f"{file} is damaged: {_REBUILD}")


def read_view(folder: Path, view: str, split: str) -> list[Row]:
    """Read the rows of one view and split.

    Raises:
        RewriterError: If the folder is not a feedback set, or a row of the file is damaged; the message names the line.
    """
    file = folder / view / f"{split}.jsonl"
    rows: list[Row] = []
    try:
        if not file.is_file():
            raise RewriterError(f"{folder} is not a feedback set: {file.name} of {view} is missing")
        with file.open(encoding="utf-8", newline="\n") as lines:
            # Lines end at line breaks alone: texts may hold other separators, which JSON does not escape.
            while line := lines.readline(_MAX_LINE):
                row = json.loads(line)
                if not _is_row(row, view):
                    raise RewriterError(f"{file}, line {len(rows) + 1}, is not a row for {view}: {_REBUILD}")
                rows.append(row)
    except (OSError, *_DAMAGED) as error:
        raise RewriterError(f"{file}, line {len(rows) + 1}, cannot be read: {_REBUILD}") from error
    return rows


def _is_row(row: Any, view: str) -> bool:
    """Whether a value has the fields that tuning reads, with their types."""
    if not isinstance(row, dict) or not isinstance(row.get("task"), str) or not isinstance(row.get("place", ""), str):
        return False
    if view == "kto" and not isinstance(row.get("label"), bool):
        return False
    weight = row.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= _MAX_WEIGHT:
        return False
    return all(_are_turns(row.get(name), least) for name, least in _DIALOGUES[view].items())


def _are_turns(value: Any, least: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= least
        and all(isinstance(turn, dict) for turn in value)
        and all(isinstance(turn.get(name), str) for turn in value for name in ("role", "content"))
        and not any(well_formed(turn["content"]) != turn["content"] for turn in value)
    )
