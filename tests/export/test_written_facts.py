"""Facts that an export writes of a trial: configuration of weights, hyperparameters, statistics, packages."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nngen.export.model_card import config, requirements
from nngen.export.selection import TrainedFiles, _prm, _train_stat
from nngen.seeds import derive


@pytest.mark.parametrize("smaller", [None, 16])
def test_the_configuration_names_all_that_a_classifier_needs(exports, smaller):
    export = replace(exports[0], trial=replace(exports[0].trial, batch=smaller))
    files = TrainedFiles(
        export=export, weights=b"", onnx=None, reason="", difference=None, kept=True, same=True, test_accuracy=0.25
    )
    batch = smaller or 64
    assert json.loads(config(files, "model.py")) == {
        "model": export.candidate.id,
        "source": "model.py",
        "experts": ["A", "B", "C", "D8"],
        "prm": {"batch": 64, "epoch": 2, "lr": 0.001, "momentum": 0.9, "dropout": 0.2, "transform": "norm_32"},
        "seeds": {name: derive(0, name) for name in ("python", "numpy", "torch")},
        "batch": 4 * batch,
        **json.loads(json.dumps(export.preprocessing.to_dict())),
        "dataset": "digits",
        "data_fingerprint": export.trial.data_fingerprint,
        "trial": {
            "campaign": "one",
            "epochs": 2,
            "batch": batch,
            "lr": 0.001,
            "seed": 0,
            "validation_accuracy": 0.75,
            "test_accuracy": export.score.accuracy,
        },
        "test_accuracy": 0.25,
        "same_predictions_as_trial": True,
    }


def test_statistics_are_those_that_were_measured(exports):
    export, unknown = exports[0], set(exports[0].score.train_stat)
    images = export.images[0]
    known = {
        "train_loss": 1.0,
        "train_accuracy": 0.5,
        "samples_per_second": images / 2.0,
        "best_accuracy": export.score.accuracy,
        "best_epoch": 2,
        "epoch_max": 2,
        "cpu_count": 2,
        "cpu_type": "a processor",
    }
    assert export.score.train_stat == dict.fromkeys(unknown) | known
    card = replace(export.trial.spec, device="cuda")
    trial = replace(export.trial, environment={"device": "a card"}, curve=())
    assert _train_stat(trial, card, 0.5, images) == dict.fromkeys(unknown) | {
        "best_accuracy": 0.5,
        "best_epoch": 2,
        "epoch_max": 2,
        "gpu_type": "a card",
    }


def test_a_part_of_the_images_and_the_horizon_are_recorded(exports):
    export = exports[0]
    spec = replace(export.trial.spec, train_size=100, horizon=9, hyperparameters={"dropout": 0.1, "lr": 0.7})
    assert _prm(export.candidate, export.trial, spec, "echo") == {
        "batch": 64,
        "epoch": 9,
        "lr": 0.7,
        "momentum": 0.9,
        "train_size": 100,
        "transform": "echo",
    }


def test_packages_are_named_as_pip_knows_them():
    source = "import os, torch.nn as nn, cv2\nfrom PIL import Image\nfrom sklearn.svm import SVC\nfrom . import x\n"
    source += "import timm\n"
    assert requirements(source) == ("torch", "safetensors", "numpy", "pillow", "opencv-python", "scikit-learn", "timm")
