"""Feedback set for fine-tuning."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nngen.analysis.ranking.reliability import ASSUMED_SD
from nngen.archive import Archive, StoredTrial, TrialState
from nngen.errors import RewriterError, UsageError
from nngen.families.near_duplicates import SAME_CODE, similarity, tree_shingles, twin_families
from nngen.llm.finetuning import examples as module
from nngen.llm.finetuning.comparisons import group_of
from nngen.llm.finetuning.dataset import build, build_from_archive, collect
from nngen.llm.finetuning.examples import (
    Example,
    Task,
    accuracy_examples,
    improvement_examples,
    region_examples,
    summary_examples,
)
from nngen.llm.finetuning.splits import Split, assign
from nngen.llm.finetuning.stored_set import read_meta, read_view
from nngen.llm.finetuning.views import VIEWS
from nngen.llm.prompts import estimate_tokens, prompt, render
from nngen.llm.proposals.evidence import noise_of, trained_plans
from nngen.llm.proposals.log import proposals
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import python_block
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import parent_values, plan_values
from nngen.llm.rewriters.base import Message
from nngen.surrogate.plan_accuracy import plan_cases
from nngen.surrogate.plan_text import plan_text
from nngen.types import Family, Outcome, Shape, TrialSpec, Verdict

pytest.importorskip("datasets")

NO_TWINS: dict[str, str] = {}


def _example(group: str, number: int = 0, good: bool = True, task: Task = Task.IMPROVE) -> Example:
    return Example(
        task=task,
        messages=(Message(role="user", content=f"question {group}"),),
        answer=f"answer {number}",
        good=good,
        score=float(number),
        group=group,
        origin="o",
        prompt="plan@1-0",
    )


def _groups(count: int) -> list[str]:
    return ["+".join(quartet) for quartet in list(combinations("ABCDEFGH", 4))[:count]]


def test_no_quartet_is_in_two_splits(taught: Archive, tmp_path: Path) -> None:
    built = build_from_archive(taught, tmp_path / "set", count=estimate_tokens)
    where: dict[str, set[str]] = {}
    for view in VIEWS:
        for split in Split:
            for row in read_view(built.folder, view, split.value):
                for quartet in row["group"].split("|"):
                    where.setdefault(quartet, set()).add(split.value)
    assert where
    assert all(len(splits) == 1 for splits in where.values())
    assert {split for splits in where.values() for split in splits} == {"train", "validation", "test"}


def test_near_duplicate_families_count_as_one() -> None:
    examples = [_example(group, number) for number, group in enumerate(_groups(30))]
    twins = {"A": "A", "B": "A", **{name: name for name in "CDEFGH"}}
    splits = dict(zip((row.group for row in examples), assign(examples, twins, 0), strict=True))
    for group, split in splits.items():
        other = "+".join(sorted(group.replace("A", "B").split("+")))
        if "A" in group and "B" not in group and other in splits:
            assert splits[other] is split


def test_lemurs_near_duplicate_families_are_found(families: dict[str, Family]) -> None:
    twins = twin_families({name: family.source for name, family in families.items()})
    assert twins["InceptionV3-2"] == "InceptionV3-1"
    assert twins["SqueezeNet-2"] == "SqueezeNet-1"
    assert twins["ResNet"] == "ResNet"
    assert len(set(twins.values())) > 25


def test_held_out_code_does_not_repeat_train_code(taught: Archive, tmp_path: Path) -> None:
    built = build_from_archive(taught, tmp_path / "set", count=estimate_tokens, tasks=["region"])
    rows = {split: read_view(built.folder, "kto", split) for split in ("train", "test", "validation")}
    pieces = {
        split: [tree_shingles(python_block(row["completion"][0]["content"])) for row in found]
        for split, found in rows.items()
    }
    for held in pieces["test"] + pieces["validation"]:
        assert all(similarity(held, learned) < SAME_CODE for learned in pieces["train"])


def test_an_example_of_two_splits_is_left_out() -> None:
    groups = _groups(20)
    examples = [_example(group, number) for number, group in enumerate(groups)]
    alone = dict(zip(groups, assign(examples, NO_TWINS, 0), strict=True))
    one = next(group for group in groups if alone[group] is Split.TRAIN)
    other = next(group for group in groups if alone[group] is Split.TEST)
    assert alone[one] is not None
    both = [*examples, _example(f"{one}|{other}", 99)]
    where = assign(both, NO_TWINS, 0)
    named = dict(zip(groups, where, strict=False))
    assert where[-1] is (named[one] if named[one] is named[other] else None)


def test_too_small_to_split() -> None:
    with pytest.raises(RewriterError, match="too small to split: 2 examples of 2 different quartets"):
        assign([_example("A+B+C+D"), _example("A+B+C+E", 1)], NO_TWINS, 0)


def test_long_answers_are_dropped_and_never_cut(tmp_path: Path) -> None:
    examples = [_example(group, number) for number, group in enumerate(_groups(20))]
    long = Example(**{**{f: getattr(examples[0], f) for f in examples[0].__slots__}, "answer": "x" * 4000})
    built = build([*examples, long], tmp_path / "set", twins=NO_TWINS, count=estimate_tokens, limit=100)
    assert built.drops.long == 1
    answers = [row["messages"][-1]["content"] for split in Split for row in read_view(built.folder, "sft", split.value)]
    assert sorted(answers) == sorted(row.answer for row in examples)


def test_each_view_holds_its_answers(tmp_path: Path) -> None:
    examples = [
        _example(group, number, good=good, task=Task.REGION)
        for group in _groups(20)
        for number, good in enumerate((False, False, True))
    ]
    built = build(examples, tmp_path / "set", twins=NO_TWINS, count=estimate_tokens)
    for split in Split:
        sft, dpo, kto = (read_view(built.folder, view, split.value) for view in ("sft", "dpo", "kto"))
        assert len(kto) == 3 * len(sft) == 3 * len(dpo)
        assert all(row["messages"][-1] == {"role": "assistant", "content": "answer 2"} for row in sft)
        assert all(row["chosen"][0]["content"] == "answer 2" for row in dpo)
        assert all(row["rejected"][0]["content"] == "answer 0" for row in dpo)
        assert sum(row["label"] for row in kto) == len(sft)


def test_parquet_and_jsonl_agree_and_the_card_counts_them(taught: Archive, tmp_path: Path) -> None:
    import datasets

    built = build_from_archive(taught, tmp_path / "set", count=estimate_tokens)
    rows = read_view(built.folder, "sft", "train")
    table = datasets.Dataset.from_parquet(str(built.folder / "sft" / "train.parquet"), cache_dir=str(tmp_path / "c"))
    assert table.to_list() == rows
    card = (built.folder / "README.md").read_text()
    assert built.fingerprint in card
    assert f"| sft | {len(rows)} |" in card
    meta = json.loads((built.folder / "feedback.json").read_text())
    assert meta["counts"]["sft"]["train"] == len(rows)


def test_the_same_archive_gives_the_same_fingerprint(taught: Archive, tmp_path: Path) -> None:
    one = build_from_archive(taught, tmp_path / "one", count=estimate_tokens)
    two = build_from_archive(taught, tmp_path / "two", count=estimate_tokens)
    assert one.fingerprint == two.fingerprint
    again = build_from_archive(taught, tmp_path / "one", count=estimate_tokens, seed=5)
    assert again.fingerprint != one.fingerprint


def test_a_folder_with_other_content_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RewriterError, match="is not a feedback set: choose another"):
        build([], tmp_path / "mine", twins=NO_TWINS, count=estimate_tokens)
    with pytest.raises(RewriterError, match="is not a feedback set"):
        read_view(tmp_path / "mine", "sft", "train")


def test_every_task_is_found(taught: Archive, space: PlanSpace) -> None:
    found = collect(taught)
    assert {row.task for row in found} == set(Task) - {Task.LEMUR}
    regions = [row for row in found if row.task is Task.REGION]
    assert {row.good for row in regions} == {True, False}
    trials = taught.trials()
    best = {trial.candidate_id: trial.validation_accuracy for trial in trials}
    assert best
    plans = {plan_text(trial.plan): trial.plan for trial in trials}
    for row in improvement_examples(trials, space):
        assert plan_text(space.read(row.answer, plans[row.origin])) in plans
    good = [row.score for row in summary_examples(trials, space) if row.good]
    bad = [row.score for row in summary_examples(trials, space) if not row.good]
    assert min(good) > max(bad)
    for row in accuracy_examples(trials):
        assert 0 <= float(row.answer) <= 1
    with pytest.raises(UsageError, match="no task is called 'regio'"):
        collect(taught, ["regio"])


def test_only_plans_with_equal_fixed_fields_are_compared(taught: Archive, space: PlanSpace) -> None:
    trials = taught.trials()
    odd = [
        replace(trial, plan=replace(trial.plan, losses=replace(trial.plan.losses, z=0.1)), validation_accuracy=0.99)
        for trial in trials[:1]
    ]
    mixed = [*odd, *trials[1:]]
    for before, after in (
        (improvement_examples(trials[1:], space), improvement_examples(mixed, space)),
        (summary_examples(trials[1:], space), summary_examples(mixed, space)),
        (accuracy_examples(trials[1:]), accuracy_examples(mixed)),
    ):
        assert list(before) == list(after)
    assert len(plan_cases([*trials[:1], *odd])) == 2


def test_duplicates_become_one_example(taught: Archive) -> None:
    candidates = {candidate.id: candidate for candidate in taught.candidates()}
    held = proposals(taught)
    assert len(list(region_examples(held, candidates))) == sum(row.twin is None for row in held if row.region)


def test_rows_do_not_name_the_folders_of_this_machine():
    trials = [replace(trial, spec=replace(trial.spec, dataset="folder:/home/me/photos")) for trial in _trials(12)]
    texts = [message.content for row in accuracy_examples(trials) for message in row.messages]
    assert any(" on photos after " in text for text in texts)
    assert not any("/home" in text for text in texts)


def _trials(count: int, seed: int = 0) -> list[StoredTrial]:
    """Return trained trials of drawn plans over twelve families."""
    rng, space = Random(seed), PlanSpace(families=tuple("ABCDEFGHIJKL"))
    spec = TrialSpec(dataset="digits", shape=Shape(1, 8, 8))
    return [
        StoredTrial(
            id=number,
            campaign="c",
            position=number,
            rung=0,
            replicate=0,
            plan=space.draw(rng),
            state=TrialState.DONE,
            candidate_id=f"c{number}",
            spec=spec,
            verdict=Verdict(outcome=Outcome.VALID),
            validation_accuracy=rng.choice([0.25, 0.5, rng.random()]),
        )
        for number in range(count)
    ]


def _children(count: int, seed: int = 0) -> list[StoredTrial]:
    """Return trained trials of eight drawn plans and of changes of them and of one another, in two campaigns."""
    rng, space = Random(seed), PlanSpace(families=tuple("ABCDEFGHIJKL"))
    trials: list[StoredTrial] = []
    for number, trial in enumerate(_trials(count, seed)):
        plan = trial.plan if number < 8 else space.mutate(rng.choice(trials).plan, rng)
        trials.append(
            replace(
                trial,
                plan=plan,
                campaign="first" if number < count // 2 else "second",
                candidate_id=plan_text(plan),
                validation_accuracy=Random(plan_text(plan)).random(),
            )
        )
    return trials


@pytest.mark.long
def test_answers_are_edits_that_lead_to_clearly_better_and_clearly_worse_plans() -> None:
    trials, space = _children(200), PlanSpace(families=tuple("ABCDEFGHIJKL"))
    plans, noise = {row.candidate: row for row in trained_plans(trials)}, noise_of(trials)
    found = list(improvement_examples(trials, space))
    assert len(found) > 200
    by_parent: Counter[tuple[str, bool]] = Counter()
    for row in found:
        parent = plans[row.origin]
        child = plans[plan_text(space.read(row.answer, parent.plan))]
        gap = (child.accuracy - parent.accuracy) / (2 * noise.error(parent, child))
        assert abs(gap) > 1
        assert (row.good, row.score) == (gap > 0, child.accuracy)
        assert row.weight == pytest.approx(min(abs(gap), 3), abs=0.001)
        assert 1 <= len(json.loads(row.answer)) <= 3
        assert len(row.answer) < 130
        by_parent[row.origin, row.good] += 1
    assert max(by_parent.values()) == 4
    # Answers to one question can be paired.
    assert any(number > 1 for number in Counter(row.messages for row in found).values())


@pytest.mark.long
def test_a_question_shows_nothing_of_its_answer_and_what_was_tried_before() -> None:
    trials, space = _children(300), PlanSpace(families=tuple("ABCDEFGHIJKL"))
    plans = {row.candidate: row for row in trained_plans(trials)}
    begun = {"first": 0, "second": 150}
    tried = 0
    for row in improvement_examples(trials, space):
        text = row.messages[-1].content
        parent = plans[row.origin]
        child = plans[plan_text(space.read(row.answer, parent.plan))]
        assert child.candidate not in text
        assert f"\n{row.answer} " not in text
        for line in re.findall(r"^(\{.*?\}) [+-]", text, re.MULTILINE):
            tried += 1
            known = plans[plan_text(space.read(line, parent.plan))]
            assert group_of(known.plan.experts) == group_of(parent.plan.experts)
            assert known.first < (
                max(begun[child.campaign], parent.first + 1) if child.first > parent.first else child.first
            )
    assert tried > 20


def test_no_question_calls_a_trained_family_untrained() -> None:
    trials, space = _children(60), PlanSpace(families=tuple("ABCDEFGHIJKLXY"))
    begun = {name: place for place, trial in reversed(list(enumerate(trials))) for name in trial.experts}
    plans = {row.candidate: row for row in trained_plans(trials)}
    lists = 0
    for row in improvement_examples(trials, space):
        (text,) = re.findall(r"^Families not trained yet: (.*)$", row.messages[-1].content, re.MULTILINE) or [""]
        parent = plans[row.origin]
        child = plans[plan_text(space.read(row.answer, parent.plan))]
        moment = min(child.first, parent.first + 1)
        named = set(text.split(", ")) - {""}
        assert {"X", "Y"} <= named or not named
        assert not named & set(parent.plan.experts)
        assert not [name for name in named if begun.get(name, 60) < moment and child.first > parent.first]
        lists += bool(named)
    assert lists > 10


@pytest.mark.long
def test_questions_are_those_of_proposing() -> None:
    def headings(text: str) -> set[str]:
        heads = "Families|Values|Pairs|Differences|The best plans|Improve on this plan|Changes of it|Write a new change"
        return set(re.findall(rf"^({heads})", text, re.MULTILINE))

    trials, space = _children(200), PlanSpace(families=tuple("ABCDEFGHIJKL"))
    found = [headings(row.messages[-1].content) for row in improvement_examples(trials, space)]
    asked = set()
    for trial in trials[:40]:
        parent = Parent(id=trial.candidate_id or "", source="", plan=trial.plan, accuracy=trial.validation_accuracy)
        values = plan_values(trials, space) | parent_values(parent, trials, space)
        asked |= headings(render(prompt("plan"), values, estimate_tokens).messages[-1].content)
    assert asked <= set().union(*found)
    assert {"Improve on this plan", "Values", "Differences", "Changes of it", "Write a new change"} <= asked


@pytest.mark.long
def test_effects_of_questions_are_fitted_at_five_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    monkeypatch.setattr(
        module, "plan_values", lambda known, space: (fitted.append(len(known)), plan_values((), space))[1]
    )
    list(improvement_examples(_children(200), PlanSpace(families=tuple("ABCDEFGHIJKL"))))
    assert sorted(fitted) == [0, 40, 80, 120, 160]


def test_trials_of_the_judge_tell_the_noise_and_nothing_else() -> None:
    space = PlanSpace(families=tuple("ABCDE"), rates=(1.0,))
    first, second = (replace(space.draw(Random(0)), experts=tuple(names)) for names in ("ABCD", "ABCE"))
    rows = [(first, 0.5, "c"), (second, 0.7, "c"), (first, 0.9, "judge"), (first, 0.1, "judge")]
    trials = [
        replace(trial, plan=plan, campaign=campaign, candidate_id=plan_text(plan), validation_accuracy=value)
        for trial, (plan, value, campaign) in zip(_trials(4), rows, strict=True)
    ]
    assert list(improvement_examples(trials, space, {"judge"})) == []
    calm = [replace(trial, validation_accuracy=0.5) if trial.campaign == "judge" else trial for trial in trials]
    assert {row.score for row in improvement_examples(calm, space, {"judge"})} == {0.5, 0.7}


def test_gaps_inside_the_noise_between_seeds_teach_nothing() -> None:
    space = PlanSpace(families=tuple("ABCDE"), rates=(1.0,))
    first, second, third = (replace(space.draw(Random(0)), experts=tuple(names)) for names in ("ABCD", "ABCE", "ABDE"))
    values = [(first, 0.50), (first, 0.54), (second, 0.55), (third, 0.90)]
    trials = [
        replace(trial, plan=plan, candidate_id=plan_text(plan), validation_accuracy=value)
        for trial, (plan, value) in zip(_trials(4), values, strict=True)
    ]
    pairs = {(row.origin, row.answer) for row in improvement_examples(trials, space) if row.good}
    assert pairs == {(plan_text(first), '{"experts":"C->E"}'), (plan_text(second), '{"experts":"C->D"}')}
    bad = {(row.origin, row.answer) for row in improvement_examples(trials, space) if not row.good}
    assert bad == {(plan_text(third), '{"experts":"E->C"}'), (plan_text(third), '{"experts":"D->C"}')}


def test_no_answer_has_more_than_a_tenth_of_the_rows(tmp_path: Path) -> None:
    rows = [
        _example(group, number)
        for place, group in enumerate(_groups(60))
        for number in {0, place % 2, 1000 + place}
    ]  # fmt: skip
    built = build(rows, tmp_path / "set", twins=NO_TWINS, count=estimate_tokens)
    assert built.drops.often > 40
    for split in Split:
        kept = Counter(row["messages"][-1]["content"] for row in read_view(built.folder, "sft", split.value))
        assert max(kept.values()) <= max(1, sum(kept.values()) / 10)
        assert sum(answer not in ("answer 0", "answer 1") for answer in kept) == len(kept) - 2


def test_a_region_is_judged_by_the_accuracy_of_its_child(taught: Archive) -> None:
    held = [row for row in proposals(taught) if row.region and row.valid and row.twin is None]
    candidates = {candidate.id: candidate for candidate in taught.candidates()}
    child, parent = held[0].candidate, held[0].parent
    (before,) = [trial for trial in taught.trials() if trial.candidate_id == parent]
    for change in (0.1, -0.1):
        accuracy = (before.validation_accuracy or 0.0) + change
        after = replace(before, id=10_000, candidate_id=child, validation_accuracy=accuracy)
        (row,) = region_examples(held[:1], candidates, [before, after])
        gap = change / (2 * 2**0.5 * ASSUMED_SD)
        assert (row.good, row.score, row.writer) == (change > 0, pytest.approx(1 + gap), held[0].rewriter)
        assert row.weight == pytest.approx(abs(gap), abs=0.001)
        assert f"The accuracy is {before.validation_accuracy:.4f}." in row.messages[-1].content
    close = replace(before, id=10_000, candidate_id=child, validation_accuracy=(before.validation_accuracy or 0) - 0.01)
    for trials in ([before, close], []):  # inside the noise, and not trained
        (row,) = region_examples(held[:1], candidates, trials)
        assert (row.good, row.score, row.weight) == (True, 1.0, 1.0)


def test_writers_are_chosen(taught: Archive) -> None:
    everyone = {row.writer for row in collect(taught, ["region"])}
    assert len(everyone) > 1
    one = sorted(everyone)[0]
    assert {row.writer for row in collect(taught, ["region"], writers=[one])} == {one}
    with pytest.raises(UsageError, match="nobody wrote no proposal; mutate"):
        collect(taught, ["region"], writers=["nobody"])


def test_effects_are_fitted_five_times_and_never_on_the_answer_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[set[str]] = []

    def values(trials: Sequence[StoredTrial], space: PlanSpace) -> dict[str, Any]:
        fitted.append({group_of(trial.experts) for trial in trials})
        return plan_values((), space) | {"unmeasured": [str(len(fitted) - 1)]}

    monkeypatch.setattr(module, "plan_values", values)
    found = list(summary_examples(_trials(300), PlanSpace(families=tuple("ABCDEFGHIJKL"))))
    assert len(fitted) == 5
    assert len(found) == 150
    for row in found:
        (fit,) = re.findall(r"not trained yet: (\d)$", row.messages[-1].content, flags=re.MULTILINE)
        assert row.group not in fitted[int(fit)]


@pytest.mark.long
def test_examples_take_time_in_proportion_to_the_trials() -> None:
    space, seconds = PlanSpace(families=tuple("ABCDEFGHIJKL")), []
    for count in (400, 1600):
        trials = _trials(count)
        began = time.process_time()
        assert [*improvement_examples(trials, space), *summary_examples(trials, space), *accuracy_examples(trials)]
        seconds.append(time.process_time() - began)
    assert seconds[1] < 10 * seconds[0]


def test_regions_of_damaged_candidates_are_left_out(taught: Archive) -> None:
    held = [row for row in proposals(taught) if row.region]
    candidates = {candidate.id: replace(candidate, source="x = (") for candidate in taught.candidates()}
    assert list(region_examples(held, candidates)) == []


def test_texts_with_odd_separators_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [replace(_example(group, number), answer=f"a\u2028\x85{number}") for number, group in enumerate(_groups(9))]
    build(rows, tmp_path / "set", twins=NO_TWINS, count=estimate_tokens)
    read = [row for split in Split for row in read_view(tmp_path / "set", "sft", split)]
    assert sorted(row["messages"][-1]["content"] for row in read) == sorted(row.answer for row in rows)


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"task": "improve"', "line 1, cannot be read"),
        (b"\xff\xfe", "line 1, cannot be read"),
        (b"[" * 100_000, "line 1, cannot be read"),
        (b"[1]", "line 1, is not a row for sft"),
        (b'{"task": 3, "messages": []}', "line 1, is not a row for sft"),
        (b'{"task": "improve", "messages": [{"role": "user", "content": "q"}]}', "is not a row for sft"),
        (b'{"task": "x", "weight": NaN, "messages": []}', "is not a row for sft"),
        (b'{"task": "x", "messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}', "is not a row"),
        (b'{"task": "x", "messages": [{"role": "u", "content": "q"}, {"role": "a", "content": "\\ud800"}]}', "is not"),
    ],
)
def test_damaged_rows_are_named_with_the_way_out(tmp_path: Path, line: bytes, message: str) -> None:
    rows = [_example(group, number) for number, group in enumerate(_groups(9))]
    folder = build(rows, tmp_path / "set", twins=NO_TWINS, count=estimate_tokens).folder
    (folder / "sft" / "train.jsonl").write_bytes(line + b"\n")
    with pytest.raises(RewriterError, match=message) as caught:
        read_view(folder, "sft", "train")
    assert "nngen feedback build" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[", "[" * 100_000, "3", "{}", '{"fingerprint": 3, "prompts": []}', '{"prompts": 1}']
)
def test_a_damaged_head_of_a_feedback_set_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "feedback.json").write_text(text)
    with pytest.raises(RewriterError, match=r"feedback\.json is damaged.*nngen feedback build"):
        read_meta(tmp_path)
