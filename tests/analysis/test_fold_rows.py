"""Accuracies of candidates over the folds of a data set: means, spreads, and intervals for overlapping trainings."""

from dataclasses import replace
from statistics import stdev

import pytest

from nngen.analysis.quality.cross_validation import fold_rows
from nngen.archive import Archive
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_dataset, fake_inputs
from nngen.types import Outcome

ACCURACIES = {"d1": 0.5, "d2": 0.7, "d3": 0.6}


class Folds(FakeEngine):
    """Engine whose accuracies depend on the fold, and are higher for one candidate by a twentieth."""

    def train(self, job, on_epoch=None):
        trial = FakeEngine.train(self, job, on_epoch)
        if not trial.verdict.valid:
            return trial
        more = 0.05 if job.candidate.id == min(self.trained) else 0.0
        return replace(trial, validation_accuracy=ACCURACIES[job.dataset.fingerprint] + more)


def test_rows_have_the_corrected_interval_of_their_mean():
    stats = pytest.importorskip("scipy.stats")
    with Archive.in_memory() as archive:
        for fold in ("d1", "d2", "d3"):
            failing = {"A": Outcome.MEMORY} if fold == "d3" else {}
            inputs = fake_inputs(dataset=fake_dataset(fingerprint=fold))
            fake_campaign(archive, name=fold, inputs=inputs, engine=Folds(trials=failing)).run()
        rows = fold_rows(archive, ["d1", "d2", "d3", "not begun"])
        failed = {trial.candidate_id for trial in archive.trials("d3") if not trial.trained}
    assert len(rows) == 6 and 0 < len(failed) < 6
    assert [row.trained for row in rows] == [3] * (6 - len(failed)) + [2] * len(failed)
    for row in rows:
        known = [accuracy for accuracy in row.accuracies if accuracy is not None]
        assert row.accuracies[3] is None and (row.accuracies[2] is None) == (row.id in failed)
        assert row.mean == pytest.approx(sum(known) / len(known))
        assert row.std == pytest.approx(stdev(known))
        # Each of four folds is tested on once and trained on three times (Nadeau and Bengio 2003).
        half = stats.t.ppf(0.975, len(known) - 1) * stdev(known) * (1 / len(known) + 1 / 3) ** 0.5
        assert row.half == pytest.approx(half)
    keys = [(-row.trained, -row.mean, row.id) for row in rows]
    assert keys == sorted(keys) and len({row.mean for row in rows}) > 1
    assert rows[0].to_dict()["experts"] == list(rows[0].experts)


def test_one_fold_has_no_spread():
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=2).run()
        rows = fold_rows(archive, ["one", "two"])
    assert {(row.trained, row.std, row.half) for row in rows} == {(1, None, None)}
