"""Builds the feedback set of an archive: Parquet and JSONL for three views and three splits, and a data card."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from more_itertools import map_reduce

from nngen.archive.records import TrialState
from nngen.archive.store import Archive
from nngen.errors import RewriterError, UsageError
from nngen.families.catalogue import load_families
from nngen.families.near_duplicates import twin_families
from nngen.files import draft_folder
from nngen.jinja import render_template
from nngen.lemur.source import open_lemur
from nngen.llm import optional_import
from nngen.llm.finetuning.examples import (
    accuracy_examples,
    code_examples,
    improvement_examples,
    region_examples,
    summary_examples,
)
from nngen.llm.finetuning.splits import Example, Row, Split, Task, assign
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.log import proposals
from nngen.llm.proposals.parsing import well_formed
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.base import Kind
from nngen.seeds import derive
from nngen.space.pool import EXPERTS
from nngen.text import listed

VIEWS = ("sft", "dpo", "kto")
"""Views of the set: good answers; pairs of a better and a worse answer; good and bad answers with a label."""

_JUDGED = (Task.REGION, Task.IMPROVE, Task.SUMMARY)  # tasks with bad answers as well
_DIALOGUES = {
    "sft": {"messages": 2},
    "dpo": {"prompt": 1, "chosen": 1, "rejected": 1},
    "kto": {"prompt": 1, "completion": 1},
}
"""Fields of a view's rows that hold turns of a dialogue, with the fewest turns."""

_COMMON = 0.1  # largest share of a task's rows with one answer
_DAMAGED = (ValueError, LookupError, TypeError, RecursionError, MemoryError)
_REBUILD = "build the set again with nngen feedback build"
_MAX_LINE = 4 * 2**20  # characters; a row holds a question of a limited number of tokens and an answer

META = "feedback.json"
"""File of a feedback set with its fingerprint, counts and prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """Number of examples left out, by reason.

    Attributes:
        long: Examples with more tokens than the limit; answers are never cut.
        split: Examples of two quartets in different splits, or held-out answers that nearly repeat a train answer.
        twice: Examples whose question and answer occurred before.
        often: Plans as answers that would be more than a tenth of their task's.
    """

    long: int
    split: int
    twice: int
    often: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A feedback set that was written.

    Attributes:
        fingerprint: SHA-256 over the rows of every view and split.
        counts: Number of rows by view, then split.
        tasks: Number of good examples by task.
        answers: Number of different good answers by task.
        drops: Number of examples left out.
    """

    folder: Path
    fingerprint: str
    counts: Mapping[str, Mapping[str, int]]
    tasks: Mapping[str, int]
    answers: Mapping[str, int]
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
    """Write a feedback set, whole or not at all.

    Args:
        examples: Examples in any order.
        folder: Folder to create; an earlier feedback set there is replaced.
        twins: Map from each family to the first of its near-duplicates.
        count: Counts the tokens of a text.
        limit: Most tokens of question and answer together; longer examples are left out.
        seed: Seed of the split.
        notes: Lines for the data card about the source of the examples.

    Raises:
        RewriterError: If there are too few groups to split, or the folder holds something else.
    """
    try:
        if folder.exists() and not (folder / META).is_file():
            raise RewriterError(f"{folder} exists and is not a feedback set: choose another folder")
    except OSError as error:
        raise RewriterError(f"{folder} cannot be written: {error.strerror}") from error
    every = list(examples)
    unique = list({(_question(row), row.answer): row for row in every}.values())
    short = [row for row in unique if count(_question(row) + row.answer) <= limit]
    splits = assign(short, twins, seed)
    apart = [(row, split) for row, split in zip(short, splits, strict=True) if split is not None]
    kept = _without_common_answers(apart, seed)
    views = {
        name: {split.value: make([row for row, where in kept if where is split]) for split in Split}
        for name, make in {"sft": _sft, "dpo": _dpo, "kto": _kto}.items()
    }
    drops = Drops(
        long=len(unique) - len(short),
        split=len(short) - len(apart),
        twice=len(every) - len(unique),
        often=len(apart) - len(kept),
    )
    good = map_reduce((row for row, _ in kept if row.good), lambda row: row.task.value)
    meta: Row = {
        "fingerprint": fingerprint(views),
        "counts": {name: {split: len(rows) for split, rows in view.items()} for name, view in views.items()},
        "tasks": {task: len(rows) for task, rows in sorted(good.items())},
        "answers": {task: len({row.answer for row in rows}) for task, rows in sorted(good.items())},
        "dropped": asdict(drops),
        "limit": limit,
        "seed": seed,
        "prompts": sorted({row.prompt for row, _ in kept}),
    }
    _write(folder, views, meta, notes)
    found = {name: meta[name] for name in ("fingerprint", "counts", "tasks", "answers")}
    return Built(folder=folder, drops=drops, **found)


def _without_common_answers(rows: Sequence[tuple[Example, Split]], seed: int) -> list[tuple[Example, Split]]:
    """Drop good answers that would be more than a tenth of a task's: a model would learn them by heart."""
    order = sorted(rows, key=lambda row: derive(seed, "common", _question(row[0]), row[0].answer))
    totals = Counter(row.task for row, _ in rows if row.good)
    seen: Counter[tuple[Task, str]] = Counter()
    dropped = set()
    for row, _ in order:
        if row.good and row.task in (Task.IMPROVE, Task.SUMMARY):
            seen[row.task, row.answer] += 1
            if seen[row.task, row.answer] > max(totals[row.task] * _COMMON, 1):
                dropped.add(id(row))
    return [(row, split) for row, split in rows if id(row) not in dropped]


