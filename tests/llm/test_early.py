"""Prediction of a long training from its first epochs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_lemur import make_tree

from nngen.errors import UsageError
from nngen.surrogate.early import COVERAGE, EarlyPredictor, Run, compare_early, long_runs
from nngen.types import Record


def runs(models=40, each=4, seed=0):
    """Made-up trainings: each model has its own height, and the learning rate decides how fast it is reached."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(models):
        height = random.uniform(0.3, 0.95)
        for _ in range(each):
            rate = 10 ** random.uniform(-4, -1)
            speed = 0.1 - 0.1 * (np.log10(rate) + 2.5) ** 2 / 10
            curve = height * (1 - np.exp(-speed * np.arange(1, 51))) + random.normal(0, 0.01, 50)
            accuracies = tuple(float(value) for value in np.clip(curve, 0, 1))
            prm = {"lr": float(rate), "batch": 64, "transform": "norm_64_flip"}
            found.append(Run(model=f"Net{number}", dataset="mnist", accuracies=accuracies, hyperparameters=prm))
    return found


@pytest.mark.long
def test_trees_beat_the_last_epoch_and_their_intervals_hold():
    scores, coverage = compare_early(runs(), 2)
    rmse = {score.predictor: score.rmse for score in scores}
    assert set(rmse) == {"mean", "epoch 2 as it is", "ridge", "trees"}
    assert rmse["trees"] < rmse["epoch 2 as it is"] and rmse["trees"] < rmse["mean"]
    assert coverage == pytest.approx(COVERAGE, abs=0.07)


def test_a_forecast_reads_the_first_epochs_alone():
    known = runs()
    fitted = EarlyPredictor(known, 2)
    cut = Run(model="new", dataset="mnist", accuracies=known[0].accuracies[:2], hyperparameters={"lr": 0.01})
    whole = Run(model="new", dataset="mnist", accuracies=known[0].accuracies, hyperparameters={"lr": 0.01})
    assert fitted.predict([cut]) == fitted.predict([whole])
    assert fitted.predict([cut])[0].low <= fitted.predict([cut])[0].accuracy <= fitted.predict([cut])[0].high
    with pytest.raises(UsageError, match="the accuracies of 2 epochs are needed, not of 1"):
        fitted.predict([Run(model="new", dataset="mnist", accuracies=(0.1,), hyperparameters={})])
    with pytest.raises(UsageError, match="1 models with 50 epochs are too few"):
        EarlyPredictor([run for run in known if run.model == "Net0"], 2)


def test_trainings_are_joined_from_records():
    def record(epoch, lr, accuracy=0.5):
        prm = {"lr": lr}
        return Record(model="A", dataset="d", epoch=epoch, accuracy=accuracy, duration_s=1.0, hyperparameters=prm)

    records = [record(epoch, 0.1, epoch / 100) for epoch in range(1, 61)]
    records += [record(epoch, 0.2) for epoch in range(1, 40)]  # short
    records += [record(epoch, 0.3) for epoch in range(1, 61) if epoch != 7]  # with a gap
    (found,) = long_runs(records)
    assert (found.model, found.hyperparameters, len(found.accuracies)) == ("A", {"lr": 0.1}, 60)
    assert found.best_after(2) == 0.6


@pytest.mark.slow
def test_the_command_on_lemurs_curves(nngen, wheel):
    tokens = ["predict-accuracy", "--from", "lemur", "--early", "0.41,0.52", "--prm", "lr=0.01", "--prm", "batch=64"]
    result = nngen(*tokens, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert 0.52 < found["prediction"]["accuracy"] < 1
    rmse = {row["predictor"]: row["rmse"] for row in found["held_out"]}
    assert rmse["trees"] <= 0.123
    assert 0.88 <= found["coverage"] <= 0.92


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--from", "elsewhere"], "--from takes lemur, not 'elsewhere'"),
        (["--from", "lemur"], "needs the accuracies after the first epochs: --early 0.41,0.52"),
        (["--from", "lemur", "--early", "0.4,1.5"], "between 0 and 1"),
        (
            ["--from", "lemur", "--early", "0.4", "--families", "A,B,C,D"],
            "goes with --early, --dataset and --prm alone",
        ),
        (["--from", "lemur", "--early", "0.4"], "has no trainings of 50 epochs on any data set"),
        (["--prm", "lr=1"], "--prm goes with --from lemur"),
    ],
)
def test_refused_in_one_line(nngen, tmp_path, monkeypatch, tokens, message):
    monkeypatch.setenv("NNGEN_LEMUR", str(make_tree(tmp_path / "nn-dataset")))
    result = nngen("predict-accuracy", *tokens, "--archive", tmp_path / "none.db")
    assert (result.code, result.out) == (2, "")
    assert message in result.err and result.err.count("\n") == 1
