"""Views of a feedback set: the rows that examples become for each way of tuning."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from nngen.llm.finetuning.splits import Example, Row, Task

FILES = (Task.CODE, Task.SOURCE, Task.DELTA, Task.LEMUR)
"""Tasks whose rows hold whole files."""

_JUDGED = (Task.REGION, Task.IMPROVE, Task.SUMMARY)  # tasks with bad answers as well


def question(row: Example) -> str:
    """Return the text of all turns before the answer."""
    return "\n".join(message.content for message in row.messages)


def fingerprint(views: Mapping[str, Mapping[str, Sequence[Row]]]) -> str:
    """Hash the rows of every view and split, in order."""
    text = json.dumps(views, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _sft(rows: Sequence[Example]) -> list[Row]:
    return [_dialogue(row) for row in rows if row.good and row.task not in FILES]


def _source(rows: Sequence[Example]) -> list[Row]:
    return [_dialogue(row) for row in rows if row.task in FILES]


def _dialogue(row: Example) -> Row:
    return {"messages": [*_turns(row), *_answer(row)], **_about(row)}


def _dpo(rows: Sequence[Example]) -> list[Row]:
    """Pair the answers to each question: the best with the worst, the second best with the second worst, ..."""
    questions: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        if row.task in _JUDGED:
            questions[question(row)].append(row)
    pairs = []
    for answers in questions.values():
        good = sorted((row for row in answers if row.good), key=lambda row: -row.score)
        bad = sorted((row for row in answers if not row.good), key=lambda row: row.score)
        for better, worse in zip(good, bad, strict=False):
            # The margin of the pair: both answers are apart from the same plan.
            weight = round((better.weight + worse.weight) / 2, 3)
            turns = {"prompt": _turns(better), "chosen": _answer(better), "rejected": _answer(worse)}
            pairs.append({**turns, **_about(better), "weight": weight})
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
    return {**about, "origin": row.origin, "prompt_id": row.prompt, "writer": row.writer, "weight": row.weight}


VIEWS: Mapping[str, Callable[[Sequence[Example]], list[Row]]] = {
    "sft": _sft,
    "dpo": _dpo,
    "kto": _kto,
    "source": _source,
}
"""Makers of the rows of each view: good answers; pairs of a better and a worse answer; good and bad answers with a
label; and whole files, which are long."""
