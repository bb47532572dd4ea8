"""Gains of mixtures over their families alone, on hand-made predictions with known answers."""

from dataclasses import replace

import numpy as np
import pytest

from nngen.analysis.quality.gains import gains
from nngen.analysis.report import collect, render
from nngen.archive import Archive
from nngen.errors import UsageError
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import Trial

IMAGES = 100
RIGHT = {"A": 40, "B": 60, "C": 30, "D": 20}
"""Images that each family alone gets right, the first ones of the split."""


class Scripted(FakeEngine):
    """Engine of classes 0 (right) and 1 (wrong): families by ``RIGHT``, mixtures right on the last 70 images."""

    mixture = slice(30, 100)

    def train(self, job, on_epoch=None):
        trial = FakeEngine.train(self, job, on_epoch)
        labels = job.dataset.validation_labels
        experts = job.candidate.plan.experts
        right = slice(0, RIGHT[experts[0]]) if len(experts) == 1 else self.mixture
        predicted = (labels + 1) % 10
        predicted[right] = labels[right]
        # A family is surer where it is right: three wrong families do not outvote a right one.
        surety = np.where(predicted == labels, 8.0, 1.0)
        logits = (np.eye(10)[predicted] * surety[:, None]).astype("<f2")
        return replace(
            trial,
            validation_accuracy=float((predicted == labels).mean()),
            validation_predictions=predicted.astype("<u2").tobytes(),
            validation_logits=logits.tobytes() if job.logits else b"",
            parameters=10_000_000 if len(experts) == 1 else 40_000_000,
            seconds=10.0 if len(experts) == 1 else 50.0,
        )


@pytest.fixture
def archive(small):
    with Archive.in_memory() as archive:
        yield archive


@pytest.fixture
def small(monkeypatch):
    """Make the fake data set one of ``IMAGES`` validation images."""
    from nngen.testing import fakes

    made = fakes.fake_dataset()
    labels = np.arange(IMAGES) % 10
    data = replace(made, validation_labels=labels, validation_images=np.zeros((IMAGES, 1, 8, 8), np.uint8))
    return fakes.fake_inputs("ABCD", dataset=data)


def run(archive, small, *, alone=True, **changes):
    main = fake_campaign(archive, inputs=small, engine=Scripted(), size=1, **changes)
    main.run()
    if alone:
        main.baselines().run()
    name = main.spec.name
    return gains(archive, archive.campaign(name), archive.trials(name))


def test_a_mixture_against_its_best_family_and_the_mean_of_predictions(archive, small):
    found = run(archive, small)
    (row,) = found.rows
    assert (row.best, row.best_accuracy, row.accuracy) == ("B", 0.6, 0.7)
    # Right on images 30 to 99, the family on 0 to 59: 40 gained, 30 lost.
    assert row.over_best.mean == pytest.approx(0.1)
    difference = np.r_[-np.ones(30), np.zeros(30), np.ones(40)]
    half = 1.96 * difference.std(ddof=1) / 10
    assert (row.over_best.low, row.over_best.high) == pytest.approx((0.1 - half, 0.1 + half))
    # The mean is right wherever one family is, which is surer than the others.
    assert row.pooled_accuracy == pytest.approx(0.6)
    assert row.over_pooled.mean == pytest.approx(0.1)
    assert (row.parameters, row.seconds) == (4.0, 5.0)
    assert row.per_million_parameters == pytest.approx(0.1 / 30)
    assert row.per_second == pytest.approx(0.1 / 40)
    assert found.missing == 0
    assert "1 mixtures against the best of their own families alone: +10.00 points; 1 are better" in found.sentences[0]
    assert "the best mixture reaches 0.7000, the best family alone, B, 0.6000" in found.sentences


def test_without_baselines_nothing_is_compared(archive, small):
    found = run(archive, small, alone=False)
    assert (found.rows, found.missing, found.sentences) == ((), 1, ())


def test_families_of_another_fidelity_do_not_count(archive, small):
    run(archive, small, name="long", epochs=5)
    assert run(archive, small, name="short", alone=False).rows == ()
    assert len(run(archive, small, name="again", epochs=5, alone=False, seed=3).rows) == 1


def test_seeds_are_averaged_and_rungs_compared_at_the_last(archive, small):
    found = run(archive, small, rungs=(1, 2), epochs=2, finalists=1, replicates=2)
    (row,) = found.rows
    assert row.seeds == 2
    assert row.over_best.mean == pytest.approx(0.1)


def test_the_report_shows_them_or_names_the_command(archive, small):
    run(archive, small, alone=False)
    assert "nngen campaign run one --baselines" in render(collect(archive, "one"))
    run(archive, small, name="two", epochs=3)
    page = render(collect(archive, "two"))
    assert "The best mixture reaches 0.7000, the best family alone, B, 0.6000." in page
    assert '<span class="soft">Best family alone</span><b>0.6000</b>' in page
    with pytest.raises(UsageError, match="holds families alone"):
        collect(archive, "two-alone-3")


def test_an_archive_of_before_has_neither_logits_nor_labels(archive, small, monkeypatch):
    monkeypatch.setattr(Archive, "add_labels", lambda *_: None)
    main = fake_campaign(archive, inputs=small, engine=Scripted(), size=1)
    main.run()
    record = archive.campaign("one")
    assert archive.validation_labels(record.data_fingerprint) == b""
    assert isinstance(archive.trials("one")[0].parameters, int)
    assert gains(archive, record, archive.trials("one")).to_dict() == {
        "over_best": None,
        "over_pooled": None,
        "missing": 1,
        "mixtures": [],
    }
    assert Trial.__dataclass_fields__["validation_logits"].default == b""
