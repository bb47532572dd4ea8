"""Whole files in the feedback set: assembled mixtures and LEMUR's models."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from nngen.archive import Archive
from nngen.llm.finetuning.comparisons import group_of
from nngen.llm.finetuning.dataset import build_from_archive
from nngen.llm.finetuning.sources import lemur_examples, source_examples
from nngen.llm.finetuning.splits import Split, Task
from nngen.llm.finetuning.stored_set import read_view
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.deltas import apply_delta
from nngen.llm.proposals.parsing import diff_block, python_block
from nngen.plan import Plan
from nngen.types import Record

pytest.importorskip("datasets")


def test_files_come_with_their_plan_their_accuracy_and_the_change_to_a_better_one(taught: Archive) -> None:
    found = list(source_examples(taught.trials(), taught.candidate))
    counts = Counter(row.task for row in found)
    trained = {trial.candidate_id: trial for trial in taught.trials() if trial.trained}
    assert counts[Task.SOURCE] == counts[Task.CODE] == len(trained)
    assert counts[Task.DELTA] > 4
    for row in found:
        stored, trial = taught.candidate(row.origin), trained[row.origin]
        text = row.messages[-1].content
        if row.task is Task.SOURCE:
            assert Plan.from_dict(json.loads(text.splitlines()[-1])) == stored.plan
            assert python_block(row.answer).strip() == stored.source.strip()
            compile(python_block(row.answer), "file.py", "exec")
        elif row.task is Task.CODE:
            assert stored.source.strip() in text and trial.spec is not None
            assert f"with batch {trial.spec.batch}, lr {trial.spec.lr}, momentum {trial.spec.momentum}." in text
            assert float(row.answer) == pytest.approx(trial.validation_accuracy, abs=0.0005)
        else:
            delta = diff_block(row.answer)
            assert delta is not None
            after = apply_delta(stored.source, delta)
            child = next(
                taught.candidate(name or "") for name in trained if taught.candidate(name or "").source == after
            )
            better = trained[child.id].validation_accuracy
            assert better is not None and trial.validation_accuracy is not None
            assert better > trial.validation_accuracy + 0.03
            assert set(row.group.split("|")) == {group_of(trial.experts), group_of(trained[child.id].experts)}


def test_the_view_holds_whole_files_and_drops_long_ones(taught: Archive, tmp_path: Path) -> None:
    files = ("source", "code", "delta")
    built = build_from_archive(taught, tmp_path / "long", count=estimate_tokens, file_limit=10**6, tasks=files)
    rows = [row for split in Split for row in read_view(built.folder, "source", split)]
    assert {row["task"] for row in rows} == set(files)
    assert (built.drops.files, built.drops.long) == (0, 0)
    assert sum(built.counts["sft"].values()) == 0
    sizes = sorted(estimate_tokens("\n".join(turn["content"] for turn in row["messages"])) for row in rows)
    short = build_from_archive(
        taught, tmp_path / "short", count=estimate_tokens, file_limit=sizes[len(sizes) // 2], tasks=files
    )
    assert short.drops.files > 0
    kept = [row for split in Split for row in read_view(short.folder, "source", split)]
    assert 0 < len(kept) < len(rows)
    longest = max(sum(len(turn["content"]) for turn in row["messages"]) for row in kept)
    assert longest / 3 <= sizes[len(sizes) // 2]
    card = (built.folder / "README.md").read_text()
    assert "characters ..." in card
    assert card.count("[assistant]") == 3


def test_changes_between_lemurs_models_have_equal_hyperparameters_and_families_of_their_own() -> None:
    sources = {f"{family}-{number:08x}": f"x = {number}\n" for family in ("Big", "Small") for number in range(120)}
    rows = [
        Record(
            model=model,
            dataset="cifar-10",
            epoch=1,
            accuracy=number / 240,
            duration_s=1.0,
            hyperparameters={"lr": 0.1 if number % 2 else 0.01},
        )
        for number, model in enumerate(sources)
    ]
    odd = [Record(model="Big-00000000", dataset="d", epoch=1, accuracy=7, duration_s=1.0, hyperparameters={})]
    found = list(lemur_examples(sources, [*rows, *odd]))
    assert all("trained on cifar-10 with lr " in row.messages[-1].content for row in found if row.task is Task.CODE)
    bare = [replace(odd[0], accuracy=0.5)]
    assert ["It is trained on d. What" in row.messages[-1].content for row in lemur_examples(sources, bare)] == [True]
    accuracies = {row.model: row.accuracy for row in rows}
    rates = {row.model: row.hyperparameters["lr"] for row in rows}
    named = {source: model for model, source in sources.items() if model.startswith("Big")}
    pairs = Counter(row.group for row in found if row.task is Task.LEMUR)
    assert set(pairs) == {"lemur:Big", "lemur:Small"}
    assert max(pairs.values()) == 50
    assert sum(row.task is Task.CODE for row in found) == len(sources)
    for row in found:
        if row.task is Task.LEMUR and row.group == "lemur:Big":
            delta = diff_block(row.answer)
            assert delta is not None
            better = named[apply_delta(sources[row.origin], delta)]
            assert accuracies[better] > accuracies[row.origin] + 0.039
            assert rates[better] == rates[row.origin]
            assert f"lr {rates[better]}" in row.messages[-1].content
