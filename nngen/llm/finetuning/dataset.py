"""Builds the feedback set of an archive: Parquet and JSONL for four views and three splits, and a data card."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from more_itertools import map_reduce

from nngen.archive.records import LoopRole, TrialState
from nngen.archive.store import Archive
from nngen.errors import RewriterError, UsageError
from nngen.families.catalogue import load_families
from nngen.families.near_duplicates import twin_families
from nngen.lemur.source import open_lemur
from nngen.llm.finetuning.examples import accuracy_examples, improvement_examples, region_examples, summary_examples
from nngen.llm.finetuning.sources import lemur_examples, source_examples
from nngen.llm.finetuning.splits import Example, Row, Split, Task, assign
from nngen.llm.finetuning.stored_set import META, write_set
from nngen.llm.finetuning.views import FILES, VIEWS, fingerprint, question
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.log import proposals
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.base import Kind
from nngen.seeds import derive
from nngen.space.pool import EXPERTS
from nngen.text import listed

_COMMON = 0.1  # largest share of a task's rows in one split with one answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """Number of examples left out, by reason."""

    long: int  # examples with more tokens than the limit; answers are never cut
    files: int  # whole files with more tokens than theirs
    split: int  # examples of two quartets in different splits, or held-out answers that nearly repeat a train answer
    twice: int  # examples whose question and answer occurred before
    often: int  # plans or edits as answers that would be more than a tenth of their task's


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A feedback set that was written."""

    folder: Path
    fingerprint: str  # SHA-256 over the rows of every view and split
    counts: Mapping[str, Mapping[str, int]]  # number of rows by view, then split
    tasks: Mapping[str, int]  # number of good examples by task
    answers: Mapping[str, int]  # number of different good answers by task
    drops: Drops  # number of examples left out


def build(
    examples: Iterable[Example],
    folder: Path,
    *,
    twins: Mapping[str, str],
    count: Callable[[str], int],
    limit: int = 1024,
    file_limit: int = 32_768,
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
        file_limit: The same for examples that hold whole files.
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
    unique = list({(question(row), row.answer): row for row in every}.values())
    fits = [count(question(row) + row.answer) <= (file_limit if row.task in FILES else limit) for row in unique]
    short = [row for row, fit in zip(unique, fits, strict=True) if fit]
    files = sum(row.task in FILES for row, fit in zip(unique, fits, strict=True) if not fit)
    splits = assign(short, twins, seed)
    apart = [(row, split) for row, split in zip(short, splits, strict=True) if split is not None]
    kept = _without_common_answers(apart, seed)
    views = {
        name: {split.value: make([row for row, where in kept if where is split]) for split in Split}
        for name, make in VIEWS.items()
    }
    drops = Drops(
        long=len(unique) - len(short) - files,
        files=files,
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
        "file_limit": file_limit,
        "seed": seed,
        "prompts": sorted({row.prompt for row, _ in kept}),
    }
    write_set(folder, views, meta, notes)
    found = {name: meta[name] for name in ("fingerprint", "counts", "tasks", "answers")}
    return Built(folder=folder, drops=drops, **found)


def _without_common_answers(rows: Sequence[tuple[Example, Split]], seed: int) -> list[tuple[Example, Split]]:
    """Drop good answers so that none has more than a tenth of its task's rows: a model would learn it by heart."""
    order = sorted(rows, key=lambda row: derive(seed, "common", question(row[0]), row[0].answer))
    places: dict[tuple[Task, Split], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, split in order:
        if row.good and row.task in (Task.IMPROVE, Task.SUMMARY):
            places[row.task, split][row.answer].append(id(row))
    dropped: set[int] = set()
    for answers in places.values():
        most = _most_repeats([len(same) for same in answers.values()])
        dropped.update(place for same in answers.values() for place in same[most:])
    return [(row, split) for row, split in rows if id(row) not in dropped]


def _most_repeats(counts: Sequence[int]) -> int:
    """Return the most rows that an answer may keep so that it has a tenth of those that are left; at least one."""
    most = max(counts)
    while most > max(1, _COMMON * sum(min(count, most) for count in counts)):
        most -= 1
    return most


def build_from_archive(
    archive: Archive,
    out: Path,
    *,
    count: Callable[[str], int],
    limit: int = 1024,
    file_limit: int = 32_768,
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
    examples = collect(archive, tasks, batches, writers, count=count, limit=limit)
    sources = {name: family.source for name, family in load_families(open_lemur()).items()}
    notes = (f"Source: an archive of {len(archive.canonicals()):,} candidates.",)
    return build(
        examples,
        out,
        twins=twin_families(sources),
        count=count,
        limit=limit,
        file_limit=file_limit,
        seed=seed,
        notes=notes,
    )


def collect(
    archive: Archive,
    tasks: Sequence[str] | None = None,
    batches: Sequence[str] | None = None,
    writers: Sequence[str] | None = None,
    *,
    count: Callable[[str], int] = estimate_tokens,
    limit: int = 1024,
) -> list[Example]:
    """Gather the examples of an archive: of some tasks, batches and writers, or of all.

    Questions about plans drop items to stay inside ``limit`` tokens.

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
        judged = {record.name for record in archive.campaigns() if record.role is LoopRole.JUDGE}
        if "improve" in wanted:
            found += improvement_examples(trials, space, judged, count=count, limit=limit)
        found += summary_examples(trials, space, count=count, limit=limit) if "summary" in wanted else ()
    if "accuracy" in wanted:
        found += accuracy_examples(trials)
    if not set(wanted).isdisjoint(FILES):
        known = archive.canonicals()
        files = [*source_examples([trial for trial in trials if trial.candidate_id in known], archive.candidate)]
        models = {model.name: model.source for model in archive.external.models()}
        files += lemur_examples(models, archive.external.records())
        found += [row for row in files if row.task in wanted]
    return found


def counter(base: str | None, chat_template: str = "") -> Callable[[str], int]:
    """Return a function that counts tokens: the base model's tokenizer, or an estimate by default."""
    if base is None:
        return estimate_tokens
    from nngen.llm.rewriters.chat import load_tokenizer

    tokenizer = load_tokenizer(base, chat_template)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
