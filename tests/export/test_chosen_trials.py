"""Trials chosen for an export: boundaries of the accuracy, trials without a training of their own, and bad archives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from export_toys import made_candidate, trained
from fake_lemur import source

from nngen.errors import ArchiveError, DataError, UsageError
from nngen.export.selection import _train_stat, gather, select
from nngen.testing.fakes import fake_record
from nngen.types import Outcome, Verdict


def add(store, name, *results, copied_from=None):
    """Add a campaign of one candidate for each result, which are numbers of right answers, or are changed by a call."""
    made = [made_candidate(32 + number) for number in range(len(results))]
    store.add_campaign(fake_record(name), [one.plan for one in made])
    for one, result, trial in zip(made, results, store.trials(name), strict=True):
        store.add_candidate(one)
        store.start_trial(trial.id)
        store.finish_trial(trial.id, result(one), copied_from=copied_from)


@pytest.mark.parametrize("least", [-0.01, 1.01, 80.0])
def test_what_is_no_share_is_refused(store, least):
    with pytest.raises(UsageError) as failure:
        select(store, campaign="one", min_accuracy=least)
    assert str(failure.value) == f"--min-accuracy is a share between 0 and 1, not {least}"


def test_an_accuracy_of_zero_counts_as_zero(store, digits):
    add(store, "zero", lambda one: trained(one, digits, 0))
    assert [trial.validation_accuracy for trial in select(store, campaign="zero", min_accuracy=0.0)] == [0.0]
    for name, least, best in (("zero", 0.1, "0.0000"), ("one", 1.0, "0.7500")):
        with pytest.raises(UsageError) as failure:
            select(store, campaign=name, min_accuracy=least)
        what = f"no trial of at least {least} (the best has {best})"
        assert str(failure.value) == f"{name}: there is {what} to export"


def test_trials_that_failed_are_none_to_export(store):
    add(store, "bad", lambda _: Verdict(outcome=Outcome.CRASHED))
    for dataset in (None, "digits"):
        with pytest.raises(UsageError) as failure:
            select(store, campaign="bad", dataset=dataset)
        assert str(failure.value) == "bad: there is no valid trial to export"


def test_answers_of_a_recorded_table_are_not_exported(store, digits):
    def replayed(one):
        return replace(trained(one, digits, 300), verdict=Verdict(outcome=Outcome.VALID, rule="table.digits"))

    add(store, "table", replayed)
    with pytest.raises(UsageError) as failure:
        select(store, campaign="table")
    reason = "its trials are replayed from a recorded table, and only trainings are exported"
    assert str(failure.value) == f"table: {reason}"
    add(store, "mixed", lambda one: trained(one, digits, 100), replayed)
    assert [trial.validation_accuracy for trial in select(store, campaign="mixed")] == [0.25]


def test_of_a_copied_result_the_original_is_exported_once(store, digits):
    original = store.trials("one")[0]
    add(store, "copy", lambda one: trained(one, digits, 300), copied_from=original.id)
    both = [store.trials("copy")[0].candidate_id, original.candidate_id]
    assert [trial.id for trial in select(store, campaign="copy")] == [original.id]
    assert [trial.id for trial in select(store, ids=both, dataset="digits")] == [original.id]


def test_names_of_campaign_and_ids_are_in_the_message(store):
    first, second = (trial.candidate_id for trial in store.trials("one")[:2])
    with pytest.raises(UsageError) as failure:
        select(store, campaign="one", ids=[first, second], dataset="mnist")
    where = f"one and {first}, {second}"
    assert str(failure.value) == f"{where}: nothing was trained on mnist: its trials are on digits"


def test_a_result_that_was_revealed_is_not_computed_again(store, digits):
    (trial, *_) = select(store, campaign="one")
    revealed = replace(trial, test_accuracy=0.125, data_fingerprint="")
    (export,) = gather(store, [revealed], lambda *_: replace(digits, test_labels=digits.test_labels[:-1]))
    assert export.score.accuracy == export.score.train_stat["best_accuracy"] == 0.125
    assert export.images == (1151, 287, 358)
    assert store.trial(trial.id).test_accuracy == 0.125


def test_data_with_another_number_of_images_are_not_those_of_the_trial(store, digits):
    (trial, *_) = select(store, campaign="one")
    with pytest.raises(DataError, match=f"^digits is not the data that trial {trial.id} was trained on: ") as failure:
        gather(store, [trial], lambda *_: replace(digits, test_labels=digits.test_labels[:-1]))
    assert "fingerprint" not in str(failure.value)


def test_a_name_that_lemur_cannot_use_is_refused(store, digits):
    (trial, *_) = select(store, campaign="one")
    with pytest.raises(UsageError) as failure:
        gather(store, [replace(trial, spec=replace(trial.spec, dataset="folder:photos"))], lambda *_: digits)
    assert str(failure.value) == "LEMUR cannot use the name folder:photos: give another one with --dataset-name"


def test_a_source_that_was_changed_in_the_archive_is_refused(store, digits, monkeypatch):
    (trial, *_) = select(store, campaign="one")
    stored = store.candidate(trial.candidate_id)
    monkeypatch.setattr(type(store), "candidate", lambda *_: replace(stored, source=source(99)))
    with pytest.raises(ArchiveError) as failure:
        gather(store, [trial], lambda *_: digits)
    reason = "does not match the hash of its source: the archive was changed"
    assert str(failure.value) == f"{trial.candidate_id} {reason}"


def test_an_epoch_of_no_time_has_no_speed(exports):
    trial = exports[0].trial
    timeless = replace(trial, curve=(replace(trial.curve[-1], seconds=0.0),), environment={"cores": ""})
    found = _train_stat(timeless, replace(trial.spec, device="cpu"), 0.5, 100)
    assert (found["samples_per_second"], found["cpu_count"], found["train_loss"]) == (None, None, 1.0)
    named = replace(trial, environment={"device": "a card"})
    assert _train_stat(named, trial.spec, 0.5, 100)["gpu_type"] is None
