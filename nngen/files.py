"""Atomic writes, the cache folder, and the folders shipped with the package."""

from __future__ import annotations

import os
import tempfile
from importlib.resources import files
from pathlib import Path

import platformdirs

from nngen.errors import NngenError

__all__ = ["cache_dir", "package_folder", "write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old bytes or the new ones, never a part.

    Raises:
        OSError: If the folder cannot be made or written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def cache_dir() -> Path:
    """Return the user's cache folder for nngen, which may not exist; ``NNGEN_CACHE`` overrides it."""
    return Path(os.environ.get("NNGEN_CACHE") or platformdirs.user_cache_dir("nngen"))


def package_folder(name: str) -> Path:
    """Return the folder ``templates`` or ``prompts``, from the wheel or from a checkout.

    Raises:
        NngenError: If neither holds it.
    """
    package = Path(str(files("nngen")))
    for place in (package / name, package.parent / name):
        if place.is_dir():
            return place
    raise NngenError(f"the folder {name}/ is missing beside the package: reinstall nngen-moe")
