"""Weights beside the archive: those of the best trials stay, checkpoints of finished trials go."""

from dataclasses import dataclass, field, replace
from shutil import rmtree

import pytest

from nngen.archive import Archive, TrialLine, TrialState
from nngen.campaign.protocols import Watcher
from nngen.campaign.weights import WeightFolders
from nngen.campaign_spec import CampaignSpec
from nngen.errors import EngineLostError, UsageError
from nngen.plan import Plan
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_inputs
from nngen.training.state.checkpoints import TrialFolder
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


def line(number, accuracy=None, **changes):
    plain = {"campaign": "one", "position": number + 100, "rung": 0, "replicate": 0, "state": TrialState.DONE}
    plain |= {"experts": (), "candidate_id": "", "outcome": Outcome.VALID, "seed": 0, "suspect": ""}
    return TrialLine(id=number, validation_accuracy=accuracy, **plain | changes)


def stored(root, *numbers, names=("checkpoint.json", "weights.safetensors", "logits.safetensors")):
    for number in numbers:
        (root / f"trial-{number}").mkdir(parents=True)
        for name in names:
            (root / f"trial-{number}" / name).write_text("{}")


def there(root):
    """Return the files that there are, by the number of the trial."""
    return {
        int(folder.name.removeprefix("trial-")): sorted(file.name.partition(".")[0] for file in folder.iterdir())
        for folder in root.iterdir()
    }


WHOLE, KEPT, WAITING = ["checkpoint", "logits", "weights"], ["logits", "weights"], ["checkpoint"]


def test_weights_that_others_surpass_go_unless_they_are_protected(tmp_path):
    spec = CampaignSpec(name="x", size=9, shape=Shape(1, 8, 8), keep_weights="top:2")
    folders = WeightFolders(tmp_path, spec, ())
    stored(tmp_path, *range(1, 8))
    folders.finish(line(1, 0.0), ())
    folders.finish(line(2, 0.7), ())
    assert {number: there(tmp_path)[number] for number in (1, 2, 3)} == {1: KEPT, 2: KEPT, 3: WHOLE}
    folders.finish(line(3, 0.6), {1})
    assert sorted(there(tmp_path)) == [1, 2, 3, 4, 5, 6, 7]
    folders.finish(line(4, 0.6, rung=1), ())  # a higher rung ranks first, and 1 and 3 are not protected any more
    folders.finish(line(5), ())
    assert {number: files for number, files in there(tmp_path).items() if number < 6} == {2: KEPT, 4: KEPT}
    (tmp_path / "trial-6" / "weights.safetensors").unlink()
    folders.finish(line(6, 0.99), ())  # it stored no weights, so it takes no place
    folders.finish(line(7, 0.7), {7})
    folders.finish(line(8, 0.99), ())
    assert there(tmp_path) == {2: KEPT, 4: KEPT, 7: KEPT}
    folders.settle(7)
    assert there(tmp_path) == {4: KEPT, 7: KEPT}


@pytest.mark.parametrize(("keep", "left"), [("none", {}), ("all", {1: KEPT, 2: KEPT})])
def test_none_or_all_keep_their_weights(tmp_path, keep, left):
    spec = CampaignSpec(name="x", size=9, shape=Shape(1, 8, 8), keep_weights=keep)
    stored(tmp_path, 1, 2)
    folders = WeightFolders(tmp_path, spec, [line(1, 0.5), line(2, 0.0), line(3, 0.5, state=TrialState.RUNNING)])
    assert there(tmp_path) == left
    folders.settle(2)
    assert there(tmp_path) == left


GOES_ON = {"rungs": (1, 2, 4), "epochs": 4, "rungs_continue": True, "reduction_factor": 2}


def going_on(root, keep="none"):
    """Return the folders of four trials of a first rung, of which the two best wait to go on."""
    spec = CampaignSpec(name="x", size=4, shape=Shape(1, 8, 8), keep_weights=keep, **GOES_ON)
    stored(root, 1, 2, 3, 4)
    return WeightFolders(root, spec, [line(number, number / 10 - 0.1) for number in (1, 2, 3, 4)])


