"""The feedback set of an archive: every example it holds, split and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from nngen.archive import Archive, TrialState
from nngen.errors import UsageError
from nngen.families.catalogue import load_families
from nngen.families.near_duplicates import twin_families
from nngen.lemur.source import open_lemur
from nngen.llm.finetuning.dataset import Built, build
from nngen.llm.finetuning.examples import (
    Example,
    Task,
    accuracy_examples,
    code_examples,
    improvement_examples,
    region_examples,
    summary_examples,
)
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.log import proposals
from nngen.llm.proposals.plan_space import EXPERTS, PlanSpace

__all__ = ["build_from_archive", "collect", "counter"]


def counter(base: str | None) -> Callable[[str], int]:
    """Give what counts tokens: a base model's tokenizer, or an estimate where none is named."""
    if base is None:
        return estimate_tokens
    from nngen.llm.rewriters.transformers_local import load_tokenizer

    tokenizer = load_tokenizer(base)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def collect(
    archive: Archive, tasks: Sequence[str] | None = None, batches: Sequence[str] | None = None
) -> list[Example]:
    """Gather the examples of an archive: of some tasks, and of some batches of proposals, only if they are named.

    Raises:
        UsageError: If a task is unknown.
    """
    wanted = [task.value for task in Task] if tasks is None else list(tasks)
    unknown = [name for name in wanted if name not in [task.value for task in Task]]
    if unknown:
        raise UsageError(f"no task is called {unknown[0]!r}: there are {', '.join(task.value for task in Task)}")
    trials = archive.trials(state=TrialState.DONE)
    families = sorted({expert for trial in trials for expert in trial.experts})
    found: list[list[Example]] = []
    if "region" in wanted:
        candidates = {candidate.id: candidate for candidate in archive.candidates()}
        held = [row for row in proposals(archive) if batches is None or row.batch in batches]
        found.append(list(region_examples(held, candidates)))
    if len(families) >= EXPERTS:
        space = PlanSpace(families=tuple(families))
        found += [list(improvement_examples(trials, space))] if "improve" in wanted else []
        found += [list(summary_examples(trials, space))] if "summary" in wanted else []
    if "accuracy" in wanted:
        found.append(list(accuracy_examples(trials)))
    if "code" in wanted:
        sources = {model.name: model.source for model in archive.foreign.models()}
        found.append(list(code_examples(sources, archive.foreign.records())))
    return list(chain.from_iterable(found))


def build_from_archive(
    archive: Archive,
    out: Path,
    *,
    count: Callable[[str], int],
    limit: int = 1024,
    tasks: Sequence[str] | None = None,
    batches: Sequence[str] | None = None,
    seed: int = 0,
) -> Built:
    """Write the feedback set of an archive; see ``dataset.build``.

    Raises:
        UsageError: If a task is unknown.
        RewriterError: If there is too little to split.
    """
    examples = collect(archive, tasks, batches)
    sources = {name: family.source for name, family in load_families(open_lemur()).items()}
    notes = (f"Source: an archive of {len(archive.candidates()):,} candidates.",)
    return build(examples, out, twins=twin_families(sources), count=count, limit=limit, seed=seed, notes=notes)
