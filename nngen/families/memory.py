"""What each family costs in training, measured once and kept: a mixture costs what its experts cost together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nngen.families.hyperparameters import best_hyperparameters
from nngen.families.probe import default_jobs, run_tasks
from nngen.files import cache_dir, write_atomically
from nngen.types import Family, Interface, Shape

__all__ = ["Weight", "weights"]

_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """What a family costs at one shape, on one CPU thread in float32.

    Attributes:
        weights_mib: Of its parameters and buffers.
        image_mib: Kept for the backward pass by each image of a batch.
        image_s: Seconds that each image takes, forward and backward.
        step_s: Seconds that each step takes besides.
    """

    weights_mib: float
    image_mib: float
    image_s: float
    step_s: float


def weights(
    families: Iterable[tuple[Family, Interface]], shape: Shape, *, classes: int = 10, jobs: int | None = None
) -> dict[str, Weight]:
    """Weigh families at a shape, or look up what was weighed before.

    Args:
        families: Each with the inputs it accepts.
        shape: The images' shape, as they reach the mixture; each family is weighed behind its adapter.
        classes: Of the data set.
        jobs: Families weighed at a time; None takes one for each CPU, at most 8.

    Returns:
        Weights by name; a family that cannot be weighed here is left out.

    Raises:
        LemurError: If the measuring process itself fails.
    """
    tasks = {family.name: _Task(family, interface, shape, classes) for family, interface in families}
    done = {name: weight for name, task in tasks.items() if (weight := task.kept()) is not None}
    missing = {name: task for name, task in tasks.items() if name not in done}
    if missing:
        for answer in run_tasks(missing, jobs or default_jobs()):
            if (found := answer.get("weight")) is not None:
                done[answer["name"]] = missing[answer["name"]].keep(found)
    return {name: done[name] for name in tasks if name in done}


@dataclass(frozen=True)
class _Task:
    family: Family
    interface: Interface
    shape: Shape
    classes: int

    def order(self) -> dict[str, Any]:
        return {
            "name": self.family.name,
            "source": self.family.source,
            "hyperparameters": best_hyperparameters(self.family),
            "classes": self.classes,
            "shape": [self.shape.channels, self.shape.height, self.shape.width],
            "interface": {name: getattr(self.interface, name) for name in self.interface.__slots__},
            "weigh": True,
        }

    def kept(self) -> Weight | None:
        try:
            return Weight(**json.loads(self._file().read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, found: Mapping[str, float]) -> Weight:
        # A cache that cannot be written only costs the time.
        with suppress(OSError):
            write_atomically(self._file(), json.dumps(dict(found)).encode())
        return Weight(**found)

    def _file(self) -> Path:
        key = (_VERSION, version("torch"), self.family.fingerprint, self.order()["hyperparameters"], self.classes)
        digest = hashlib.sha256(repr((*key, str(self.shape))).encode()).hexdigest()
        return cache_dir() / "weights" / f"{digest[:40]}.json"
