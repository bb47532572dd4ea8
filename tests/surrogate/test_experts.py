"""Outputs of families alone and accuracies of joint trainings, read from an archive of fake trials."""

from dataclasses import replace

import numpy as np
import pytest

from nngen.archive import Archive
from nngen.campaign_spec import ALONE
from nngen.errors import UsageError
from nngen.surrogate.experts import joint_accuracies, load_experts
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_dataset
from nngen.types import Outcome


@pytest.fixture
def archive():
    with Archive.in_memory() as archive:
        yield archive


class Broken(FakeEngine):
    """Engine whose family F has logits that are not finite, and whose family G has too few."""

    def train(self, job, on_epoch=None):
        trial = super().train(job, on_epoch)
        values = np.frombuffer(trial.validation_logits, "<f2").copy()
        if job.candidate.plan.experts == ("F",):
            values[3] = np.nan
        return replace(trial, validation_logits=values[10 if job.candidate.plan.experts == ("G",) else 0 :].tobytes())


def alone(archive, **changes):
    return fake_campaign(archive, **{"name": "experts", "sampler": ALONE, "size": 7, "reveal": False} | changes).run()


def test_outputs_of_every_seed_with_labels_and_features(archive):
    alone(archive, finalists=7, replicates=2)
    found = load_experts(archive)
    assert (found.campaign, found.families, found.missing) == ("experts", tuple("ABCDEFG"), {})
    assert found.logits.shape == (2, 7, 40, 10)
    assert found.labels.tolist() == fake_dataset().validation_labels.tolist()
    assert found.features.shape == (40, 16) and not found.features.any()
    hits = (found.logits.argmax(3) == found.labels).mean(2)
    assert hits.mean(0) == pytest.approx(found.accuracies)
    # Half of the skill after the first of two epochs, up to the rounding to images.
    assert found.speed == pytest.approx([0.5] * 7, abs=0.3)
    assert (found.parameters > 1000).all()


def test_a_rung_has_its_own_outputs(archive):
    alone(archive, rungs=(1, 3), epochs=3, reduction_factor=1)
    assert load_experts(archive, epochs=1).fidelity.epochs == 1
    assert load_experts(archive).fidelity.epochs == 3
    with pytest.raises(UsageError, match="experts trained its families for 1, 3 epochs, not for 2"):
        load_experts(archive, epochs=2)


def test_holes_are_named_and_the_rest_is_read(archive):
    alone(archive, engine=Broken(trials={"B": Outcome.MEMORY}))
    found = load_experts(archive, "experts")
    assert found.families == ("A", "C", "D", "E")
    assert found.missing == {
        "B": "memory: B at training",
        "F": "its logits are not finite",
        "G": "it has 390 logits in place of 40 images with 10 classes",
    }


def test_too_few_families_are_refused_with_the_reasons(archive):
    alone(archive, engine=Broken(trials={"A": Outcome.CRASHED, "B": Outcome.MEMORY}))
    with pytest.raises(UsageError, match=r"3 families .* takes 4 \(A: crashed: A at training; B: memory.*goes on with"):
        load_experts(archive)


def test_what_was_not_trained_alone_is_refused(archive):
    with pytest.raises(UsageError, match="no families trained alone: nngen experts train"):
        load_experts(archive)
    fake_campaign(archive).run()
    with pytest.raises(UsageError, match=r"one holds mixtures.*nngen campaign run one --baselines"):
        load_experts(archive, "one")


def test_joint_trainings_of_the_same_fidelity_count(archive):
    alone(archive)
    fake_campaign(archive, name="one", finalists=2, replicates=2).run()
    fake_campaign(archive, name="longer", epochs=3, seed=5).run()
    found = load_experts(archive)
    joint = joint_accuracies(archive, found)
    trials = archive.trials("one")
    assert sum(map(len, joint.values())) == len(trials) == 8
    assert sorted(map(len, joint.values())) == [1, 1, 1, 1, 2, 2]
    members = tuple(sorted(found.families.index(name) for name in trials[0].experts))
    assert trials[0].validation_accuracy in joint[members]