def test_the_best_of_a_rung_wait_with_their_checkpoints_until_they_have_gone_on(tmp_path):
    folders = going_on(tmp_path)
    assert there(tmp_path) == {3: WAITING, 4: WAITING}
    stored(tmp_path, 5, 6, 7)
    folders.finish(line(5, 0.9, replicate=1), ())  # another seed goes nowhere
    folders.finish(line(6, 0.9, rung=1, position=104), ())
    assert there(tmp_path) == {3: WAITING, 6: WAITING, 7: WHOLE}
    folders.finish(line(7, 0.9, rung=2, position=104), ())
    assert there(tmp_path) == {3: WAITING}
    folders.settle(7)
    assert there(tmp_path) == {}


def test_weights_and_checkpoints_go_each_in_their_time(tmp_path):
    folders = going_on(tmp_path, keep="best")
    assert there(tmp_path) == {3: WAITING, 4: WHOLE}
    stored(tmp_path, 5)
    folders.finish(line(5, 0.5, rung=1, position=103), ())  # surpasses the weights of 4, whose checkpoint waits
    assert there(tmp_path) == {4: WAITING, 5: WHOLE}
    folders.settle(5)
    assert there(tmp_path) == {5: KEPT}


def test_a_driver_that_begins_again_lets_go_of_what_has_gone_on(tmp_path):
    spec = CampaignSpec(name="x", size=4, shape=Shape(1, 8, 8), keep_weights="none", **GOES_ON)
    stored(tmp_path, 3, 4)
    lines = [line(3, 0.3), line(4, 0.4), line(5, 0.5, rung=1, position=104), line(6, rung=1, position=103)]
    WeightFolders(None, spec, lines).settle(3)
    assert there(tmp_path) == {3: WHOLE, 4: WHOLE}
    WeightFolders(tmp_path, spec, [*lines[:3], lines[3]._replace(state=TrialState.RUNNING)])
    assert there(tmp_path) == {3: WAITING}


def test_a_training_is_given_its_folder_and_that_of_the_rung_before(tmp_path):
    folders = going_on(tmp_path, keep="best")
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=1).run()
        model = replace(archive.trials("one")[0], id=9)
    own = {"path": tmp_path / "trial-9", "keep": True, "foreign": "f", "note": print}

    def given(**changes):
        return folders.folder(replace(model, **changes), foreign="f", note=print)

    assert given(rung=0, position=104) == TrialFolder(**own)
    assert given(rung=1, position=104) == TrialFolder(**own, before=tmp_path / "trial-4")
    assert given(rung=1, position=103) == TrialFolder(**own, before=tmp_path / "trial-3")
    assert given(rung=1, position=104, replicate=1) == TrialFolder(**own)
    # Where the one before left nothing, the folder is one that no trial has.
    assert given(rung=1, position=101) == TrialFolder(**own, before=tmp_path / "trial-0")
    assert given(rung=2, position=104) == TrialFolder(**own, before=tmp_path / "trial-0")
    none = CampaignSpec(name="x", size=4, shape=Shape(1, 8, 8), keep_weights="none")
    assert WeightFolders(tmp_path, none, ()).folder(model, foreign="", note=print) == TrialFolder(
        path=tmp_path / "trial-9", note=print
    )
    assert WeightFolders(None, none, ()).folder(model, foreign="", note=print) is None


def test_a_driver_that_begins_again_leaves_the_checkpoint_of_a_trial_that_is_not_done(tmp_path):
    spec = CampaignSpec(name="x", size=9, shape=Shape(1, 8, 8), keep_weights="none")
    stored(tmp_path, 1, 2)
    WeightFolders(tmp_path, spec, [line(1, 0.5), line(2, state=TrialState.READY, outcome=None)])
    assert there(tmp_path) == {2: WHOLE}


def test_what_has_gone_on_is_not_gone_on_from_again(tmp_path):
    folders = going_on(tmp_path)
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=1).run()
        again = replace(archive.trials("one")[0], id=9, rung=1, position=104)
    assert folders.folder(again, foreign="", note=print).before == tmp_path / "trial-4"
    stored(tmp_path, 5)
    folders.finish(line(5, 0.9, rung=1, position=104), ())
    assert folders.folder(again, foreign="", note=print).before == tmp_path / "trial-0"


def test_a_folder_that_somebody_removed_is_passed_over(tmp_path):
    folders = going_on(tmp_path, keep="best")
    rmtree(tmp_path / "trial-4")
    stored(tmp_path, 5)
    folders.finish(line(5, 0.5, rung=1, position=103), ())
    folders.finish(line(6, 0.6, rung=1, position=104), ())
    assert there(tmp_path) == {5: WHOLE}
