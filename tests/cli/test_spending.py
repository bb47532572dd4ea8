"""Commands that spend: dry runs, folds, class weights, and the metrics and baselines that they print."""

import json
import re

import pytest

from nngen.archive import Archive
from nngen.campaign import estimate as module
from nngen.cli import train as train_module
from nngen.cli.options.engine import EngineOptions
from nngen.families.profile import TrainingCost
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.training.local_engine import LocalEngine

LIGHT = TrainingCost(weights_mib=2.0, image_mib=0.5, image_s=0.001, step_s=0.01)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "a.db"


@pytest.fixture
def filled(path):
    with Archive.open(path) as archive:
        fake_campaign(archive).run()
        fake_campaign(archive).baselines().run()
    return path


def test_show_prints_metrics_and_the_classes_with_the_lowest_accuracies(nngen, filled):
    best = json.loads(nngen("leaderboard", "one", "--json").out)[0]["id"]
    text = nngen("show", best).out
    assert "validation images, one, seed" in text
    assert re.search(r"taken *\n.*for", text)
    trial = json.loads(nngen("show", best, "--json").out)["trials"][0]
    quality = trial["quality"]
    assert quality["accuracy"] == trial["validation_accuracy"]
    assert len(quality["confusion"]) == len(quality["per_class"]) == 10
    assert sum(map(sum, quality["confusion"])) == quality["images"] == 40


def test_baselines_stand_beside_every_best(nngen, filled):
    for command in (("campaign", "status", "one"), ("leaderboard", "one")):
        text = nngen(*command).out
        assert "baseline 0.1000 always the most frequent class, 0" in text
        assert "the best family alone" in text
    found = json.loads(nngen("campaign", "status", "one", "--json").out)["baseline_accuracies"]
    assert found["majority"] == 0.1
    assert found["family"] in "ABCDEFG"


def test_the_report_has_classes_and_baselines(nngen, filled, tmp_path):
    printed = json.loads(nngen("report", "one", "--out", str(tmp_path / "r.html"), "--json").out)
    assert printed["quality"]["images"] == 40
    assert printed["baseline_accuracies"]["majority"] == 0.1
    page = (tmp_path / "r.html").read_text()
    assert '<h2 id="classes">' in page
    assert "Confusion matrix" in page
    assert "always the most frequent class" in page


def test_a_dry_run_of_an_export_names_what_is_trained_again_and_reveals_nothing(nngen, filled, tmp_path):
    tokens = ("export", "one", "--out", tmp_path / "out", "--weights", "--dry-run")
    found = json.loads(nngen(*tokens, "--json").out)
    with Archive.open(filled, readonly=True) as archive:
        trials = [trial for trial in archive.trials("one") if trial.trained]
        before = [trial.test_accuracy for trial in trials]
    assert found["results"] == len(trials)
    assert len(found["models"]) == len({trial.candidate_id for trial in trials})
    assert all(row["trained_again"] for row in found["models"])
    assert found["hours"] == pytest.approx(sum(row["seconds"] for row in found["models"]) / 3600)
    text = nngen(*tokens).out
    assert f"{len(found['models'])} are trained again for their weights: about" in text
    assert "are trained again" not in nngen(*tokens[:-2], "--dry-run").out
    assert not (tmp_path / "out").exists()
    with Archive.open(filled, readonly=True) as archive:
        assert [trial.test_accuracy for trial in archive.trials("one") if trial.trained] == before


class Here(LocalEngine):
    """Local engine that trains as the fake one does."""

    def __init__(self, **_):
        super().__init__()
        self.fake = FakeEngine()

    def check(self, job):
        return self.fake.check(job)

    def train(self, job, on_epoch=None, **_):
        return self.fake.train(job, on_epoch)


@pytest.fixture
def engine(monkeypatch):
    """Train without workers."""
    made = Here()
    monkeypatch.setattr(EngineOptions, "_open", lambda *_: __import__("contextlib").nullcontext(made))
    return made.fake


@pytest.fixture
def file(tmp_path):
    (tmp_path / "net.py").write_text("class Net: ...\n")
    return tmp_path / "net.py"


def test_folds_are_campaigns_with_one_comparison(nngen, path, engine, file):
    text = nngen("train", str(file), "--name", "mine", "--folds", "3").out
    assert "corrected for training images that folds share" in text
    with Archive.open(path, readonly=True) as archive:
        names = [record.name for record in archive.campaigns()]
        assert names == ["mine-fold-1", "mine-fold-2", "mine-fold-3"]
        assert archive.campaign("mine-fold-2").spec.dataset == "fold-2-of-3:digits"
    del engine.trained[:]
    printed = json.loads(nngen("train", str(file), "--name", "mine", "--folds", "3", "--json").out)
    assert engine.trained == []
    (row,) = printed["candidates"]
    assert len(row["accuracies"]) == 3
    assert row["mean"] == pytest.approx(sum(row["accuracies"]) / 3)
    assert len(printed["trials"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--folds", "1"), "--folds must be"),
        (("--folds", "2.5"), "--folds must be"),
        (("--folds", "3", "--dataset", "fold-1-of-2:digits"), "name the whole data set"),
        (("--class-weights", "twice"), "--class-weights is none, balanced"),
        (("--class-weights", "cat=2"), "no class is called 'cat': there are 0, 1, 2, 3, 4, ..."),
    ],
)
def test_bad_values_are_refused_in_one_line(nngen, path, engine, file, arguments, message):
    failed = nngen("train", str(file), *arguments)
    assert failed.code == 2
    assert message in failed.err
    assert len(failed.err.strip().splitlines()) == 1
    assert not path.exists()


def test_a_dry_run_of_files_trains_and_stores_nothing(nngen, path, engine, file):
    printed = nngen("train", str(file), "--name", "mine", "--epochs", "2", "--dry-run").out
    assert "dry run of mine: nothing is trained or stored" in printed
    assert "not known before the first epoch" in printed
    assert not path.exists()
    assert engine.trained == []


def test_a_dry_run_counts_all_folds(nngen, path, engine, file):
    found = json.loads(nngen("train", str(file), "--epochs", "2", "--folds", "4", "--dry-run", "--json").out)
    assert (found["trials"], found["epochs"], found["hours"]) == (4, 8, None)


def test_a_dry_run_of_a_campaign(nngen, path, engine, monkeypatch):
    costs = lambda families, *_, **__: {family.name: LIGHT for family, _ in families}  # noqa: E731
    monkeypatch.setattr(module, "training_costs", costs)
    families = "ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,DPN68"
    command = ("campaign", "run", "c", "--size", "3", "--families", families, "--epochs", "2", "--dry-run")
    text = nngen(*command, "--price-per-hour", "2", "--max-trials", "2", "--max-cost", "0.0001").out
    assert "--max-trials 2 ends it before the last of 3 trials" in text
    assert "--max-cost 0.0001 ends it after about" in text
    for words in ("3 of 6 epochs in all", "measurements of 5 families", "money", "MiB are free", "suffices"):
        assert words in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert not path.exists()
    found = json.loads(nngen(*command, "--baselines", "--json").out)
    assert found["trials"] == 3 + 5
    assert engine.trained == []


def test_a_stated_plan_that_is_none_is_estimated_as_a_foreign_file():
    from nngen.types import Candidate

    for source in ('"""Plan: [[["""\nclass Net: ...\n', "class Net: ...\n"):
        assert train_module._with_plan(Candidate(id="a", source=source, canonical="")).plan is None
