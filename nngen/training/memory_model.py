"""Says before a trial starts what memory and time it will take, and lets trials share a card by what they will take.

A mixture keeps for its backward pass what its experts keep (``nngen.families.probe``). The lower bound counts only
what cannot be avoided, so what is refused by it would have failed: docs/design/0014-prediction.md.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

from nngen.errors import NngenError
from nngen.families.probe import TrainingCost, training_costs
from nngen.types import Candidate, Family, Interface, Outcome, TrialSpec, Verdict

__all__ = [
    "RULE",
    "GpuMemoryPool",
    "Prediction",
    "Predictor",
    "largest_batch",
    "pack",
    "predict",
    "predictor",
    "refusal",
]

RULE = "predicted"

_WORKER_MIB = {"cpu": (200.0, 330.0), "cuda": (300.0, 550.0)}
"""Of a worker besides its net, least and usual: torch's pages on the CPU, the context on a card."""

_COPIES = 4
"""Of each weight: itself, its gradient, and the optimizer's two moments."""

_HALF = {"cpu": 1.0, "cuda": 0.5}
"""Bytes that an activation takes, as a share of float32's: bfloat16 on a card."""

_USUAL = 1.4
"""What comes on top of what is kept: gradients of activations, the gate, holes. Measured on a CPU, as the page says."""

_HEAVIEST_MIB = 0.034
"""Kept for each pixel of an image by four of the heaviest family, which keeps 573 MB an image at 256 px."""

_HEAVY_WEIGHTS_MIB = 4096.0

_SMALLEST = 2
"""Images of the smallest batch that the engine goes down to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a trial will take.

    Attributes:
        fixed_mib: Less is impossible, whatever the batch.
        image_mib: Each image of a batch adds at least this.
        likely_mib: To be expected with the batch that was asked for.
        seconds: Of training, to be expected on a CPU; None for a card, for which nothing was measured.
    """

    fixed_mib: float
    image_mib: float
    likely_mib: float
    seconds: float | None

    def low_mib(self, batch: int) -> float:
        """Memory below which no trial with this batch stays."""
        return self.fixed_mib + batch * self.image_mib


Predictor: TypeAlias = Callable[[Candidate, TrialSpec, int], Prediction | None]
"""Predicts a candidate's trial on a number of training images; None where it cannot."""


def predict(
    experts: Iterable[str], known: Mapping[str, TrainingCost], spec: TrialSpec, images: int
) -> Prediction | None:
    """Predict a trial; None if one of its families was not weighed.

    Args:
        experts: The families of its mixture.
        known: What families weigh at ``spec.shape``.
        spec: How it trains.
        images: Of the training split.
    """
    names = tuple(experts)
    if not names or not set(names) <= known.keys():
        return None
    own = [known[name] for name in names]
    least, usual = _WORKER_MIB[spec.device]
    held = _COPIES * sum(weight.weights_mib for weight in own)
    image = _HALF[spec.device] * sum(weight.image_mib for weight in own)
    batch = min(spec.batch, images)
    steps = math.ceil(images / spec.batch)
    image_s, step_s = sum(weight.image_s for weight in own), sum(weight.step_s for weight in own)
    seconds = spec.epochs * (images * image_s / spec.threads + steps * step_s)
    return Prediction(
        fixed_mib=least + held,
        image_mib=image,
        likely_mib=usual + _USUAL * (held + batch * image),
        seconds=seconds if spec.device == "cpu" else None,
    )


def predictor(families: Mapping[str, tuple[Family, Interface]], *, classes: int = 10) -> Predictor:
    """Return what predicts mixtures of these families; each is weighed when it is first met, and once per machine.

    On a CPU, a trial that would stay within its limit even if every expert were the heaviest is not predicted, since
    there is nothing to find out: weighing takes seconds a family.
    """
    known: dict[str, dict[str, TrainingCost | None]] = {}
    lock = threading.Lock()

    def answer(candidate: Candidate, spec: TrialSpec, images: int) -> Prediction | None:
        names = candidate.plan.experts if candidate.plan is not None else ()
        if not names or not set(names) <= families.keys() or _is_small(spec):
            return None
        with lock:
            at_shape = known.setdefault(str(spec.shape), {})
            missing = [name for name in dict.fromkeys(names) if name not in at_shape]
            # A family that cannot be weighed is not tried again, and its mixtures are trained without a prediction.
            at_shape.update(dict.fromkeys(missing))
            with suppress(NngenError):
                at_shape.update(training_costs([families[name] for name in missing], spec.shape, classes=classes))
            own = {name: weight for name in names if (weight := at_shape[name]) is not None}
        return predict(names, own, spec, images)

    return answer


def _is_small(spec: TrialSpec) -> bool:
    pixels = spec.batch * spec.shape.height * spec.shape.width
    return spec.device == "cpu" and _HEAVY_WEIGHTS_MIB + _HEAVIEST_MIB * pixels <= spec.memory_mib


def refusal(prediction: Prediction, limit_mib: float) -> Verdict | None:
    """Refuse what cannot fit even with the smallest batch; None for all else, since the engine halves the batch.

    Args:
        prediction: Of the trial.
        limit_mib: Memory that there is.
    """
    least = prediction.low_mib(_SMALLEST)
    if least <= limit_mib:
        return None
    message = (
        f"needs {least:,.0f} MiB at least, even in batches of {_SMALLEST}; there are {limit_mib:,.0f}: take lighter"
        " families, lower --shape, or raise --memory-mib"
    )
    return Verdict(outcome=Outcome.MEMORY, rule=RULE, message=message)


def largest_batch(prediction: Prediction, batch: int, limit_mib: float) -> int:
    """Halve a batch until its lower bound fits; what the engine would come to by trying."""
    while batch // 2 >= _SMALLEST and prediction.low_mib(batch) > limit_mib:
        batch //= 2
    return batch


def pack(needs_mib: Sequence[float], limit_mib: float) -> list[list[int]]:
    """Group trials so that each group fits on one card at once: the largest first, each where it fits first.

    Args:
        needs_mib: What each trial is likely to take.
        limit_mib: Of the card. A trial that needs more is a group of its own.

    Returns:
        Groups of positions in ``needs_mib``.
    """
    groups: list[list[int]] = []
    left: list[float] = []
    for position in sorted(range(len(needs_mib)), key=lambda position: -needs_mib[position]):
        need = needs_mib[position]
        place = next((number for number, room in enumerate(left) if need <= room), None)
        if place is None:
            groups.append([])
            left.append(limit_mib)
            place = len(groups) - 1
        groups[place].append(position)
        left[place] -= need
    return groups


class GpuMemoryPool:
    """A card's memory, shared by trials as they come: each waits until what it is likely to take is free."""

    def __init__(self, limit_mib: float) -> None:
        self._limit = limit_mib
        self._taken: list[float] = []
        self._change = threading.Condition()

    @contextmanager
    def hold(self, need_mib: float | None) -> Iterator[None]:
        """Wait for room, and hold it; an unknown need takes the whole card. Whoever is alone is let in at once."""
        need = self._limit if need_mib is None else min(need_mib, self._limit)
        with self._change:
            self._change.wait_for(lambda: not self._taken or sum(self._taken) + need <= self._limit)
            self._taken.append(need)
        try:
            yield
        finally:
            with self._change:
                self._taken.remove(need)
                self._change.notify_all()