def build_from_archive(
    archive: Archive,
    out: Path,
    *,
    count: Callable[[str], int],
    limit: int = 1024,
    tasks: Sequence[str] | None = None,
    batches: Sequence[str] | None = None,
    writers: Sequence[str] | None = None,
    seed: int = 0,
) -> Built:
    """Write the feedback set of an archive; the arguments are those of ``collect`` and ``build``.

    Raises:
        UsageError: If a task is unknown.
        RewriterError: If there are too few groups to split, or the folder holds something else.
    """
    examples = collect(archive, tasks, batches, writers)
    sources = {name: family.source for name, family in load_families(open_lemur()).items()}
    notes = (f"Source: an archive of {len(archive.canonicals()):,} candidates.",)
    return build(examples, out, twins=twin_families(sources), count=count, limit=limit, seed=seed, notes=notes)


def collect(
    archive: Archive,
    tasks: Sequence[str] | None = None,
    batches: Sequence[str] | None = None,
    writers: Sequence[str] | None = None,
) -> list[Example]:
    """Gather the examples of an archive.

    Args:
        archive: Source of trials, proposals and imported records.
        tasks: Tasks to include; all by default.
        batches: Batches of proposals to include; all by default.
        writers: Rewriters whose proposals to include; all by default.

    Raises:
        UsageError: If a task is unknown, or a rewriter wrote no proposal.
    """
    wanted = list(Task) if tasks is None else list(tasks)
    unknown = [name for name in wanted if name not in list(Task)]
    if unknown:
        raise UsageError(f"no task is called {unknown[0]!r}: choose {', '.join(Task)}")
    trials = archive.trials(state=TrialState.DONE)
    families = sorted({expert for trial in trials for expert in trial.experts})
    found: list[Example] = []
    if "region" in wanted:
        rows = [row for row in proposals(archive) if batches is None or row.batch in batches]
        known_writers = sorted({row.rewriter for row in rows})
        if missing := [name for name in writers or () if name not in known_writers]:
            raise UsageError(f"{missing[0]} wrote no proposal; {listed(known_writers, 8) or 'no rewriter'} did")
        rows = [row for row in rows if writers is None or row.rewriter in writers]
        known = archive.canonicals()
        parents = {row.parent for row in rows if row.kind is Kind.REGION and row.parent in known}
        found += region_examples(rows, {name: archive.candidate(name) for name in sorted(parents)}, trials)
    if len(families) >= EXPERTS:
        space = PlanSpace(families=tuple(families))
        found += improvement_examples(trials, space) if "improve" in wanted else ()
        found += summary_examples(trials, space) if "summary" in wanted else ()
    if "accuracy" in wanted:
        found += accuracy_examples(trials)
    if "code" in wanted:
        sources = {model.name: model.source for model in archive.external.models()}
        found += code_examples(sources, archive.external.records())
    return found


def counter(base: str | None, chat_template: str = "") -> Callable[[str], int]:
    """Return a function that counts tokens: the base model's tokenizer, or an estimate by default."""
    if base is None:
        return estimate_tokens
    from nngen.llm.rewriters.chat import load_tokenizer

    tokenizer = load_tokenizer(base, chat_template)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


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
    return all(_are_turns(row.get(name), least) for name, least in _DIALOGUES[view].items())


def _are_turns(value: Any, least: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= least
        and all(isinstance(turn, dict) for turn in value)
        and all(isinstance(turn.get(name), str) for turn in value for name in ("role", "content"))
        and not any(well_formed(turn["content"]) != turn["content"] for turn in value)
    )


def fingerprint(views: Mapping[str, Mapping[str, Sequence[Row]]]) -> str:
    """Hash the rows of every view and split, in order."""
    text = json.dumps(views, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _sft(rows: Sequence[Example]) -> list[Row]:
    return [{"messages": [*_turns(row), *_answer(row)], **_about(row)} for row in rows if row.good]


def _dpo(rows: Sequence[Example]) -> list[Row]:
    """Pair the answers to each question: the best with the worst, the second best with the second worst, ..."""
    questions: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        if row.task in _JUDGED:
            questions[_question(row)].append(row)
    pairs = []
    for answers in questions.values():
        good = sorted((row for row in answers if row.good), key=lambda row: -row.score)
        bad = sorted((row for row in answers if not row.good), key=lambda row: row.score)
        for better, worse in zip(good, bad, strict=False):
            chosen, rejected = _answer(better), _answer(worse)
            pairs.append({"prompt": _turns(better), "chosen": chosen, "rejected": rejected, **_about(better)})
    return pairs


def _kto(rows: Sequence[Example]) -> list[Row]:
    return [
        {"prompt": _turns(row), "completion": _answer(row), "label": row.good, **_about(row)}
        for row in rows
        if row.task in _JUDGED
    ]


def _turns(row: Example) -> list[dict[str, str]]:
    return [message.to_dict() for message in row.messages]


def _answer(row: Example) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": row.answer}]


def _about(row: Example) -> Row:
    about = {"task": row.task.value, "place": row.place, "group": row.group}
    return {**about, "origin": row.origin, "prompt_id": row.prompt, "writer": row.writer}


def _question(row: Example) -> str:
    return "\n".join(message.content for message in row.messages)


def _write(folder: Path, views: Mapping[str, Mapping[str, list[Row]]], meta: Row, notes: Sequence[str]) -> None:
    datasets = optional_import("datasets")
    datasets.disable_progress_bars()
    filled = {name: [split for split, rows in splits.items() if rows] for name, splits in views.items()}
    files = {name: splits for name, splits in filled.items() if splits}
    card = render_template("feedback_card.md.j2", meta=meta, files=files, splits=list(Split), notes=notes)
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
