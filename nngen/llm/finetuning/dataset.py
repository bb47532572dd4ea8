"""Writes the feedback set: Parquet and JSONL for three views and three splits, and a data card."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nngen.errors import RewriterError
from nngen.llm.finetuning.examples import Example, Task
from nngen.llm.finetuning.splits import Split, assign
from nngen.llm.optional_imports import load

__all__ = ["VIEWS", "Built", "Drops", "build", "fingerprint", "read_view"]

VIEWS = ("sft", "dpo", "kto")
"""Good answers; pairs of a better and a worse answer; good and bad answers apart."""

Row = dict[str, Any]

_CARD = "README.md"
_META = "feedback.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """What was left out, and why.

    Attributes:
        long: More tokens than the limit; answers are never cut.
        split: Two quartets in two splits, or a held-out answer that echoes the train split.
        twice: The same question with the same answer.
    """

    long: int
    split: int
    twice: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A feedback set as it was written.

    Attributes:
        fingerprint: SHA-256 over the rows of every view and split.
        counts: Rows by view, then split.
        tasks: Good examples by task.
    """

    folder: Path
    fingerprint: str
    counts: Mapping[str, Mapping[str, int]]
    tasks: Mapping[str, int]
    drops: Drops


def build(
    examples: Iterable[Example],
    folder: Path,
    *,
    twins: Mapping[str, str],
    count: Callable[[str], int],
    limit: int = 1024,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Built:
    """Write a feedback set, all or nothing.

    Args:
        examples: In any order.
        folder: Made here; it must not exist, or be a feedback set, which is then replaced.
        twins: Each family's name to the first of its near-twins.
        count: Counts the tokens of a text.
        limit: Most tokens of question and answer together; longer examples are left out whole.
        seed: Of the split.
        notes: Lines for the data card: where the examples come from.

    Raises:
        RewriterError: If there is too little to split, or the folder holds something else.
    """
    if folder.exists() and not (folder / _META).is_file():
        raise RewriterError(f"{folder} exists and is no feedback set: choose another folder")
    every = list(examples)
    unique = list({(_question(row), row.answer): row for row in every}.values())
    short = [row for row in unique if count(_question(row) + row.answer) <= limit]
    splits = assign(short, twins, seed)
    kept = [(row, split) for row, split in zip(short, splits, strict=True) if split is not None]
    views = {name: _view(name, kept) for name in VIEWS}
    mark = fingerprint(views)
    drops = Drops(long=len(unique) - len(short), split=len(short) - len(kept), twice=len(every) - len(unique))
    counts = {name: {split: len(rows) for split, rows in view.items()} for name, view in views.items()}
    tasks = dict(sorted(Counter(row.task.value for row, _ in kept if row.good).items()))
    built = Built(folder=folder, fingerprint=mark, counts=counts, tasks=tasks, drops=drops)
    prompts = sorted({row.prompt for row, _ in kept})
    _write(folder, views, _card(built, limit, seed, prompts, notes), _meta(built, limit, seed, prompts))
    return built


def read_view(folder: Path, view: str, split: str) -> list[Row]:
    """Read the rows of one view and split.

    Raises:
        RewriterError: If the folder is no feedback set, or a file of it is broken.
    """
    file = folder / view / f"{split}.jsonl"
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise RewriterError(f"{folder} is no feedback set: {file.name} of {view} cannot be read") from error
    except json.JSONDecodeError as error:
        raise RewriterError(f"{file} is broken: {error}") from error


def fingerprint(views: Mapping[str, Mapping[str, Sequence[Row]]]) -> str:
    """Hash every row of every view and split, in order."""
    text = json.dumps(views, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _view(name: str, kept: Sequence[tuple[Example, Split]]) -> dict[str, list[Row]]:
    make = {"sft": _sft, "dpo": _dpo, "kto": _kto}[name]
    return {split.value: make([row for row, where in kept if where is split]) for split in Split}


def _sft(rows: Sequence[Example]) -> list[Row]:
    return [{"messages": [*_turns(row), _answer(row.answer)], **_about(row)} for row in rows if row.good]


def _dpo(rows: Sequence[Example]) -> list[Row]:
    """Pair each question's answers, the best with the worst, the second best with the second worst, ..."""
    questions: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        if row.task in (Task.REGION, Task.IMPROVE, Task.SUMMARY):
            questions[_question(row)].append(row)
    pairs = []
    for answers in questions.values():
        good = sorted((row for row in answers if row.good), key=lambda row: -row.score)
        bad = sorted((row for row in answers if not row.good), key=lambda row: row.score)
        for better, worse in zip(good, bad, strict=False):
            pairs.append(
                {
                    "prompt": _turns(better),
                    "chosen": [_answer(better.answer)],
                    "rejected": [_answer(worse.answer)],
                    **_about(better),
                }
            )
    return pairs


def _kto(rows: Sequence[Example]) -> list[Row]:
    return [
        {"prompt": _turns(row), "completion": [_answer(row.answer)], "label": row.good, **_about(row)}
        for row in rows
        if row.task in (Task.REGION, Task.IMPROVE, Task.SUMMARY)
    ]


def _turns(row: Example) -> list[dict[str, str]]:
    return [message.to_dict() for message in row.messages]


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _about(row: Example) -> Row:
    about = {"task": row.task.value, "place": row.place, "group": row.group}
    return {**about, "origin": row.origin, "prompt_id": row.prompt}


def _question(row: Example) -> str:
    return "\n".join(message.content for message in row.messages)


def _write(folder: Path, views: Mapping[str, Mapping[str, list[Row]]], card: str, meta: Row) -> None:
    datasets = load("datasets")
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, splits in views.items():
            (half / name).mkdir()
            for split, rows in splits.items():
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (half / name / f"{split}.jsonl").write_text(lines, encoding="utf-8")
                if rows:
                    datasets.disable_progress_bars()
                    datasets.Dataset.from_list(rows).to_parquet(str(half / name / f"{split}.parquet"))
        (half / _CARD).write_text(card, encoding="utf-8")
        (half / _META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        half.replace(folder)
    except OSError as error:
        raise RewriterError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _meta(built: Built, limit: int, seed: int, prompts: Sequence[str]) -> Row:
    return {
        "fingerprint": built.fingerprint,
        "counts": built.counts,
        "tasks": built.tasks,
        "dropped": {"long": built.drops.long, "split": built.drops.split, "twice": built.drops.twice},
        "limit": limit,
        "seed": seed,
        "prompts": list(prompts),
    }


def _card(built: Built, limit: int, seed: int, prompts: Sequence[str], notes: Sequence[str]) -> str:
    files = []
    for name in VIEWS:
        filled = [split.value for split in Split if built.counts[name][split.value]]
        if filled:
            data = "\n".join(f"      - split: {split}\n        path: {name}/{split}.parquet" for split in filled)
            files.append(f"  - config_name: {name}\n    data_files:\n{data}")
    table = "\n".join(
        f"| {name} | " + " | ".join(f"{built.counts[name][split.value]:,}" for split in Split) + " |" for name in VIEWS
    )
    head = "---\nconfigs:\n" + "\n".join(files) + "\n---\n" if files else ""
    tasks = "\n".join(f"- `{task}`: {number:,}" for task, number in built.tasks.items())
    return f"""{head}
# Feedback of nngen

What mixtures of experts made of LEMUR's families taught: questions as a rewriter is asked them, with answers that
checks and trials have judged. In chat form.

| view | {" | ".join(split.value for split in Split)} |
|---|---|---|---|
{table}

`sft` holds good answers, `dpo` pairs of a better and a worse answer to one question, `kto` good and bad answers apart.
Good examples by task:

{tasks}

- `region`: new code for a region of an assembled file that passed every check (bad: that was refused)
- `improve`: a plan and its accuracy, then one that did better at the same fidelity (bad: worse)
- `summary`: the effects measured on other quartets, then a plan of the best quarter (bad: of the worst)
- `accuracy`: a plan, and the validation accuracy that it reached
- `code`: a model file of LEMUR, and the accuracy recorded for it on LEMUR's test split

## How it was made

- No quartet is in two splits, nor are two quartets that differ only in families that are near-twins. Held-out code that
  nearly repeats code of the train split is left out.
- At most {limit:,} tokens for question and answer. Left out whole: {built.drops.long:,} longer ones,
  {built.drops.split:,} on account of the splits, {built.drops.twice:,} repeats. No answer was cut.
- Seed of the split: {seed}. Prompts: {", ".join(f"`{name}`" for name in prompts)}.
- Fingerprint: `{built.fingerprint}`
{"".join(f"- {note}{chr(10)}" for note in notes)}"""
