"""Trivial baselines beside the best accuracy: the most frequent class, the best family alone, LEMUR's record."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nngen.analysis.quality.baselines import Baselines, baselines_of
from nngen.archive import Archive
from nngen.campaign.summary import summarise
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_families, fake_record
from nngen.types import Record


def classes(*values):
    return np.array(values, "<u2")


@pytest.fixture
def archive(tmp_path):
    with Archive.open(tmp_path / "a.db") as store:
        yield store


def named(campaign, names):
    inputs = replace(campaign.inputs, dataset=replace(campaign.inputs.dataset, class_names=names))
    return replace(campaign, inputs=inputs)


class Labelled:
    """The part of an archive that baselines are found in."""

    def __init__(self, labels=(), names=(), campaigns=(), scores=(), recorded=(), outside=()):
        self._labels, self._names, self._campaigns, self._scores = labels, names, campaigns, scores
        self._recorded, self.external = recorded, SimpleNamespace(records=lambda dataset: outside)

    def validation_labels(self, fingerprint):
        assert fingerprint == "d"
        return classes(*self._labels).tobytes()

    def class_names(self, fingerprint):
        return self._names

    def campaigns(self):
        return self._campaigns

    def scores(self, name):
        return [score for campaign, score in self._scores if campaign == name]

    def recorded(self, fingerprints):
        assert list(fingerprints) == ["f"]
        return self._recorded


MAIN = fake_record("main", pool={"A": "f"}, data_fingerprint="d", sampler="alone")


def test_the_most_frequent_class_has_its_name_or_its_number():
    found = baselines_of(Labelled([1, 1, 1, 0], ["cat", "dog"]), MAIN, None)
    assert found == Baselines(majority=0.75, majority_class="dog")
    assert found.lines == ("0.7500 always the most frequent class, dog",)
    assert baselines_of(Labelled([1, 1, 0], ["cat"]), MAIN, None).majority_class == "1"
    nothing = baselines_of(Labelled(), MAIN, None)
    assert (nothing, nothing.lines) == (Baselines(), ())
    assert nothing.to_dict() == {"majority": None, "majority_class": "", "alone": None, "family": "", "record": None}


def test_the_best_family_alone_is_that_of_the_highest_mean_at_the_fidelity():
    fidelity, other = MAIN.fidelity, fake_record("other", epochs=9).fidelity

    def score(family, accuracy, **changes):
        made = {"fidelity": fidelity, "experts": (family,), "validation_accuracy": accuracy, "suspect": ""}
        return SimpleNamespace(**made | changes)

    scores = [
        ("alone", score("A", 0.5)),
        ("alone", score("A", 0.9)),
        ("alone", score("B", 0.6)),
        ("alone", score("C", 0.9, suspect="perfect")),
        ("alone", score("C", 0.9, fidelity=other)),
        ("alone", score("C", None)),
        ("main", score("C", 0.9)),
        ("drawn", score("C", 0.9)),
        ("foreign", score("C", 0.9)),
    ]
    campaigns = [
        MAIN,
        fake_record("alone", data_fingerprint="d", sampler="alone"),
        fake_record("drawn", data_fingerprint="d"),
        fake_record("foreign", data_fingerprint="e", sampler="alone"),
    ]
    found = baselines_of(Labelled(campaigns=campaigns, scores=scores), MAIN, fidelity)
    assert found == Baselines(alone=0.7, family="A")
    assert found.lines == ("0.7000 the best family alone, A, trained alike",)
    assert baselines_of(Labelled(campaigns=campaigns, scores=scores), MAIN, None) == Baselines()
    assert baselines_of(Labelled(campaigns=campaigns), MAIN, fidelity) == Baselines()


def test_the_record_is_the_best_of_the_familys_own_or_else_of_imported_results():
    own = [record("digits", "A"), replace(record("digits", "B"), accuracy=0.95), record("cifar-10", "C")]
    imported = [replace(record("digits", "Z"), accuracy=0.99), replace(record("digits", "A"), accuracy=0.2, epoch=1)]
    found = baselines_of(Labelled(recorded=own, outside=imported), MAIN, None)
    assert found.lines == ("0.9500 LEMUR's record, B, 3 epochs, its test split",)
    assert found.to_dict()["record"] == {"model": "B", "dataset": "digits", "epoch": 3, "accuracy": 0.95}
    found = baselines_of(Labelled(recorded=own[2:], outside=imported), MAIN, None)
    assert found.lines == ("0.2000 LEMUR's record, A, 1 epoch, its test split",)


def test_the_most_frequent_class_and_the_best_family_alone_stand_beside_the_best(archive):
    main = named(fake_campaign(archive), tuple("abcdefghij"))
    before = main.run().baselines
    assert (before.majority, before.majority_class, before.alone, before.record) == (0.1, "a", None, None)
    main.baselines().run()
    alone = {trial.experts[0]: trial.validation_accuracy for trial in archive.trials("one-alone-2")}
    after = summarise(archive, "one").baselines
    assert after.alone == alone[after.family] == max(alone.values())
    assert after.lines[0] == "0.1000 always the most frequent class, a"


def test_families_alone_at_another_fidelity_are_not_compared(archive):
    fake_campaign(archive, epochs=3).run()
    fake_campaign(archive, epochs=3).baselines().run()
    fake_campaign(archive, name="two", epochs=1).run()
    assert summarise(archive, "two").baselines.alone is None


def test_a_record_of_lemur_is_one_on_the_same_data(archive):
    campaign = fake_campaign(archive, engine=FakeEngine())
    families = {
        name: (replace(family, best=record("digits" if name == "A" else "cifar-10", name)), accepts)
        for name, (family, accepts) in fake_families("ABCDEFG").items()
    }
    replace(campaign, inputs=replace(campaign.inputs, families=families)).run()
    found = baselines_of(archive, archive.campaign("one"), None)
    assert (found.record.model, found.record.accuracy) == ("A", 0.9)
    assert "LEMUR's record, A, 3 epochs" in found.lines[-1]


def record(dataset, model):
    return Record(model=model, dataset=dataset, epoch=3, accuracy=0.9, duration_s=1.0, hyperparameters={})
