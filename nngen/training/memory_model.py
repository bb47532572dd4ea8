"""Prediction of the memory and time of a training before it starts.

A mixture keeps for its backward pass what its experts keep (``nngen.families.probe``). The lower bound counts only
what cannot be avoided, so a training that it refuses would have failed: docs/design/0014-prediction.md.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from nngen.errors import NngenError
from nngen.families.probe import training_costs
from nngen.families.profile import TrainingCost
from nngen.families.trust import AUTO
from nngen.training.engine import PREDICTED, SMALLEST_BATCH
from nngen.types import Candidate, Family, Interface, Outcome, TrialSpec, Verdict

_WORKER_MIB = {"cpu": (200.0, 330.0), "cuda": (300.0, 550.0)}
"""Memory of a worker besides its net, least and usual: torch's pages on the CPU, the context on a card."""

_COPIES = 4
"""Copies of each weight: itself, its gradient, and the optimizer's two moments."""

_HALF = {"cpu": 1.0, "cuda": 0.5}  # size of an activation as a share of float32's: bfloat16 on a card

_USUAL = 1.4
"""Usual memory as a multiple of what is kept: gradients of activations, the gate, fragmentation. Measured on a CPU."""

_HEAVIEST_MIB = 0.034
"""Memory kept per pixel of an image by four experts of the heaviest family, which keeps 573 MB an image at 256 px."""

_HEAVY_WEIGHTS_MIB = 4096.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predicted memory and time of a training."""

    fixed_mib: float  # lower bound of its memory that does not depend on the batch
    image_mib: float  # lower bound of what each image of a batch adds
    likely_mib: float  # expected memory with the batch that was asked for
    seconds: float | None  # expected seconds of training on a CPU; None for a card, for which nothing was measured

    def low_mib(self, batch: int) -> float:
        """Return the lower bound of the memory with this batch."""
        return self.fixed_mib + batch * self.image_mib


Predictor: TypeAlias = Callable[[Candidate, TrialSpec, int], Prediction | None]
"""Predicts the training of a candidate on a number of images; None where it cannot."""


def predict(
    experts: Iterable[str], known: Mapping[str, TrainingCost], spec: TrialSpec, images: int, *, frozen: bool = False
) -> Prediction | None:
    """Predict a training; None if a family was not measured. Frozen experts keep nothing for a backward pass."""
    names = tuple(experts)
    if not names or not set(names) <= known.keys():
        return None
    # The experts of a mixture train at once: what each keeps for its backward pass adds up, and so does its time.
    own = [known[name] for name in names]
    least, usual = _WORKER_MIB[spec.device]
    states = (1 if frozen else _COPIES) * sum(weight.weights_mib for weight in own)
    # Experts that only predict run one after the other, and what each computed is gone then.
    image = _HALF[spec.device] * (max if frozen else sum)(weight.image_mib for weight in own)
    # A batch has at most the images of the data set.
    batch = min(spec.batch, images)
    steps = math.ceil(images / spec.batch)
    # A backward pass takes twice as long as a forward pass.
    passes = 1 / 3 if frozen else 1.0
    image_s, step_s = passes * sum(weight.image_s for weight in own), passes * sum(weight.step_s for weight in own)
    # A step has a part that grows with its images, which threads share, and a fixed part, which they do not.
    seconds = spec.epochs * (images * image_s / spec.threads + steps * step_s)
    return Prediction(
        fixed_mib=least + states,
        image_mib=0.0 if frozen else image,
        likely_mib=usual + _USUAL * (states + batch * image),
        seconds=seconds if spec.device == "cpu" else None,
    )


def predictor(families: Mapping[str, tuple[Family, Interface]], *, classes: int = 10, wanted: str = AUTO) -> Predictor:
    """Return a predictor for mixtures of these families; each is measured when it first appears, once per machine.

    On a CPU, a training that would stay within its limit even with four of the heaviest family is not predicted, which
    saves the measuring: it takes seconds a family.
    """
    known: dict[str, dict[str, TrainingCost | None]] = {}
    lock = threading.Lock()

    def answer(candidate: Candidate, spec: TrialSpec, images: int) -> Prediction | None:
        names = candidate.plan.experts if candidate.plan is not None else ()
        if not names or not set(names) <= families.keys() or _is_small(spec):
            return None
        with lock:
            # Measured under the lock: a thread that needs the same families waits for the result.
            at_shape = known.setdefault(str(spec.shape), {})
            missing = [name for name in dict.fromkeys(names) if name not in at_shape]
            # A family that cannot be measured is not tried again, and its mixtures are trained without a prediction.
            at_shape.update(dict.fromkeys(missing))
            with suppress(NngenError):
                measured = [families[name] for name in missing]
                at_shape.update(training_costs(measured, spec.shape, classes=classes, wanted=wanted))
            own = {name: weight for name in names if (weight := at_shape[name]) is not None}
        return predict(names, own, spec, images, frozen=candidate.plan is not None and candidate.plan.recipe.frozen)

    return answer


def _is_small(spec: TrialSpec) -> bool:
    # A card has its own memory, which the limit on the worker's does not describe.
    pixels = spec.batch * spec.shape.height * spec.shape.width
    return spec.device == "cpu" and _HEAVY_WEIGHTS_MIB + _HEAVIEST_MIB * pixels <= spec.memory_mib


def refusal(prediction: Prediction, limit_mib: float) -> Verdict | None:
    """Return the verdict on a training that cannot fit even with the smallest batch; None for all others."""
    least = prediction.low_mib(SMALLEST_BATCH)
    if least <= limit_mib:
        return None
    message = (
        f"needs {least:,.0f} MiB at least, even in batches of {SMALLEST_BATCH}; there are {limit_mib:,.0f}: use lighter"
        " families, lower --shape, or raise --memory-mib"
    )
    return Verdict(outcome=Outcome.MEMORY, rule=PREDICTED, message=message)


def largest_batch(prediction: Prediction, batch: int, limit_mib: float) -> int:
    """Halve a batch until its lower bound fits, as the engine would by trying."""
    while batch // 2 >= SMALLEST_BATCH and prediction.low_mib(batch) > limit_mib:
        batch //= 2
    return batch
