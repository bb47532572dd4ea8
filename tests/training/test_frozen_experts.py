"""Mixtures whose experts start from the weights of families that real workers trained alone."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_lemur import source
from safetensors.numpy import load_file

from nngen.assembly.assemble import Assembler
from nngen.isolation import Isolation
from nngen.plan import Plan
from nngen.surrogate.gates import FROZEN
from nngen.training.engine import CheckJob
from nngen.training.inference import KeptWeights
from nngen.training.state.checkpoints import TrialFolder
from nngen.training.state.trained_model import TrainedModel
from nngen.types import Family, Interface, Outcome, Shape

NAMES = ("Narrow", "Wide")
WIDTHS = {"Narrow": 8, "Wide": 16}


def known(name):
    text = source(WIDTHS[name])
    family = Family(name=name, source=text, fingerprint=hashlib.sha256(text.encode()).hexdigest(), best=None)
    return family, Interface(low=4)


@pytest.fixture(scope="module")
def assembler():
    return Assembler()


@pytest.fixture(scope="module")
def alone(engine, job, assembler, tmp_path_factory):
    """Folders of the two families, trained alone for two epochs."""
    folders = {}
    for name in NAMES:
        candidate = assembler.assemble(Plan(experts=()).alone(name), [known(name)])
        folders[name] = tmp_path_factory.mktemp(name) / "trial"
        asked = replace(job(candidate, epochs=2, batch=128), folder=TrialFolder(path=folders[name], keep=True))
        assert engine.train(asked).verdict.valid
    return folders


@pytest.fixture
def mixture(engine, job, assembler, alone, tmp_path):
    """Train a mixture of both families from given files of weights."""

    def train(plan, experts=NAMES, start="0" * 64, **changes):
        candidate = assembler.assemble(replace(plan, experts=NAMES), [known(name) for name in NAMES])
        files = tuple(alone[name] / "weights.safetensors" for name in experts)
        asked = job(candidate, epochs=1, batch=128, start=start if files else "", **changes)
        return candidate, engine.train(
            replace(asked, folder=TrialFolder(path=tmp_path / "trial", keep=True), experts=files)
        )

    return train


def test_experts_keep_the_weights_of_their_training_alone(mixture, alone, digits, tmp_path):
    candidate, trial = mixture(FROZEN)
    assert trial.verdict.valid, trial.verdict.message
    assert trial.environment["started_from"] == "2 experts trained alone"
    kept = load_file(tmp_path / "trial" / "weights.safetensors")
    for place, name in enumerate(NAMES):
        for key, value in load_file(alone[name] / "weights.safetensors").items():
            assert np.array_equal(kept[key.replace("expert.", f"experts.{place}.", 1)], value), key
    # Exported and used elsewhere, the weights are whole: experts and gate.
    model = TrainedModel(candidate.source, KeptWeights.read(tmp_path / "trial"))
    with torch.no_grad():
        outputs = model(torch.from_numpy(np.array(digits.validation_images)))
    assert outputs.argmax(1).numpy().astype("<u2").tobytes() == trial.validation_predictions


def test_a_file_with_frozen_experts_passes_the_check(engine, assembler):
    candidate = assembler.assemble(replace(FROZEN, experts=NAMES), [known(name) for name in NAMES])
    found = engine.check(CheckJob(candidate=candidate, shape=Shape(1, 8, 8), isolation=Isolation.PROCESS))
    assert found.valid, found.message


def test_a_joint_training_goes_on_from_the_experts(mixture, alone, tmp_path):
    _, cold = mixture(Plan(experts=()), experts=(), lr=0.001)
    _, warm = mixture(Plan(experts=()), lr=0.001)
    assert warm.verdict.valid and cold.verdict.valid
    assert warm.validation_accuracy > cold.validation_accuracy + 0.05
    kept = load_file(tmp_path / "trial" / "weights.safetensors")
    first = load_file(alone["Narrow"] / "weights.safetensors")
    assert any(not np.array_equal(kept[key.replace("expert.", "experts.0.", 1)], first[key]) for key in first)


def test_frozen_experts_without_weights_are_refused(mixture):
    _, trial = mixture(FROZEN, experts=())
    assert trial.verdict.outcome is Outcome.CONTRACT
    assert "its experts are frozen and have no trained weights" in trial.verdict.message


def test_weights_of_another_family_are_one_line(mixture):
    _, trial = mixture(FROZEN, experts=("Wide", "Narrow"))
    assert trial.verdict.outcome is Outcome.CRASHED
    assert "the weights of the experts do not fit: Error(s) in loading state_dict" in trial.verdict.message
    assert "\n" not in trial.verdict.message
