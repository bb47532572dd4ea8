"""Training examples, and their assignment to splits: by whole quartets, near-duplicate quartets together."""

from __future__ import annotations

import contextlib
import enum
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from nngen.errors import RewriterError
from nngen.families.near_duplicates import SAME_CODE, Shingles, similarity, tree_shingles
from nngen.llm.proposals.parsing import ReplyError, python_block
from nngen.llm.rewriters.base import Message
from nngen.seeds import derive

Row: TypeAlias = dict[str, Any]
"""Row of a view, as JSON types."""


class Task(enum.StrEnum):
    """Tasks of examples."""

    REGION = "region"
    IMPROVE = "improve"
    SUMMARY = "summary"
    ACCURACY = "accuracy"
    CODE = "code"
    SOURCE = "source"
    DELTA = "delta"
    LEMUR = "lemur"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A question with an answer, good or bad."""

    task: Task
    messages: tuple[Message, ...]  # system and user turns
    answer: str  # the assistant's turn
    group: str  # key of the split, shared by all examples of one quartet; several keys are joined by ``|``
    origin: str  # id of the candidate, text of the plan, or name of the model that the example was made from
    prompt: str
    good: bool = True  # whether the answer is to be learned; bad ones serve the preference views
    score: float = 1.0  # rank of the answer among those to one question; higher is better
    place: str = ""  # name of the region, for ``region``
    writer: str = ""  # rewriter that wrote the answer; "" where it was not proposed
    # times that tuning repeats it on average, at least 1: more for clearer differences of accuracy
    weight: float = 1.0


class Split(enum.StrEnum):
    """The three splits of a feedback set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


LEMUR = "lemur:"
"""Prefix of the groups of LEMUR's models, which are its families; other groups are quartets."""

_FEWEST = 3
_SHARES = ((Split.TEST, 0.15), (Split.VALIDATION, 0.15))


def assign(examples: Sequence[Example], twins: Mapping[str, str], seed: int) -> list[Split | None]:
    """Assign a split to each example; None for examples to leave out.

    Quartets that differ only in near-duplicate families form one group, and a group lies in one split,
    in the order of a hash. An example of two groups (a parent's and a child's) is left out if their
    splits differ; a held-out example is left out if its answer nearly repeats one of the train split.

    Raises:
        RewriterError: If there are too few groups to fill three splits.
    """
    named = [_names(example.group, twins) for example in examples]
    sizes = Counter(names[0] for names in named) + Counter(name for names in named for name in names[1:])
    # LEMUR's models are split by themselves: they are many, and would fill the held-out splits.
    parts = [{name: sizes[name] for name in sizes if name.startswith(LEMUR) is lemur} for lemur in (False, True)]
    if max(map(len, parts)) < _FEWEST:
        raise RewriterError(
            f"the feedback set is too small to split: {len(examples)} examples of {len(sizes)} different quartets, "
            f"and at least {_FEWEST} quartets are needed; train or propose more"
        )
    where: dict[str, Split] = {}
    for part in parts:
        where |= _fill(part, seed) if len(part) >= _FEWEST else dict.fromkeys(part, Split.TRAIN)
    splits = [where[names[0]] if len({where[name] for name in names}) == 1 else None for names in named]
    return _without_echoes(examples, splits)


def _fill(sizes: Mapping[str, int], seed: int) -> dict[str, Split]:
    """Fill test and validation up to their shares, at least one group each; train takes the rest."""
    queue = sorted(sizes, key=lambda name: derive(seed, "split", name))
    where = {}
    for split, share in _SHARES:
        taken, kept = 0, []
        for name in queue:
            if taken == 0 or taken + sizes[name] <= share * sum(sizes.values()):
                where[name] = split
                taken += sizes[name]
            else:
                kept.append(name)
        queue = kept
    return {**dict.fromkeys(queue, Split.TRAIN), **where}


def _without_echoes(examples: Sequence[Example], splits: Sequence[Split | None]) -> list[Split | None]:
    """Drop held-out code that nearly repeats code of the train split."""
    pieces: dict[int, Shingles] = {}
    for number, (example, split) in enumerate(zip(examples, splits, strict=True)):
        if split is not None and example.task is Task.REGION:
            # The log cuts long answers: one that does not parse resembles no other.
            with contextlib.suppress(ReplyError, SyntaxError, RecursionError):
                pieces[number] = tree_shingles(python_block(example.answer))
    # Changes from one table give the same code often: each is compared once.
    learned: dict[str, set[Shingles]] = defaultdict(set)
    for number, mine in pieces.items():
        if splits[number] is Split.TRAIN:
            learned[examples[number].place].add(mine)
    kept = list(splits)
    for number, mine in pieces.items():
        if splits[number] is not Split.TRAIN:
            others = learned[examples[number].place]
            if mine in others or any(similarity(mine, other) >= SAME_CODE for other in others):
                kept[number] = None
    return kept


def _names(group: str, twins: Mapping[str, str]) -> list[str]:
    return ["+".join(sorted(twins.get(name, name) for name in part.split("+"))) for part in group.split("|")]
