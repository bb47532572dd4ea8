"""Isolated worker processes: fork server, supervisor, resource limits and the bubblewrap sandbox.

This package knows nothing of training; a job names the function that the worker runs.
"""

from __future__ import annotations

from nngen.isolation.level import Isolation

__all__ = ["Isolation"]
