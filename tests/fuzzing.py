"""Settings of the tests that give random input to readers of foreign data."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings


def fuzz(examples: int, **changes: Any) -> settings:
    """Return settings for seconds in the suite; ``NNGEN_FUZZ_EXAMPLES=20000`` makes a long run of the same test."""
    number = int(os.environ.get("NNGEN_FUZZ_EXAMPLES", examples))
    return settings(max_examples=number, suppress_health_check=list(HealthCheck), **{"deadline": None} | changes)
