"""Predictions with kept weights: the files of a trial, images of files, and the job of a worker, without a worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_runner import DONE, FakeRunner
from PIL import Image
from safetensors.torch import save_file

from nngen.checks.rules.sample_nets import net_source
from nngen.datasets.preprocessing import Preprocessing
from nngen.errors import DataError
from nngen.isolation import ExitReason, FrameError, Isolation, Job, Limits
from nngen.testing.fakes import fake_dataset
from nngen.training import inference
from nngen.training.engine import TrainJob
from nngen.training.frames import FrameKind
from nngen.training.inference import KeptWeights, PredictJob, predict_logits
from nngen.training.orders import TrainOrder
from nngen.training.state.artifacts import ArtifactRequest
from nngen.training.state.trained_model import TrainedModel
from nngen.types import Candidate, Shape, TrialSpec

SPEC = TrialSpec(dataset="fake", shape=Shape(1, 8, 8), threads=4)
WORK = TrainJob(
    candidate=Candidate(id="one", source="x = 1\n", canonical=""),
    spec=SPEC,
    dataset=fake_dataset(classes=3),
    isolation=Isolation.PROCESS,
)
ORDER = TrainOrder.of(WORK, artifacts=("weights",), done=1, compiled=True)
PREPARED = Preprocessing(
    image_shape=Shape(1, 8, 8), input_shape=Shape(1, 8, 8), mean=(0.5,), std=(0.5,), class_names=("a", "b", "c")
)


@pytest.fixture
def kept(tmp_path: Path) -> KeptWeights:
    """Weights of a linear net whose logits are the sum of the first pixels, 0 and 1."""
    (tmp_path / "trial").mkdir()
    config = {"order": ORDER.to_json(), **PREPARED.to_dict()}
    (tmp_path / "trial" / "config.json").write_text(json.dumps(config))
    weight = torch.zeros(3, 64)
    weight[0, 0] = 1.0
    tensors = {"head.1.weight": weight, "head.1.bias": torch.tensor([0.0, 0.0, 1.0])}
    save_file(tensors, tmp_path / "trial" / "weights.safetensors")
    return KeptWeights.read(tmp_path / "trial")


def test_the_folder_of_a_trial_is_read(kept: KeptWeights, tmp_path: Path) -> None:
    file = tmp_path / "trial" / "weights.safetensors"
    assert kept == KeptWeights(file=file, order=ORDER, preprocessing=PREPARED)
    config = file.with_name("config.json")
    for content in ('{"order": {}}', "[]", "{", '{"order": 3}'):
        config.write_text(content)
        with pytest.raises(DataError, match=rf"^{config} is missing or damaged: "):
            KeptWeights.read(file.parent)
    file.unlink()
    with pytest.raises(DataError, match=rf"^{file} is missing$"):
        KeptWeights.read(file.parent)


def images(folder: Path) -> list[Path]:
    """Write a dark image, a file that is none, and a bright one."""
    paths = [folder / f"{name}.png" for name in ("dark", "none", "bright")]
    for path, value in zip(paths, (10, None, 250), strict=True):
        if value is None:
            path.write_bytes(b"x")
        else:
            Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("channels", [1, 3])
def test_images_become_those_of_the_training(channels: int, kept: KeptWeights, tmp_path: Path, monkeypatch) -> None:
    shape = Shape(channels, 4, 6)
    own = replace(kept, preprocessing=replace(PREPARED, image_shape=shape))
    asked: list[tuple[Path, int]] = []
    monkeypatch.setattr(inference, "check_room", lambda folder, size: asked.append((folder, size)))
    paths, seen = images(tmp_path), []
    out = tmp_path / "out.npy"
    faults = own.decode(paths, out, lambda *given: seen.append(given))
    assert ([*faults], bool(faults[paths[1]])) == ([paths[1]], True)
    found = np.load(out)
    assert (found.shape, found.dtype) == ((2, channels, 4, 6), np.uint8)
    assert found.reshape(2, -1).mean(1).tolist() == [10, 250]
    assert asked == [(tmp_path, 3 * channels * 24)]
    assert seen[-1] == (3, 3)
    out.unlink()
    assert own.decode(paths[::2], out) == {}
    image = own.image(paths[2])
    assert (image.shape, int(image.min()), int(image.max())) == ((channels, 4, 6), 250, 250)
    with pytest.raises(DataError):
        own.image(paths[1])


@pytest.fixture
def play(kept: KeptWeights, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[PredictJob, FakeRunner]]:
    def begin(*frames: Any, result: Any = DONE, **changes: Any) -> tuple[PredictJob, FakeRunner]:
        runner = FakeRunner(scripts=[(frames, result)])

        def make(preload: tuple[str, ...]) -> FakeRunner:
            assert preload == ("nngen.training.worker",)
            return runner

        monkeypatch.setattr(inference, "JobRunner", make)
        fields = {"source": "x = 1\n", "kept": kept, "images": Path("images"), "count": 2}
        return PredictJob(**fields, isolation=Isolation.SANDBOX, **changes), runner

    return begin


LOGITS = np.arange(6, dtype="<f4").reshape(2, 3)
READY = {"event": "ready", "parameters": 3}
OUTPUTS = (FrameKind.OUTPUTS, LOGITS.tobytes())
FAILED = {"event": "verdict", "outcome": "shape", "rule": "r", "message": "too small", "line": 2}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_logits_come_from_one_job(device: str, play, kept: KeptWeights) -> None:
    asked, runner = play(READY, OUTPUTS, READY, device=device, metadata={"a": "b"})
    found = predict_logits(asked)
    assert (found.tolist(), found.dtype) == (LOGITS.tolist(), np.float32)
    plain = replace(ORDER, device=device, threads=1, artifacts=(), metadata={"a": "b"}, compiled=False, done=0)
    assert runner.jobs == [
        Job(
            entry_point="nngen.training.worker:predict",
            arguments=plain.to_json(),
            limits=Limits(time_limit_s=3600.0, memory_mib=12_288),
            isolation=Isolation.SANDBOX,
            source="x = 1\n",
            files=[Path("images"), kept.file],
            frames={FrameKind.OUTPUTS: range(24, 25)},
            cuda=device == "cuda",
        )
    ]
    assert runner.events == ["close"]


def test_files_that_are_asked_for_come_before_the_logits(play) -> None:
    request = ArtifactRequest(names=("weights", "onnx"), files={"weights": bytearray(b"old")})
    file = {"event": "file", "name": "weights"}
    none = {"event": "no-file", "name": "onnx", "reason": "no operator"}
    frames = [READY, file, (FrameKind.FILE, b"ab"), (FrameKind.FILE, b"c"), none, OUTPUTS]
    asked, runner = play(*frames, artifacts=request, threads=2, time_limit_s=5.0, memory_mib=3)
    assert predict_logits(asked).tolist() == LOGITS.tolist()
    assert (request.files, request.reasons) == ({"weights": b"abc"}, {"onnx": "no operator"})
    (job,) = runner.jobs
    assert job.frames == {FrameKind.OUTPUTS: range(24, 25), FrameKind.FILE: range(2**20 + 1)}
    assert (job.arguments["artifacts"], job.arguments["threads"]) == (("weights", "onnx"), 2)
    assert job.limits == Limits(time_limit_s=5.0, memory_mib=3)
    with pytest.raises(FrameError, match="files of more than 3 MiB"):
        request.append(bytes(3 * 2**20))


@pytest.mark.parametrize(
    ("frames", "result", "message"),
    [
        ([READY, FAILED, OUTPUTS], DONE, "shape: too small"),
        (
            [READY],
            replace(DONE, reason=ExitReason.TIME),
            "timeout: ran longer than 1 s and was ended: simplify it, or raise --time-limit",
        ),
    ],
)
def test_a_prediction_that_fails_names_the_weights(frames, result, message: str, play, kept: KeptWeights) -> None:
    asked, _ = play(*frames, result=result)
    with pytest.raises(DataError) as caught:
        predict_logits(asked)
    assert str(caught.value) == f"no prediction with {kept.file}: {message}"


@pytest.mark.parametrize("event", ["file", "no-file", "epoch", None])
def test_other_messages_are_refused(event: str | None, play) -> None:
    asked, _ = play({"event": event, "name": "weights"})
    with pytest.raises(FrameError, match=r"^a message out of order$"):
        predict_logits(asked)
    if event in ("epoch", None):
        asked, _ = play({"event": event}, artifacts=ArtifactRequest(names=("weights",)))
        with pytest.raises(FrameError, match=r"^a message out of order$"):
            predict_logits(asked)


SOURCE = net_source(
    init="import random, numpy; self.drawn = [random.random(), numpy.random.rand(), torch.rand(1).item()]",
    setup="self.ready = prm['lr']",
)


def test_a_trained_model_classifies_files_and_leaves_the_generators_alone(kept: KeptWeights, tmp_path: Path) -> None:
    import random

    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(1))]

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    wanted = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    model = TrainedModel(SOURCE, kept)
    assert draws() == wanted
    assert model.net.drawn == TrainedModel(SOURCE, kept).net.drawn
    assert len({*model.net.drawn, *TrainedModel(SOURCE, replace(kept, order=replace(ORDER, seed=1))).net.drawn}) == 6
    assert (model.net.ready, model.training, model.net.training) == (1e-3, False, False)
    assert (model.class_names, model.preprocessing) == (("a", "b", "c"), PREPARED)
    dark, _, bright = images(tmp_path)
    # The first logit is the first pixel, from -1 to 1.
    first = torch.tensor([[10 / 127.5 - 1, 0.0, 1.0], [250 / 127.5 - 1, 0.0, 1.0]])
    found = model.probabilities([dark, str(bright)])
    assert torch.allclose(found, first.softmax(1), atol=1e-5)
    logits = model(torch.full((2, 1, 8, 8), 255, dtype=torch.uint8))
    assert torch.allclose(logits, torch.tensor([1.0, 0.0, 1.0]).expand(2, 3), atol=1e-5)
    assert model.classify([dark, bright]) == ["c", "c"]
    more = replace(kept, preprocessing=replace(PREPARED, class_names=("x", "y", "z")))
    assert TrainedModel(SOURCE, more).classify([bright]) == ["z"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (net_source(init="raise ValueError('odd')"), r"^the network cannot be built: line 11: ValueError: odd"),
        (net_source(setup="raise ValueError('odd')"), r"^the network cannot be built: line 17: ValueError: odd"),
        (net_source(init="self.more = nn.Linear(1, 1)"), r"weights\.safetensors cannot be loaded: Error\(s\) in"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(source: str, message: str, kept: KeptWeights) -> None:
    with pytest.raises(DataError, match=message) as caught:
        TrainedModel(source, kept)
    assert "\n" not in str(caught.value)
