"""Where things are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """Return the user's cache folder for nngen; ``NNGEN_CACHE`` overrides it. Not created here."""
    return Path(os.environ.get("NNGEN_CACHE") or platformdirs.user_cache_dir("nngen"))
