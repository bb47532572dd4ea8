"""Imports the optional packages late, and says which command installs a missing one."""

from __future__ import annotations

import importlib
import os
from typing import Any

from nngen.errors import MissingExtraError

__all__ = ["load"]


def load(name: str, extra: str = "llm") -> Any:
    """Import an optional package.

    Args:
        name: Of the module, with dots.
        extra: Of ``nngen-moe`` that brings it.

    Raises:
        MissingExtraError: If it is not installed; the message holds the one command.
    """
    # Both ask for nothing that this package wants from a network.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name.split(".")[0]):
            raise MissingExtraError(name.split(".")[0], extra) from error
        raise
