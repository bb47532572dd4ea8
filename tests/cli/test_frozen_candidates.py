"""Command ``surrogate gates``: gates of all mixtures of an archive of fakes, and candidates of real families."""

import json

import pytest

from nngen.archive import Archive
from nngen.campaign_spec import ALONE
from nngen.surrogate.gates import WARM_RATE
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import Outcome


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    monkeypatch.chdir(tmp_path)
    with Archive.open(tmp_path / "a.db") as archive:
        engine = FakeEngine(trials={"G": Outcome.MEMORY})
        words = {"sampler": ALONE, "size": 7, "reveal": False, "finalists": 7, "replicates": 2}
        fake_campaign(archive, name="experts", engine=engine, **words).run()
    return tmp_path / "a.db"


def test_a_gate_for_every_mixture(nngen, path):
    result = nngen("surrogate", "gates", "--top", "3")
    assert (result.code, result.next) == (0, "nngen surrogate gates experts --train 10")
    assert "6 families of experts after 2 epochs; 15 gates, each trained on one half of 40 validation" in result.out
    assert "gate chose the mixtures, so it is optimistic; fresh is of experts with other seeds." in result.out
    assert "is not known: fewer than 8 were trained jointly" in result.out
    assert "G is not ranked: memory: G at training" in result.err
    found = json.loads(nngen("surrogate", "gates", "--json", "--top", "100").out)
    assert (found["space"], found["gates"], found["agreement"], len(found["mixtures"])) == (15, 15, None, 15)
    accuracies = [row["gate"] for row in found["mixtures"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(0 <= row["fresh"] <= 1 and row["trained"] is None for row in found["mixtures"])
    assert nngen("surrogate", "gates", "--json", "--top", "100").out == json.dumps(found, indent=2) + "\n"


def test_gates_are_compared_with_joint_trainings(nngen, path):
    with Archive.open(path) as archive:
        fake_campaign(archive, name="joint", size=35).run()
    found = json.loads(nngen("surrogate", "gates", "--json", "--top", "100").out)
    assert found["agreement"]["mixtures"] == 15
    assert all(row["trained"] is not None for row in found["mixtures"])
    assert (
        "gate agrees with the accuracies of 15 jointly trained mixtures by a tau of" in nngen("surrogate", "gates").out
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epochs", "7"), "campaign experts trained its families for 2 epochs, not for 7"),
        (("other",), "no campaign 'other'"),
        (("--unfreeze",), "--unfreeze is for --train K, which trains candidates"),
        (("--dry-run",), "--dry-run is for --train K, which trains candidates"),
        (("--gate", "linear"), "--gate is for --train K, which trains candidates"),
        (("--train", "2", "--unfreeze", "--gate", "linear"), "--gate is for frozen experts: --unfreeze trains all"),
        (("--train", "2", "--engine", "ray"), "are trained on this machine: leave out --engine"),
        (("--train", "2"), "campaign experts kept no weights of A, B, C and 3 more after 2 epochs: train the"),
    ],
)
def test_what_cannot_be_done_is_refused(nngen, path, words, message):
    result = nngen("surrogate", "gates", *words)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


@pytest.mark.slow
def test_candidates_with_frozen_and_with_warm_experts(nngen, tmp_path, monkeypatch, lemur):
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    data = ("--dataset", "digits", "--train-size", "200", "--seeds", "2", "--lr", "0.003")
    names = "ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,BagNet"
    assert nngen("experts", "train", "small", "--families", names, "--epochs", "1", *data).code == 0
    result = nngen("surrogate", "gates", "small", "--train", "1", "--seeds", "2")
    assert (result.code, result.next) == (0, "nngen leaderboard small-frozen-1")
    assert nngen("surrogate", "gates", "small", "--train", "1", "--unfreeze").code == 0
    assert nngen("surrogate", "gates", "small", "--train", "1", "--gate", "convolution").code == 0
    # A candidate more is a growth of the same campaign.
    assert nngen("surrogate", "gates", "small", "--train", "2").code == 0
    best = json.loads(nngen("surrogate", "gates", "small", "--json").out)["mixtures"]
    with Archive.open(tmp_path / "a.db") as archive:
        frozen, warm = archive.trials("small-frozen-1"), archive.trials("small-warm-1")
        (whole,) = archive.trials("small-convolution-1")
        assert whole.trained and (whole.plan.gate.network, whole.plan.recipe.frozen) == ("convolution", True)
        assert {trial.plan.gate.network for trial in frozen} == {"calibrated"}
        first = [trial for trial in frozen if not trial.replicate]
        assert [sorted(trial.experts) for trial in first] == [sorted(row["experts"]) for row in best[:2]]
        assert len(frozen) == 4 and len(warm) == 1
        for trial in (*frozen, *warm):
            assert trial.trained and trial.environment["started_from"] == "4 experts trained alone"
        assert {trial.plan.recipe.frozen for trial in frozen} == {True}
        assert {trial.plan.recipe.frozen for trial in warm} == {False}
        assert dict(warm[0].plan.rates) == dict.fromkeys(warm[0].experts, WARM_RATE)
        # Seeds of the families differ, and what started from the same families has one fidelity.
        assert len({trial.fidelity for trial in (*frozen, *warm)}) == 1
    told = nngen("export", "small-frozen-1", "--out", tmp_path / "out", "--weights")
    assert told.code == 0, told.err
    assert len(list((tmp_path / "out").rglob("*.safetensors"))) == 2
