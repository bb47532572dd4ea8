"""Data sets, the isolated worker, and the local engine that checks and trains candidates in it.

Importing this room loads no torch: the worker's server does, in a process of its own.
"""

from __future__ import annotations

from nngen.execution.data import Dataset, load_dataset
from nngen.execution.device import pick_device
from nngen.execution.engine import LocalEngine
from nngen.execution.isolation import Isolation
from nngen.execution.judge import accuracy

__all__ = ["Dataset", "Isolation", "LocalEngine", "accuracy", "load_dataset", "pick_device"]
