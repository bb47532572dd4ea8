"""Files of a feedback set: rows as JSONL and Parquet, a head, and a data card; written whole, and read."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nngen.errors import RewriterError
from nngen.files import draft_folder
from nngen.jinja import render_template
from nngen.llm import optional_import
from nngen.llm.finetuning.splits import Row, Split
from nngen.llm.proposals.parsing import well_formed

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
_SHOWN = 600  # characters of a turn that the data card shows


def write_set(folder: Path, views: Mapping[str, Mapping[str, list[Row]]], meta: Row, notes: Sequence[str]) -> None:
    """Write a set, whole or not at all; an earlier one there is replaced.

    Args:
        folder: Folder to write.
        views: Rows by view, then split.
        meta: Head of the set.
        notes: Lines for the data card about the source of the examples.

    Raises:
        RewriterError: If the folder cannot be written.
    """
    datasets = optional_import("datasets")
    datasets.disable_progress_bars()
    filled = {name: [split for split, rows in splits.items() if rows] for name, splits in views.items()}
    files = {name: splits for name, splits in filled.items() if splits}
    shown = {name: _shown(splits[Split.TRAIN]) for name, splits in views.items()}
    card = render_template(
        "feedback_card.md.j2", meta=meta, files=files, splits=list(Split), notes=notes, shown=shown, fence="`" * 4
    )
    try:
        with draft_folder(folder, replace=True) as draft:
            for name, splits in views.items():
                (draft / name).mkdir()
                for split, rows in splits.items():
                    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                    (draft / name / f"{split}.jsonl").write_text(lines, encoding="utf-8")
                    if rows:
                        datasets.Dataset.from_list(rows).to_parquet(str(draft / name / f"{split}.parquet"))
            (draft / "README.md").write_text(card, encoding="utf-8")
            (draft / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RewriterError(f"{folder} cannot be written: {error.strerror}") from error


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


def _shown(rows: Sequence[Row]) -> list[str]:
    """Write three rows of a view for the data card, of different tasks where there are some; long turns are cut."""
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row["task"]].append(row)
    picked = [same[turn] for turn in range(3) for same in by_task.values() if turn < len(same)][:3]
    texts = []
    for row in picked:
        turns = [
            turn for name in ("messages", "prompt", "completion", "chosen", "rejected") for turn in row.get(name, ())
        ]
        about = ", ".join(f"{name} {row[name]}" for name in ("task", "label", "weight") if name in row)
        said = (f"[{turn['role']}]\n{_cut(turn['content'])}" for turn in turns)
        texts.append("\n".join([f"[{about}]", *said]))
    return texts


def _cut(text: str) -> str:
    return (
        text
        if len(text) <= _SHOWN
        else f"{text[: _SHOWN // 2]}\n[... {len(text) - _SHOWN:,} characters ...]\n{text[-_SHOWN // 2 :]}"
    )


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
