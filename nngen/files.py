"""Reading of regular files, atomic writes, the cache folder, and the folders shipped with the package."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
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
from nngen.text import parse_toml

_MAX_TOML = 2**17
_log = logging.getLogger(__name__)


def read_regular(path: Path, limit: int, *, root: Path | None = None) -> bytes:
    """Read the first ``limit`` bytes of a regular file; a FIFO or a device is refused at once.

    A link is followed where the user named the file; with ``root`` the file must lie below it, and no link is followed.

    Raises:
        OSError: If it is missing, is not a regular file or cannot be read; ``strerror`` says which.
    """
    with open_regular(path, root=root) as file:
        return file.read(limit)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a regular file of TOML, of at most 128 KiB.

    Raises:
        ValueError: If it cannot be read as such; the message is the reason, as one phrase.
    """
    try:
        data = read_regular(path, _MAX_TOML + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    if len(data) > _MAX_TOML:
        raise ValueError("it is longer than 128 KiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    return parse_toml(text)


def open_regular(path: Path, *, root: Path | None = None) -> BinaryIO:
    """Open a regular file for reading; arguments and errors as for ``read_regular``."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a name with a null byte", str(path))
    # Without O_NONBLOCK, opening a FIFO waits for a writer, perhaps for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    if root is None:
        number = os.open(path, flags)
    else:
        with open_folder(root, path.parent) as folder:
            number = _open_below(folder, path, flags)
    if stat.S_ISREG(os.fstat(number).st_mode):
        return os.fdopen(number, "rb")
    os.close(number)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


@contextmanager
def open_folder(root: Path, folder: Path, *, make: bool = False) -> Iterator[int]:
    """Open a folder below another as a descriptor; no link on the way from the one to the other is followed.

    Raises:
        OSError: If it is missing, is a link or a file, or lies elsewhere; ``strerror`` says which.
    """
    if not folder.is_relative_to(root) or ".." in folder.relative_to(root).parts:
        raise OSError(errno.EINVAL, f"it is not below {root}", str(folder))
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    number = os.open(root, flags)
    try:
        # Folder by folder: O_NOFOLLOW looks at the last part of a path only.
        for part in folder.relative_to(root).parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=number)
            inner = _open_below(number, Path(part), flags)
            os.close(number)
            number = inner
        yield number
    finally:
        os.close(number)


def _open_below(folder: int, path: Path, flags: int) -> int:
    try:
        return os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OSError(error.errno, f"{path.name} is a link, and links are not followed here", str(path)) from None
        raise


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


def write_result(path: Path, content: bytes, what: str = "") -> None:
    """Write a file that a user named, atomically; ``what`` begins as in ``the report`` and goes into the message.

    Raises:
        NngenError: If it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise NngenError(f"cannot write {f'{what} ' if what else ''}{path}: {error.strerror}") from error


@contextmanager
def one_process(path: Path, waiting: str = "") -> Iterator[None]:
    """Let one process of this machine at a time run the block that belongs to a path.
    A process that waits logs ``waiting``, unless it is empty.

    Raises:
        OSError: If the folder of the path cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lock of the kernel, which ends with its holder, even with one that was killed.
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                _log.warning(waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks, where two processes do the same work
            pass
        yield


@contextmanager
def draft_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``folder`` when the block ends, and is removed if the block raises.

    Readers see the whole folder or none. If another process made ``folder`` meanwhile, that one stays; with ``replace``
    a folder that is there is removed first.

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
