"""A channel of the worker that keeps what is sent, and trainings in this process on the fake data set."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nngen.isolation import Isolation
from nngen.testing.fakes import fake_dataset
from nngen.training.engine import TrainJob
from nngen.training.frames import FrameKind
from nngen.training.orders import TrainOrder
from nngen.training.worker import evaluation
from nngen.training.worker.epochs import train_epochs
from nngen.training.worker.network import build
from nngen.types import Candidate, Shape, TrialSpec

CPU = torch.device("cpu")
SPEC = TrialSpec(dataset="fake", shape=Shape(1, 8, 8), batch=4, lr=0.01, seed=3)


def order(spec: TrialSpec = SPEC, **options: Any) -> TrainOrder:
    candidate = Candidate(id="one", source="", canonical="")
    job = TrainJob(candidate=candidate, spec=spec, dataset=fake_dataset(), isolation=Isolation.PROCESS)
    logits = options.pop("logits", False)
    return TrainOrder.of(replace(job, logits=logits), **options)


@dataclass
class Sent:
    """Channel of a worker that keeps events, kinds of frames, and files."""

    steps: list[Any] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    bodies: dict[int, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self.steps.append(message.get("name") or message.get("event"))
        if message.get("event") == "file":
            self.files[message["name"]] = b""

    def send_bytes(self, kind: int, body: bytes) -> None:
        if kind == FrameKind.FILE:
            self.files[[*self.files][-1]] += bytes(body)
            return
        self.steps.append(kind)
        self.bodies[kind] = bytes(body)


@dataclass
class Training:
    """A training in this process, with the file, the order and the channel that its steps take."""

    path: Path
    order: TrainOrder
    channel: Any = field(default_factory=Sent)

    def run(self, files: list[int]) -> None:
        train_epochs(self.path, self.order, self.channel, files)

    def build(self) -> nn.Module:
        return build(self.path, self.order, self.channel)

    def predict(self, net: nn.Module, *given: Any) -> bytes:
        return evaluation.predict(net, self.path, self.order, *given)
