"""Language models that propose mixtures and are tuned on the archive's results.

Only this folder imports transformers, peft and trl, and only when a model is used.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from nngen.errors import MissingExtraError

__all__ = ["optional_import"]


def optional_import(name: str, extra: str = "llm") -> Any:
    """Import a module of an optional dependency.

    Raises:
        MissingExtraError: If it is not installed; the message holds the command that installs it.
    """
    # Telemetry needs a network; parallel tokenizers warn after a fork.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only a missing package is an extra; a module missing inside of an installed one is a fault.
        if error.name and name.startswith(error.name.split(".")[0]):
            raise MissingExtraError(name.split(".")[0], extra) from error
        raise
