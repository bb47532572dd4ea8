"""Values that packages exchange: frozen, slotted, keyword-only dataclasses.

Times are in seconds (``*_s``), memory in MiB (``*_mib``), fractions in [0, 1].
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self, TypeAlias

from nngen.errors import UsageError
from nngen.plan import Plan
from nngen.ranges import Batch, Epochs, LearningRate, MiB, Momentum, Seconds, Seed, Size, Threads

Hyperparameters: TypeAlias = Mapping[str, float | int | str]
"""Hyperparameters as LEMUR records them: name to number or name."""

MAX_SOURCE_BYTES = 4 * 2**20
"""Bytes of the largest source of a family or candidate that is read; LEMUR's own files have under 200 kB."""


BYTES_PER_CLASS = 2
"""Bytes of one prediction in ``Trial``: a class as little-endian uint16."""

AUGMENTATIONS = ("none", "flip", "crop-flip", "trivial")
"""Random changes of training images; those of validation and test are never changed."""


def shift_of(side: int) -> int:
    """Return the most pixels by which ``crop-flip`` moves an image along a side: an eighth, as 4 of CIFAR's 32."""
    return max(1, side // 8)


_MOST_CHANNELS = 4
_LONGEST_SIDE = 8_192


@dataclass(frozen=True, slots=True)
class Shape:
    """An image's shape, ``CxHxW``; written and read as ``3x32x32``."""

    channels: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``CxHxW``.

        Raises:
            UsageError: If the text is not three positive integers joined by ``x``.
        """
        match = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})x([1-9]\d{0,8})", text.strip().lower(), re.ASCII)
        if match is None:
            raise UsageError(f"{text[:60]!r} is not a shape: write channels, height and width as 3x32x32")
        return cls(*(int(group) for group in match.groups()))

    def check_images(self) -> None:
        """Check that this can be the shape of images.

        Raises:
            UsageError: If it has more than 4 channels or a side of more than 8,192; the message says how it is written.
        """
        if max(self.height, self.width) > _LONGEST_SIDE or self.channels > _MOST_CHANNELS:
            turned = f"{self.width}x{self.channels}x{self.height}"
            hint = f"; did you mean {turned}?" if self.width <= _MOST_CHANNELS < self.channels else ""
            raise UsageError(
                f"{self} is not a shape of images: 1 to {_MOST_CHANNELS} channels come first, then height and width, of"
                f" 1 to {_LONGEST_SIDE:,} pixels{hint}"
            )

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One recorded trial of a LEMUR model at one epoch.

    Attributes:
        epoch: Epochs trained when the accuracy was taken, from 1.
        accuracy: Accuracy on LEMUR's test split, in [0, 1].
        duration_s: Seconds since training began, cumulative over the epochs.
        hyperparameters: All other values that LEMUR recorded (``lr``, ``batch``, ``transform``, ...).
    """

    model: str
    dataset: str
    epoch: int
    accuracy: float
    duration_s: float
    hyperparameters: Hyperparameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A base architecture of LEMUR: its source and LEMUR's best result with it.

    Attributes:
        fingerprint: SHA-256 of the source's bytes, in hex; probe results are cached under it.
        best: The record with the highest CIFAR-10 accuracy; None for a family without records.
        asked: Hyperparameters of the network that a user asked for, in place of those of the record.
    """

    name: str
    source: str
    fingerprint: str
    best: Record | None
    asked: Hyperparameters = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Conversion of the input for an expert that cannot take it as it is.

    Attributes:
        size: ``(height, width)`` to resize to (bilinear), or None.
        complex: Whether the input is cast to complex numbers.
    """

    size: tuple[int, int] | None = None
    complex: bool = False

    def __bool__(self) -> bool:
        return self.size is not None or self.complex

    def __str__(self) -> str:
        parts = []
        if self.size is not None:
            parts.append(f"resize {self.size[0]}x{self.size[1]}")
        if self.complex:
            parts.append("complex")
        return " + ".join(parts) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The inputs that a family accepts, measured by probing it.

    Attributes:
        low: Smallest height and width that works, in pixels.
        high: Largest height and width that works; None where no upper bound was found.
        square: Whether height and width must be equal.
        complex: Whether the input must be complex.
        hyperparameters: Names of its hyperparameters, where only a call of ``supported_hyperparameters`` tells them.
        own_settings: Whether its code changes settings of torch or seeds the generators, which a mixture puts back.
        channels_last: Whether it runs in the memory format channels_last, at the shape for which it was probed last.
    """

    low: int
    high: int | None = None
    square: bool = False
    complex: bool = False
    hyperparameters: tuple[str, ...] | None = None
    own_settings: bool = False
    channels_last: bool = True

    @property
    def sides(self) -> str:
        """Range of the sides, in words."""
        return f"{self.low} px and more" if self.high is None else f"{self.low} to {self.high} px"

    def adapter(self, shape: Shape) -> Adapter:
        """Return the adapter that makes the family usable at ``shape``; an empty one if none is needed."""
        height, width = (self._nearest(side) for side in (shape.height, shape.width))
        if self.square:
            height = width = max(height, width)
        changed = (height, width) != (shape.height, shape.width)
        return Adapter(size=(height, width) if changed else None, complex=self.complex)

    def _nearest(self, side: int) -> int:
        return max(self.low, side if self.high is None else min(side, self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan written out as one self-contained PyTorch file.

    Attributes:
        id: ``MoE4-<md5>`` as LEMUR computes it: MD5 of the source without white space.
        canonical: SHA-256 over the syntax tree, which distinguishes sources that have the same LEMUR id.
        plan: Plan that it was assembled from; None for a file that came from outside.
        template_version: Version of the templates that wrote it; None for a file from outside, and for candidates
            from before versions were kept.
    """

    id: str
    source: str
    canonical: str
    plan: Plan | None = None
    template_version: int | None = None


class Outcome(enum.StrEnum):
    """Every outcome of a check or a trial; the list is closed."""

    VALID = "valid"
    SYNTAX = "syntax"
    FORBIDDEN = "forbidden"
    CONTRACT = "contract"
    IMPORT = "import"
    SHAPE = "shape"
    NON_FINITE = "non-finite"
    NO_GRADIENT = "no-gradient"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASHED = "crashed"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Result of a check or a trial.

    Attributes:
        rule: Name of the rule that decided (``contract.net``, ``worker``, ...).
        message: Explanation in one line, with the remedy where there is one.
        line: Line of the candidate's source, from 1, where one is known.
    """

    outcome: Outcome
    rule: str = ""
    message: str = ""
    line: int | None = None

    @property
    def valid(self) -> bool:
        return self.outcome is Outcome.VALID

    @property
    def replayed(self) -> bool:
        """Whether a recorded table answered, in place of a training (nngen.surrogate.table_engine)."""
        return self.rule.startswith("table.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Settings that trials with comparable accuracies share; accuracies of two fidelities are never compared.

    Attributes:
        data: Fingerprint of the data set; its name for trials from before fingerprints were kept.
        shape: Shape of the input.
        train_size: Number of training images; None for the whole train split.
        epochs: Number of passes over the train split, all of them in one training.
        batch: Samples per step in effect, which may be fewer than were asked for.
        lr: Learning rate.
        momentum: Momentum.
        augment: Random changes of training images.
        class_weights: Weights of the classes in training, as they were typed.
        hyperparameters: Further values of ``prm``, sorted by name.
        start: SHA-256 of the weights that training started from; empty for new ones.
        horizon: Epochs that schedules stretch over where they are more than ``epochs``; None for most.
    """

    data: str
    shape: Shape
    train_size: int | None
    epochs: int
    batch: int
    lr: float
    momentum: float
    augment: str
    class_weights: str
    hyperparameters: tuple[tuple[str, float | int | str], ...]
    start: str
    horizon: int | None


def historic_augment(dataset: str) -> str:
    """Return the augmentation of trials that were stored before it was: photographs of CIFAR were mirrored."""
    return "flip" if dataset in ("cifar-10", "cifar-100") else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """Settings of a trial: everything that decides it besides the candidate's source and the data.

    Attributes:
        dataset: ``digits``, ``fashion-mnist``, ``folder:PATH``, ...
        shape: Shape to which images are converted before they reach the candidate.
        epochs: Number of passes over the train split.
        batch: Samples per step.
        lr: Learning rate, passed to the candidate in ``prm``.
        momentum: Momentum, passed in ``prm``; AdamW's first beta in assembled files.
        seed: Seeds everything random in the worker.
        device: ``cpu`` or ``cuda``.
        threads: CPU threads of the worker.
        time_limit_s: Limit of the trial in seconds, on the clock of the process that runs the engine.
        memory_mib: Limit on resident memory over the worker's process tree, in MiB.
        augment: Random changes of training images, a name of ``AUGMENTATIONS``.
        class_weights: Weights of the classes in training (``nngen.datasets.class_weights``).
        hyperparameters: Further values for ``prm``, for files that name more than ``lr`` and ``momentum``.
        train_size: Images of the train split that are trained on (``nngen.datasets.splits.subset``); None for all.
        start: SHA-256 of the weights that training starts from; empty for new ones.
        horizon: Epochs that the candidate is told to train for, where the trial ends before and a later one goes on;
            None for ``epochs``.
    """

    dataset: str
    shape: Shape
    epochs: Epochs = 1
    batch: Batch = 64
    lr: LearningRate = 1e-3
    momentum: Momentum = 0.9
    seed: Seed = 0
    device: str = "cpu"
    threads: Threads = 1
    time_limit_s: Seconds = 3600.0
    memory_mib: MiB = 12_288
    augment: str = "none"
    class_weights: str = "none"
    hyperparameters: Hyperparameters = field(default_factory=dict)
    train_size: Size | None = None
    start: str = ""
    horizon: Epochs | None = None

    def fidelity(self, data_fingerprint: str = "", batch: int | None = None) -> Fidelity:
        """Return the fidelity of a trial with these settings; ``batch`` is the one in effect, if another."""
        return Fidelity(
            data=data_fingerprint or self.dataset,
            shape=self.shape,
            train_size=self.train_size,
            epochs=self.epochs,
            batch=self.batch if batch is None else batch,
            lr=self.lr,
            momentum=self.momentum,
            augment=self.augment,
            class_weights=self.class_weights,
            hyperparameters=tuple(sorted(self.hyperparameters.items())),
            start=self.start,
            horizon=self.horizon,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """One point of a trial's learning curve.

    Attributes:
        validation_accuracy: Accuracy computed outside the worker from its predictions, in [0, 1].
        train_accuracy: Accuracy on the train split as the candidate's ``learn`` reported it; None where it did not.
        train_loss: Loss on the train split as ``learn`` reported it; None where it did not.
        seconds: Seconds of this epoch, on the clock of the process that runs the engine.
        usage: Mean gate weight per expert over the epoch; empty where the candidate records none.
        entropy: Mean entropy of the gate's weights, in nats.
        samples: Training images that were handed out to ``learn`` in this epoch; None where they were not counted.
    """

    epoch: int
    validation_accuracy: float
    train_accuracy: float | None = None
    train_loss: float | None = None
    seconds: float = 0.0
    usage: tuple[float, ...] = ()
    entropy: float | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Measurements that trials are ranked by and listed with; each is a column of its own in the archive.

    Attributes:
        validation_accuracy: Accuracy after the last epoch, in [0, 1]; None where training failed.
        parameters: Number of the network's parameters.
        seconds: Wall time from the start of the worker to its end; None where it was not trained.
        peak_mib: Largest resident memory seen over the worker's process tree, in MiB.
        suspect: Reason why the accuracy is not comparable with that of other trials; empty for most.
    """

    validation_accuracy: float | None = None
    parameters: int | None = None
    seconds: float | None = None
    peak_mib: float | None = None
    suspect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements(Score):
    """All measurements and conditions of a training.

    Attributes:
        batch: Samples per step in the end, which is less than ``spec.batch`` where memory did not suffice; None where
            training did not begin.
        batches_tried: All batches that were tried, where there was more than one.
        prm: Hyperparameters as the candidate received them.
        energy_j: Energy in joules, where the device counts it.
        predicted_mib: Memory that the engine expected the trial to take.
        data_fingerprint: Fingerprint of the data set.
        isolation: Isolation level of the worker.
        epochs_before: Epochs of the rung before, after which it went on; None where it began at the first epoch.
        environment: Versions and hardware.
    """

    curve: tuple[EpochResult, ...] = ()
    batch: int | None = None
    batches_tried: tuple[int, ...] = ()
    prm: Hyperparameters = field(default_factory=dict)
    energy_j: float | None = None
    predicted_mib: float | None = None
    data_fingerprint: str = ""
    isolation: str = ""
    epochs_before: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Measurements):
    """A candidate trained at one fidelity, and its accuracy.

    Attributes:
        validation_predictions: Class per validation image, one byte pair each (little-endian uint16).
        test_predictions: Class per test image in the same form; only a chosen candidate's are scored, once.
        validation_logits: Logits per validation image, ``(N, classes)`` little-endian float16, where they were asked
            for.
    """

    candidate_id: str
    spec: TrialSpec
    verdict: Verdict
    validation_predictions: bytes = b""
    test_predictions: bytes = b""
    validation_logits: bytes = b""
    seconds: float = 0.0
    peak_mib: float = 0.0
