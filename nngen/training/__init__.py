"""Training of candidates in isolated workers, and scoring outside of them.

Importing this package loads no torch: the fork server does, in a process of its own.
"""

from __future__ import annotations

from nngen.training.engine import CheckJob, Engine, TrainJob
from nngen.training.environment import pick_device
from nngen.training.local_engine import LocalEngine
from nngen.training.scoring import accuracy

__all__ = ["CheckJob", "Engine", "LocalEngine", "TrainJob", "accuracy", "pick_device"]
