"""Weights beside the archive: those of the best trials stay, checkpoints of finished trials go."""

from dataclasses import dataclass, field

import pytest

from nngen.archive import Archive, TrialState
from nngen.campaign.protocols import Watcher
from nngen.campaign.weights import WeightFolders
from nngen.campaign_spec import CampaignSpec
from nngen.errors import EngineLostError, UsageError
from nngen.plan import Plan
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_inputs
from nngen.types import Outcome, Shape


@dataclass(slots=True, kw_only=True)
class StoringEngine(FakeEngine):
    """Fake that stores what a local engine stores, and can lose a job at its first try."""

    lose: bool = False

    def train(self, job, on_epoch=None):
        job.folder.path.mkdir(parents=True, exist_ok=True)
        (job.folder.path / "checkpoint.json").write_text("{}")
        if self.lose:
            self.lose = False
            raise EngineLostError("a machine went away")
        trial = FakeEngine.train(self, job, on_epoch)
        if job.folder.keep:
            (job.folder.path / "weights.safetensors").write_bytes(b"x")
        return trial


def kept(archive):
    """Return the ids of the trials whose folders there are; each contains the weights alone."""
    folders = sorted(archive.weights.iterdir()) if archive.weights.exists() else []
    assert all([file.name for file in folder.iterdir()] == ["weights.safetensors"] for folder in folders)
    return {int(folder.name.removeprefix("trial-")) for folder in folders}


def ranked(archive):
    trials = [trial for trial in archive.trials() if trial.trained]
    return [trial.id for trial in sorted(trials, key=lambda trial: (-trial.rung, -trial.validation_accuracy, trial.id))]


@pytest.mark.parametrize(("keep", "number"), [("none", 0), ("best", 1), ("top:3", 3), ("all", 6)])
def test_the_best_of_a_campaign_keep_their_weights(keep, number, archive):
    fake_campaign(archive, engine=StoringEngine(), keep_weights=keep).run()
    assert kept(archive) == set(ranked(archive)[:number])


def test_a_failed_trial_keeps_nothing(archive):
    engine = StoringEngine(trials={"A": Outcome.CRASHED})
    fake_campaign(archive, engine=engine, keep_weights="all").run()
    assert 0 < len(kept(archive)) < 6
    assert kept(archive) == set(ranked(archive))


def test_of_finalists_the_best_by_its_mean_over_seeds_is_kept(archive):
    summary = fake_campaign(
        archive, engine=StoringEngine(), size=9, rungs=(1, 2), finalists=3, replicates=3, epochs=2
    ).run()
    assert kept(archive) == {summary.best.id}


def test_a_lost_trial_keeps_its_checkpoint_until_it_is_done(archive):
    engine = StoringEngine(lose=True)
    seen = []

    class Looking(FakeEngine):
        slots = 1

        def train(self, job, on_epoch=None):
            seen.append((job.folder.path / "checkpoint.json").exists())
            return StoringEngine.train(engine, job, on_epoch)

    fake_campaign(archive, engine=Looking(), size=1).run()
    assert seen == [False, True]
    assert len(kept(archive)) == 1


def test_a_driver_that_was_killed_leaves_checkpoints_that_the_next_removes(archive):
    fake_campaign(archive, engine=StoringEngine(), keep_weights="all").run()
    done = archive.lines("one")
    assert all(line.state is TrialState.DONE for line in done)
    left = archive.weights / f"trial-{done[0].id}" / "checkpoint.json"
    left.write_text("{}")
    stranger = archive.weights / "mine.txt"
    stranger.write_text("x")
    WeightFolders(archive.weights, archive.campaign("one").spec, done)
    assert not left.exists()
    assert stranger.exists()
    stranger.unlink()
    assert kept(archive) == set(ranked(archive))


def test_an_archive_in_memory_keeps_nothing():
    with Archive.in_memory() as archive:
        assert archive.weights is None
        assert fake_campaign(archive).run().done == 6


@pytest.mark.parametrize("text", ["", "some", "top", "top:0", "top:-1", "top:x", "TOP:1", "2"])
def test_other_words_are_refused(text):
    with pytest.raises(UsageError, match="--keep-weights is none, best, top:N or all, not"):
        CampaignSpec(name="x", size=1, shape=Shape(1, 8, 8), keep_weights=text)


def test_each_replicate_of_a_mixture_starts_from_the_next_seed_of_its_families(archive, tmp_path):
    @dataclass(slots=True, kw_only=True)
    class Noting(FakeEngine):
        given: list = field(default_factory=list)

        def train(self, job, on_epoch=None):
            self.given.append((job.candidate.plan.experts, job.experts))
            return FakeEngine.train(self, job, on_epoch)

    engine, seeds = Noting(), ("first", "second")
    weights = {name: tuple(tmp_path / f"{name}-{seed}" for seed in seeds) for name in "ABCDEFG"}
    parts = {"finalists": 2, "replicates": 3, "start": "0" * 64}
    fake_campaign(archive, engine=engine, size=2, inputs=fake_inputs(experts=weights), **parts).run()
    drawn = [[file.name for file in files] for _, files in engine.given]
    for experts in {experts for experts, _ in engine.given}:
        own = [names for (tried, _), names in zip(engine.given, drawn, strict=True) if tried == experts]
        assert own == [[f"{name}-{seed}" for name in experts] for seed in ("first", "second", "first")]
    # Families alone begin with new weights, whatever mixtures start from.
    assert fake_inputs(experts=weights).expert_weights(Plan(experts=()).alone("A"), 0) == ()
    assert fake_inputs().expert_weights(Plan(experts=tuple("ABCD")), 0) == ()


def test_what_a_folder_notes_reaches_the_watcher_with_its_trial(archive):
    class Noting(FakeEngine):
        def train(self, job, on_epoch=None):
            job.folder.note("goes on after epoch 1")
            return FakeEngine.train(self, job, on_epoch)

    class Notes(Watcher):
        lines = []  # noqa: RUF012

        def note(self, line):
            self.lines.append(line)

    fake_campaign(archive, size=2, engine=Noting(), watcher=Notes()).run()
    assert Notes.lines[-2:] == [f"trial {number} goes on after epoch 1" for number in (1, 2)]
