"""Weights and logits that campaigns kept, found by the names of campaigns, candidates and families."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nngen.archive import Archive
from nngen.errors import DataError, UsageError
from nngen.export.kept_weights import family_weights, find_outputs, find_weights, kept_file
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.training.inference import KeptWeights
from nngen.types import Outcome


@pytest.fixture
def archive(tmp_path):
    with Archive.open(tmp_path / "a.db") as archive:
        fake_campaign(archive, size=3).run()
        yield archive


def ranked(archive, campaign="one"):
    return sorted(archive.trials(campaign), key=lambda trial: -trial.validation_accuracy)


def keep(archive, trial, name="weights", content=b"x"):
    folder = archive.weights / f"trial-{trial.id}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.safetensors").write_bytes(content)
    return folder / f"{name}.safetensors"


def logits_of(archive, trial):
    return np.eye(10, dtype="<f2")[np.frombuffer(archive.predictions(trial.id, "validation"), "<u2")]


def test_families_have_one_file_for_each_seed(archive):
    alone = fake_campaign(archive).baselines()
    alone.run()
    trials = {trial.experts[0]: trial for trial in archive.trials(alone.spec.name)}
    assert set(trials) == set("ABCDEFG")
    files = {name: (keep(archive, trials[name]),) for name in "AB"}
    assert {name: (kept_file(archive, trials[name]),) for name in "AB"} == files
    assert kept_file(archive, trials["C"]) is None
    assert family_weights(archive, alone.spec.name, 2, ["A", "B"]) == files
    with pytest.raises(UsageError, match="kept no weights of C after 2 epochs: train"):
        family_weights(archive, alone.spec.name, 2, ["A", "C"])
    with pytest.raises(UsageError, match="kept no weights of A and B after 3 epochs: train"):
        family_weights(archive, alone.spec.name, 3, ["A", "B"])


def test_logits_of_families_alone_are_in_the_archive(archive):
    alone = fake_campaign(archive).baselines()
    alone.run()
    _, trial, found = find_outputs(archive, alone.spec.name)
    assert trial.id == ranked(archive, alone.spec.name)[0].id
    assert np.array_equal(found, logits_of(archive, trial))


def test_logits_of_the_best_trial_come_first(archive):
    best, second, _ = ranked(archive)
    for trial in (best, second):
        keep(archive, trial, "logits", b"header" + logits_of(archive, trial).tobytes())
    for name in ("one", best.candidate_id[:12]):
        candidate, trial, found = find_outputs(archive, name)
        assert (candidate.id, trial.id, found.dtype) == (best.candidate_id, best.id, np.float32)
        assert np.array_equal(found, logits_of(archive, best))
    fake_campaign(archive, name="two", size=3).run()  # the same work, copied
    copied = find_outputs(archive, "two")[1]
    assert (copied.campaign, copied.copied_from) == ("two", best.id)


@pytest.mark.parametrize("change", ["another answer", "not finite", "too short"])
def test_logits_that_do_not_fit_the_predictions_are_passed_over(archive, change):
    best, second, third = ranked(archive)
    logits = logits_of(archive, best)
    logits[-1] = {"another answer": -logits[-1], "not finite": np.inf, "too short": logits[-1]}[change]
    keep(archive, best, "logits", logits.tobytes()[: -2 if change == "too short" else None])
    keep(archive, second, "logits", logits_of(archive, second).tobytes())
    assert find_outputs(archive, "one")[1].id == second.id
    with pytest.raises(DataError, match="is missing"):  # its folder is there, and has no weights
        find_outputs(archive, best.candidate_id)
    with pytest.raises(UsageError, match="kept none"):
        find_outputs(archive, third.candidate_id)


def test_where_nothing_was_kept_the_reason_is_given(archive):
    for name, what in (("one", "its 3 trials kept none"), (archive.trials("one")[0].candidate_id, "its 1 trials")):
        with pytest.raises(UsageError, match=what):
            find_weights(archive, name)
    fake_campaign(
        archive, name="bad", seed=5, size=1, engine=FakeEngine(trials=dict.fromkeys("ABCDEFG", Outcome.CRASHED))
    ).run()
    with pytest.raises(UsageError, match="it was not trained"):
        find_weights(archive, "bad")


@pytest.fixture
def read(monkeypatch):
    """Kept weights are read as the path of their folder."""
    monkeypatch.setattr(KeptWeights, "read", classmethod(lambda cls, folder: folder))


@pytest.mark.usefixtures("read")
def test_weights_are_those_of_the_best_trial_that_kept_some(archive):
    best, second, third = ranked(archive)
    keep(archive, third)
    keep(archive, second)
    for find in (find_weights, find_outputs):  # there are no logits
        candidate, trial, folder = find(archive, "one")
        assert (candidate.id, trial.id, folder) == (
            second.candidate_id,
            second.id,
            archive.weights / f"trial-{second.id}",
        )
    keep(archive, best)
    assert find_weights(archive, "one")[1].id == best.id
    assert find_weights(archive, third.candidate_id[:12])[2] == archive.weights / f"trial-{third.id}"


@pytest.mark.usefixtures("read")
def test_a_trial_without_a_right_answer_comes_last_and_a_higher_rung_first(archive, monkeypatch):
    first, second, third = archive.trials("one")
    ranks = {first.id: (0, 0.0), second.id: (0, 0.5), third.id: (1, 0.25)}
    trials = [
        replace(trial, rung=ranks[trial.id][0], validation_accuracy=ranks[trial.id][1])
        for trial in (first, second, third)
    ]
    monkeypatch.setattr(type(archive), "trials", lambda *_, **__: trials)
    for trial in (first, second, third):
        keep(archive, trial)
    found = []
    while (archive.weights / f"trial-{first.id}").exists():
        trial, folder = find_weights(archive, "one")[1:]
        found.append(trial.id)
        folder.rename(archive.weights / f"gone-{trial.id}")
    assert found == [third.id, second.id, first.id]


def test_an_archive_without_a_folder_keeps_none():
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=1).run()
        (trial,) = archive.trials("one")
        assert kept_file(archive, trial) is None
        with pytest.raises(UsageError) as failure:
            find_weights(archive, "one")
    message = "weights of one are not in None: its 1 trials kept none; campaigns keep those of their best trial, more"
    assert str(failure.value).startswith(message)


def test_weights_of_families_are_of_the_epochs_asked_for_and_not_suspect(archive, monkeypatch):
    alone = fake_campaign(archive).baselines()
    alone.run()
    trials = {trial.experts[0]: trial for trial in archive.trials(alone.spec.name)}
    a, b = trials["A"], trials["B"]
    given = [
        replace(a, replicate=1, id=101),
        replace(a, replicate=0, id=103),
        replace(a, replicate=0, id=102),
        replace(a, suspect="50 passes", id=104),
        replace(a, spec=replace(a.spec, epochs=3), id=105),
        replace(a, validation_accuracy=None, id=106),
        replace(a, spec=None, id=107),
        replace(b, id=108),
        replace(a, id=109),  # keeps none
    ]
    monkeypatch.setattr(type(archive), "trials", lambda *_, **__: given)
    files = {trial.id: keep(archive, trial) for trial in given[:-1]}
    assert family_weights(archive, "any", 2, ["A"]) == {"A": (files[102], files[103], files[101])}
    assert family_weights(archive, "any", 3, ["A"]) == {"A": (files[105],)}
    with pytest.raises(UsageError) as failure:
        family_weights(archive, "any", 2, ["G", "F", "A", "E", "D", "C"])
    assert str(failure.value) == (
        "campaign any kept no weights of G, F, E and 2 more after 2 epochs: train the families again under another "
        "name, with --keep-weights all"
    )
