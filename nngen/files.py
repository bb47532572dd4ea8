"""Reading of regular files, atomic writes, the cache folder, and the folders shipped with the package."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO, Literal

import platformdirs

from nngen.errors import NngenError

__all__ = [
    "cache_dir",
    "draft_folder",
    "load_json",
    "open_regular",
    "package_folder",
    "path_kind",
    "read_regular",
    "store_json",
    "write_atomically",
]


def read_regular(path: Path, limit: int, *, root: Path | None = None) -> bytes:
    """Read the first ``limit`` bytes of a regular file; a FIFO or a device is refused at once.

    Args:
        path: The file. A link is followed where the user named the file, which is where ``root`` is None.
        limit: Number of bytes.
        root: Folder that the file must lie in; no link from it to the file is followed.

    Raises:
        OSError: If it is missing, is not a regular file or cannot be read; ``strerror`` says which.
    """
    with open_regular(path, root=root) as file:
        return file.read(limit)


def open_regular(path: Path, *, root: Path | None = None) -> BinaryIO:
    """Open a regular file for reading; arguments and errors as for ``read_regular``."""
    # Without O_NONBLOCK, opening a FIFO waits for a writer, perhaps for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if root is None:
        number = os.open(path, flags)
    else:
        # Folder by folder: O_NOFOLLOW looks at the last part of a path only.
        *folders, name = path.relative_to(root).parts
        if ".." in folders:
            raise OSError(errno.EINVAL, f"it is not below {root}", str(path))
        number = os.open(root, flags | os.O_DIRECTORY)
        for part, more in (*((folder, os.O_DIRECTORY) for folder in folders), (name, 0)):
            parent = number
            try:
                number = os.open(part, flags | more | os.O_NOFOLLOW, dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    reason = f"{part} is a link, and links are not followed here"
                    raise OSError(error.errno, reason, str(path)) from None
                raise
            finally:
                os.close(parent)
    if stat.S_ISREG(os.fstat(number).st_mode):
        return os.fdopen(number, "rb")
    os.close(number)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def path_kind(path: Path) -> Literal["folder", "file"] | None:
    """Return what stands at a path; None for nothing, and for a name that no path can have (too long, null bytes)."""
    try:
        return "folder" if stat.S_ISDIR(path.stat().st_mode) else "file"
    except (OSError, ValueError):
        return None


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
