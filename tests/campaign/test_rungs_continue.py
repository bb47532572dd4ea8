"""Rungs that go on from the checkpoint of the rung before: the same digits as one training, and bounded folders."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nngen.archive import Archive
from nngen.archive.rows.values import spec_from_text, spec_to_text
from nngen.campaign.budget import Budget
from nngen.campaign.successive_halving import workload
from nngen.campaign.weights import WeightFolders
from nngen.campaign_spec import CampaignSpec
from nngen.checks.rules.sample_nets import net_source
from nngen.errors import UsageError
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.training.state.checkpoints import TrialFolder
from nngen.types import Shape

GOLDEN = Path(__file__).parents[1] / "golden" / "homogeneous.py"
RUNGS = {"rungs": (1, 2, 4), "epochs": 4, "rungs_continue": True, "reduction_factor": 2}


def without_times(curve):
    return [replace(point, seconds=0.0) for point in curve]


@pytest.mark.engine
@pytest.mark.long
@pytest.mark.parametrize("source", [net_source(init="self.seen = 0", loss="self.seen += 1"), GOLDEN.read_text()])
def test_the_last_rung_has_the_digits_of_one_training(source, engine, job, tmp_path):
    whole = engine.train(job(source, epochs=3, lr=0.01, batch=256))
    notes = []
    first = TrialFolder(path=tmp_path / "trial-1", note=notes.append)
    short = engine.train(replace(job(source, epochs=1, horizon=3, lr=0.01, batch=256), folder=first))
    assert short.epochs_before is None
    assert without_times(short.curve) == without_times(whole.curve[:1])
    second = TrialFolder(path=tmp_path / "trial-2", before=first.path, keep=True, note=notes.append)
    epochs = []
    last = engine.train(
        replace(job(source, epochs=3, lr=0.01, batch=256), folder=second), lambda point: epochs.append(point.epoch)
    )
    assert (epochs, notes, last.epochs_before) == ([2, 3], ["goes on after epoch 1"], 1)
    assert without_times(last.curve) == without_times(whole.curve)
    assert last.test_predictions == whole.test_predictions
    assert last.spec == whole.spec
    # Its own weights are kept, and the checkpoint of the rung before is not touched.
    assert (second.path / "weights.safetensors").exists()
    assert (first.path / "checkpoint.json").exists()


@pytest.mark.engine
@pytest.mark.long
def test_without_the_checkpoint_it_trains_anew_to_the_same_digits(engine, job, tmp_path):
    work = job(net_source(), epochs=2, batch=512)
    notes = []
    folder = TrialFolder(path=tmp_path / "trial-2", before=tmp_path / "trial-1", note=notes.append)
    epochs = []
    trial = engine.train(replace(work, folder=folder), lambda point: epochs.append(point.epoch))
    assert notes == ["starts again at epoch 1: the rung before left no checkpoint"]
    assert (epochs, trial.epochs_before) == ([1, 2], None)
    assert trial.test_predictions == engine.train(work).test_predictions
    # A damaged one is noticed when the net is restored, and is not tried again.
    first = replace(folder, path=tmp_path / "trial-1", before=None)
    engine.train(replace(work, spec=replace(work.spec, epochs=1, horizon=2), folder=first))
    (file,) = first.path.glob("checkpoint-*")
    file.write_bytes(bytes(file.stat().st_size))
    again = engine.train(replace(work, folder=replace(folder, path=tmp_path / "trial-3", before=first.path)))
    assert notes[-1].startswith("starts again at epoch 1: its state cannot be restored")
    assert (again.epochs_before, again.test_predictions) == (None, trial.test_predictions)


@dataclass(slots=True, kw_only=True)
class StoringEngine(FakeEngine):
    """Fake that stores what a local engine stores, and records from which folder each training goes on."""

    seen: list = None

    def train(self, job, on_epoch=None):
        folder = job.folder
        before = folder.before is not None and (folder.before / "checkpoint.json").exists()
        self.seen.append((job.spec.epochs, job.spec.horizon, before, self.waiting(folder.path.parent)))
        folder.path.mkdir(parents=True, exist_ok=True)
        for name in ("checkpoint.json", "weights.safetensors", "logits.safetensors"):
            (folder.path / name).write_text("{}")
        return FakeEngine.train(self, job, on_epoch)

    @staticmethod
    def waiting(root):
        return len([*root.glob("trial-*/checkpoint.json")])


@pytest.mark.long
@pytest.mark.parametrize("scheduler", ["halving", "asha"])
@pytest.mark.parametrize("keep", ["none", "best", "all"])
def test_each_promotion_finds_its_checkpoint_and_few_are_kept(keep, scheduler, tmp_path, monkeypatch):
    # Results that arrive together are stored first and let go of their checkpoints afterwards: here each by itself.
    monkeypatch.setattr("nngen.campaign.executor._TOGETHER_S", 0.0)
    engine = StoringEngine(seen=[])
    with Archive.open(tmp_path / "a.db") as archive:
        fake_campaign(archive, engine=engine, size=12, keep_weights=keep, scheduler=scheduler, **RUNGS).run()
        assert [(epochs, horizon) for epochs, horizon, _, _ in engine.seen].count((1, 4)) == 12
        # The best half goes on to two epochs of four, and of these the best half to all four.
        assert [seen[:2] for seen in engine.seen].count((2, 4)) >= 6
        assert [seen[:2] for seen in engine.seen].count((4, None)) >= 3
        assert all(before == (epochs > 1) for epochs, _, before, _ in engine.seen)
        # Never more than the next rungs can take, 6 and 3, and that of a trial whose result is being stored.
        assert max(waiting for *_, waiting in engine.seen) <= 6 + 3 + 1
        assert engine.waiting(archive.weights) == 0
        kept = {file.parent.name for file in archive.weights.rglob("weights.safetensors")}
        assert len(kept) == {"none": 0, "best": 1, "all": len(engine.seen)}[keep]


def test_a_driver_that_was_killed_finds_the_checkpoints_again(tmp_path):
    engine = StoringEngine(seen=[])
    with Archive.open(tmp_path / "a.db") as archive:
        fake_campaign(archive, engine=engine, size=4, keep_weights="all", **RUNGS).run()
        lines = archive.lines("one")
        for line in lines:
            (archive.weights / f"trial-{line.id}" / "checkpoint.json").write_text("{}")
        # As if it had been killed when the first rung was done, and one promotion.
        first = [line for line in lines if line.rung == 0]
        promoted = next(line for line in lines if line.rung == 1)
        folders = WeightFolders(archive.weights, archive.campaign("one").spec, [*first, promoted])
        left = {file.parent.name for file in archive.weights.rglob("checkpoint.json")}
        best = sorted(first, key=lambda line: (-line.validation_accuracy, line.id))[:2]
        waits = {f"trial-{line.id}" for line in best if line.position != promoted.position}
        others = {f"trial-{line.id}" for line in lines if line.rung and line.id != promoted.id}
        assert left - others == waits | {f"trial-{promoted.id}"}
        folders.settle(promoted.id)
        assert {file.parent.name for file in archive.weights.rglob("checkpoint.json")} == others


def test_the_horizon_is_part_of_the_fidelity_of_all_rungs_but_the_last():
    spec = CampaignSpec(name="x", size=4, shape=Shape(1, 8, 8), **RUNGS)
    plain = replace(spec, rungs_continue=False)
    assert [spec.trial(0, rung).horizon for rung in range(3)] == [4, 4, None]
    assert spec.trial(0, 0).fidelity() != plain.trial(0, 0).fidelity()
    assert spec.trial(0, 2) == plain.trial(0, 2)
    for rung in range(3):
        assert spec_from_text(spec_to_text(spec.trial(0, rung))) == spec.trial(0, rung)
    assert "horizon" not in spec_to_text(spec.trial(0, 2))
    assert CampaignSpec.from_dict(spec.to_dict()) == spec


def test_epochs_to_come_leave_out_those_of_the_rung_before():
    spec = CampaignSpec(name="x", size=4, shape=Shape(1, 8, 8), **RUNGS)
    assert workload(spec, ()).epochs == 4 * 1 + 2 * 1 + 1 * 2
    assert workload(replace(spec, rungs_continue=False), ()).epochs == 4 * 1 + 2 * 2 + 1 * 4
    with_seeds = replace(spec, finalists=1, replicates=3)
    assert workload(with_seeds, ()).epochs == 4 * 1 + 2 * 1 + 1 * 2 + 2 * 4


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="--rungs-continue goes on from one rung to the next: give at least two"):
        CampaignSpec(name="x", size=1, shape=Shape(1, 8, 8), rungs_continue=True)
    spec = CampaignSpec(name="x", size=4, shape=Shape(1, 8, 8), **RUNGS)
    with pytest.raises(UsageError, match="schedules end after epoch 4: it takes no further rung; choose another name"):
        spec.extended(epochs=8, rungs=(1, 2, 4, 8))
    assert spec.baselines(["A"]).rungs_continue is False


def test_a_campaign_that_is_stopped_keeps_the_checkpoints_to_go_on_from(tmp_path):
    engine = StoringEngine(seen=[])
    with Archive.open(tmp_path / "a.db") as archive:
        parts = {"engine": engine, "size": 4, "keep_weights": "best", **RUNGS}
        fake_campaign(archive, budget=Budget(max_trials=4), **parts).run()
        assert engine.waiting(archive.weights) == 2
        fake_campaign(archive, budget=Budget(), **parts).run()
        assert [(epochs, before) for epochs, _, before, _ in engine.seen[4:]] == [(2, True), (2, True), (4, True)]
        assert engine.waiting(archive.weights) == 0
