"""Trainings of files that seed themselves, draw in evaluation, or get their weights in the first forward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from family_cases import family_source

from nngen.training import LocalEngine, TrainJob
from nngen.types import EpochResult

Job = Callable[..., TrainJob]
DROPOUT = ("torch.relu(self.body(x))", "nn.functional.dropout(self.body(x))")


def reporting(source: str) -> str:
    """Let ``learn`` return the loss, which tells trainings apart to the last digit."""
    step, loss = "            self.optimizer.step()\n", "self.criterion(self(images), labels)"
    source = source.replace(f"            {loss}.backward()", f"            loss = {loss}\n            loss.backward()")
    return source.replace(step, f"{step}        return 0.5, loss.item()\n")


def curve(engine: LocalEngine, job: TrainJob) -> list[tuple[float, float | None]]:
    found: list[EpochResult] = []
    trial = engine.train(job, found.append)
    assert trial.verdict.valid, trial.verdict.message
    return [(epoch.validation_accuracy, epoch.train_loss) for epoch in found]


@pytest.mark.parametrize(
    "source",
    [
        family_source("import random\nimport numpy as np\ntorch.manual_seed(42)\nrandom.seed(1)\nnp.random.seed(1)"),
        family_source(init="torch.manual_seed(42)").replace(*DROPOUT),
    ],
    ids=["when it is imported", "when it is built"],
)
def test_replicates_of_a_file_that_seeds_itself_differ(source: str, engine: LocalEngine, job: Job) -> None:
    runs = [curve(engine, job(reporting(source), seed=seed)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_draws_in_evaluation_are_repeated_and_leave_those_of_training_alone(engine: LocalEngine, job: Job) -> None:
    # Dropout stays on in evaluation: only the same numbers give the same predictions again.
    quiet = reporting(family_source().replace(*DROPOUT))
    noisy = quiet.replace("        return self.fc", "        self.training or torch.rand(3)\n        return self.fc")
    assert noisy != quiet
    losses = [[loss for _, loss in curve(engine, job(source, epochs=2))] for source in (quiet, noisy)]
    assert losses[0] == losses[1]
    still = curve(engine, job(quiet, epochs=2, lr=1e-30))
    assert still[0][0] == still[1][0]


def test_lazy_layers_are_trained_and_counted(engine: LocalEngine, job: Job) -> None:
    init = "self.body = nn.LazyConv2d(8, 3, padding=1)\nself.fc = nn.LazyLinear(out_shape[0])"
    trial = engine.train(job(family_source(init=init)))
    assert trial.verdict.valid, trial.verdict.message
    assert trial.parameters == 8 * 9 + 8 + 8 * 10 + 10
