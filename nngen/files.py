"""Atomic writes of files and folders, the cache folder, and the folders shipped with the package."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import platformdirs

from nngen.errors import NngenError

__all__ = ["cache_dir", "draft_folder", "load_json", "package_folder", "store_json", "write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old bytes or the new ones, never a part.

    Raises:
        OSError: If the folder cannot be made or written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile.mkstemp: its files can be read by their owner alone, whatever the umask.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


@contextmanager
def draft_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``folder`` when the block ends, and is removed if the block raises.

    Readers see the whole folder or none. If another process made ``folder`` meanwhile, that one stays.

    Args:
        folder: The final path.
        replace: Whether a folder that is there is removed first.

    Raises:
        OSError: If the folder cannot be made or renamed; nothing is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield draft
        draft.chmod(0o755)  # mkdtemp lets its owner alone enter
        if replace and folder.exists():
            shutil.rmtree(folder)
        try:
            draft.rename(folder)
        except OSError:
            if replace or not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load_json(path: Path) -> Any:
    """Read a JSON file of the cache; None where it is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def store_json(path: Path, value: object) -> None:
    """Write a JSON file of the cache; one that cannot be written only costs the time to make it again."""
    with suppress(OSError):
        write_atomically(path, json.dumps(value).encode())


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
