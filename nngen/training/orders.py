"""Orders for the worker of a check or a training, as they travel to it in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from nngen.isolation import JsonObject
from nngen.training.engine import TrainJob
from nngen.types import Hyperparameters, Shape

EVAL_FACTOR = 4
"""Images per forward pass of a prediction, relative to the batch of training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOrder:
    """A check, as the worker needs it: a ``CheckJob`` without the candidate and the limits."""

    shape: Shape
    classes: int
    hyperparameters: Hyperparameters
    device: str
    threads: int

    def to_json(self) -> JsonObject:
        return asdict(self) | {"shape": str(self.shape)}

    @classmethod
    def from_json(cls, data: JsonObject) -> Self:
        tuples = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
        return cls(**{**data, **tuples, "shape": Shape.parse(data["shape"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOrder(CheckOrder):
    """A training, as the worker needs it: settings, and of the data set what its files do not say.

    ``lr``, ``momentum``, ``batch`` and ``epoch`` are among the hyperparameters.
    """

    epochs: int
    batch: int
    seed: int
    augment: str  # random changes of training images
    mean: tuple[float, ...]  # mean of the train split per channel, in [0, 1]
    std: tuple[float, ...]  # standard deviation of the train split per channel
    train_size: int | None = None  # number of images of the train split to train on; None for all
    logits: bool = False  # whether the logits of the validation images are sent after training
    compiled: bool = False  # whether the net is compiled before it is trained
    class_weights: tuple[float, ...] = ()  # weight of an image of each class; empty where all count alike
    artifacts: tuple[str, ...] = ()  # names of the files to send
    start: bool = False  # whether weights to start from are among the worker's files
    experts: int = 0  # number of the worker's files that hold the weights of one expert each
    done: int = 0  # epochs that the checkpoint among the worker's files contains; 0 without one
    # MiB of images that are on the device whole; more are read from their files batch by batch
    whole_mib: float = 512.0
    metadata: Mapping[str, str] = field(default_factory=dict)  # texts by name that these files carry

    @property
    def goes_on(self) -> bool:
        """Whether a later training goes on after the last epoch of this one."""
        return self.hyperparameters["epoch"] != self.epochs

    @classmethod
    def of(
        cls,
        job: TrainJob,
        *,
        compiled: bool = False,
        artifacts: tuple[str, ...] = (),
        done: int = 0,
        whole_mib: float = 512.0,
        metadata: Mapping[str, str] | None = None,
    ) -> Self:
        spec, dataset = job.spec, job.dataset
        own = {"lr": spec.lr, "momentum": spec.momentum, "batch": spec.batch}
        own["epoch"] = spec.horizon or spec.epochs
        return cls(
            shape=spec.shape,
            classes=dataset.classes,
            hyperparameters={**spec.hyperparameters, **own},
            epochs=spec.epochs,
            batch=spec.batch,
            seed=spec.seed,
            augment=spec.augment,
            mean=dataset.mean,
            std=dataset.std,
            train_size=spec.train_size,
            logits=job.logits,
            device=spec.device,
            threads=spec.threads,
            compiled=compiled,
            class_weights=dataset.class_weights(spec.class_weights, spec.train_size),
            artifacts=artifacts,
            start=job.start is not None,
            experts=len(job.experts),
            done=done,
            whole_mib=whole_mib,
            metadata=metadata or {},
        )


def artifact_metadata(job: TrainJob) -> dict[str, str]:
    """Return the texts that weights and graph of a training carry: its preprocessing, and what it is a result of."""
    spec = job.spec
    trial = {"model": job.candidate.id, "data": job.dataset.fingerprint, "epochs": spec.epochs, "seed": spec.seed}
    return job.dataset.preprocessing(spec.shape).to_metadata() | {name: str(value) for name, value in trial.items()}
