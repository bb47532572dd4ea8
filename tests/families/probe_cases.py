"""One probe of a family, a worker's message, its answer, and ends of workers."""

from __future__ import annotations

from nngen.families.catalogue import make_family
from nngen.families.probe import Probe
from nngen.families.profile import Answer
from nngen.isolation import ExitReason, JobResult, Limits
from nngen.types import Interface, Shape

SHAPE = Shape(1, 12, 16)
FAMILY = make_family("Toy", "class Net: ...\n")
PROBE = Probe(family=FAMILY, shape=SHAPE, classes=10, wanted="auto")
COST = {"weights_mib": 1.5, "image_mib": 0.25, "image_s": 0.5, "step_s": 0}
MESSAGE = {"interface": {"low": 2, "high": 64}, "parameters": 20, "cost": None, "reason": "", "notes": []}
ANSWER = Answer(interface=Interface(low=2, high=64), parameters=20)


def ended(reason: ExitReason = ExitReason.EXIT, status: int = 0) -> JobResult:
    limits = Limits(time_limit_s=1, memory_mib=1)
    return JobResult(reason=reason, limits=limits, status=status, seconds=1.0, peak_mib=1.0, output=b"")
