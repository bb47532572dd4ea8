"""Fixtures of trainings without workers: an engine with a script, and the worker's steps in this process."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_runner import FakeRunner
from worker_channel import Training, order

from nngen.datasets.array_files import WORKER_FILES
from nngen.training import LocalEngine, attempts
from nngen.training.cards import Cards
from nngen.training.orders import TrainOrder


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[LocalEngine, FakeRunner]]:
    """Return a local engine whose workers send the frames of scripts, and its runner."""

    def begin(*scripts: Any, cards: Any = (), **options: Any) -> tuple[LocalEngine, FakeRunner]:
        engine, runner = LocalEngine(**options), FakeRunner(scripts=[*scripts])
        monkeypatch.setattr(attempts, "time", runner)
        there = Cards(runner)
        vars(there).update({"found": cards} if cards else {})
        vars(engine).update({"_runner": runner, "_cards": there})
        return engine, runner

    return begin


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Return a training of the worker in this process; the generators of random numbers are put back at the end."""

    def make(source: str = "", wanted: TrainOrder | None = None) -> Training:
        path = tmp_path / "candidate.py"
        path.write_text(source)
        return Training(path, wanted or order())

    filled = torch.utils.deterministic.fill_uninitialized_memory
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield make
    torch.utils.deterministic.fill_uninitialized_memory = filled
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], list[int]]:
    """Return descriptors of the worker's files: 20 images to train on, 10 of validation and 5 of test."""
    for part in WORKER_FILES:
        count = {"train": 20, "validation": 10, "test": 5}[part.partition("-")[0]]
        images = np.random.default_rng(count).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
        np.save(tmp_path / f"{part}.npy", np.arange(count) % 10 if part == "train-labels" else images)
    return lambda: [os.open(tmp_path / f"{part}.npy", os.O_RDONLY) for part in WORKER_FILES]
