"""Brings LEMUR's wheel into the user's cache, once, and knows whether it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nngen.errors import LemurError
from nngen.files import cache_dir, write_atomically

__all__ = ["REQUIREMENT", "SHA256", "SIZE", "SOURCE_NOTE", "WHEEL", "adopt", "cached_wheel", "fetch", "lemur_dir"]

REQUIREMENT = "nn-dataset==2.1.2"
WHEEL = "nn_dataset-2.1.2-py3-none-any.whl"
SHA256 = "1f0b66a4f4de80a27b44a502112d4436eac1f97361ea3aae3266a550f01b07de"
SIZE = 102_904_100
"""Bytes of the wheel as PyPI serves it."""

Progress = Callable[[int, int], None]

SOURCE_NOTE = "source.json"
"""Remembers the checkout or the database given with ``--from``."""

_WAY_OUT = "get the wheel elsewhere and run: nngen lemur fetch --from PATH"
_PREFIX = "fetch-"
_POLL_S = 0.2


def lemur_dir() -> Path:
    """The folder of the cache that holds the wheel and what is remembered about it."""
    return cache_dir() / "lemur"


def fetch(progress: Progress | None = None) -> Path:
    """Bring the wheel of nn-dataset 2.1.2 into the cache, through pip; do nothing if it is there and whole.

    A broken or half file found in its place is replaced. The file appears under its name only
    when its SHA-256 is the pinned one, so an interrupted download leaves nothing that looks whole.

    Args:
        progress: Called with (bytes here, bytes in all) while the download grows.

    Raises:
        LemurError: If pip cannot bring it, or brings another file; the message names the way out.
    """
    try:
        return cached_wheel()
    except LemurError:
        with _workshop() as workshop:
            _download(workshop, progress)
            return _place(workshop / WHEEL)


def adopt(path: Path) -> Path:
    """Copy a wheel that the user has into the cache.

    Raises:
        LemurError: If it is not the pinned wheel, byte for byte.
    """
    found = _sha256(path)
    if found != SHA256:
        size = path.stat().st_size
        state = f"only {size:,} of {SIZE:,} bytes, truncated" if size < SIZE else f"its SHA-256 is {found[:12]}..."
        raise LemurError(f"{path} is not {WHEEL} as PyPI serves it ({state}): get it again")
    with _workshop() as workshop:
        shutil.copyfile(path, workshop / WHEEL)
        return _place(workshop / WHEEL)


def cached_wheel() -> Path:
    """Return the wheel in the cache.

    The size is looked at each time; the hash is computed once and then remembered, beside the
    wheel, for as long as its size and time of change stay the same.

    Raises:
        LemurError: If the wheel is missing, truncated or altered.
    """
    wheel = lemur_dir() / WHEEL
    try:
        stat = wheel.stat()
    except OSError:
        raise LemurError("LEMUR is not here yet: run nngen lemur fetch") from None
    if stat.st_size != SIZE:
        raise LemurError(f"{wheel} is truncated ({stat.st_size:,} of {SIZE:,} bytes): run nngen lemur fetch")
    if not _remembered(wheel, stat):
        if _sha256(wheel) != SHA256:
            raise LemurError(f"{wheel} is broken (its SHA-256 is not the pinned one): run nngen lemur fetch")
        _remember(wheel)
    return wheel


def _sidecar(wheel: Path) -> Path:
    return wheel.with_name(wheel.name + ".verified.json")


def _remembered(wheel: Path, stat: os.stat_result) -> bool:
    try:
        note = json.loads(_sidecar(wheel).read_text())
    except (OSError, ValueError):
        return False
    return bool(note == {"sha256": SHA256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns})


def _remember(wheel: Path) -> None:
    stat = wheel.stat()
    note = {"sha256": SHA256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    write_atomically(_sidecar(wheel), json.dumps(note).encode())


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LemurError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _workshop() -> Iterator[Path]:
    """A folder inside the cache, so that the last step is a rename; swept of what killed runs left."""
    home = lemur_dir()
    try:
        home.mkdir(parents=True, exist_ok=True)
        _sweep(home)
        with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=home) as folder:
            yield Path(folder)
    except OSError as error:
        raise LemurError(f"{home} cannot be written ({error.strerror}): set NNGEN_CACHE to another folder") from error


def _sweep(home: Path) -> None:
    import psutil

    for left in home.glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _place(wheel: Path) -> Path:
    target = lemur_dir() / WHEEL
    wheel.replace(target)
    for stale in target.parent.glob("*.json"):
        if stale.name != SOURCE_NOTE:  # what was derived from another file: it is made again
            stale.unlink(missing_ok=True)
    _remember(target)
    return target


def _download(workshop: Path, progress: Progress | None) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(workshop), REQUIREMENT]
    # pip gathers a download in the temporary folder first: there its growth can be watched.
    scratch = workshop / "pip"
    scratch.mkdir()
    with (workshop / "pip.log").open("w+") as log:
        pip = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(scratch)}
        )
        try:
            _watch(pip, workshop, progress)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
        log.seek(0)
        said = log.read()
    if pip.returncode != 0:
        raise LemurError(f"pip could not bring {REQUIREMENT} ({_last_error(said)}): {_WAY_OUT}")
    wheel = workshop / WHEEL
    if not wheel.exists() or _sha256(wheel) != SHA256:
        raise LemurError(f"the index served another {WHEEL} than the pinned one: {_WAY_OUT}")


def _watch(pip: subprocess.Popen[bytes], workshop: Path, progress: Progress | None) -> None:
    while pip.poll() is None:
        if progress is not None:
            progress(min(_largest(workshop), SIZE), SIZE)
        time.sleep(_POLL_S)
    if progress is not None and pip.returncode == 0:
        progress(SIZE, SIZE)


def _largest(folder: Path) -> int:
    sizes = [0]
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(root) / name).stat().st_size)
            except OSError:  # pip moved it between the listing and the look
                continue
    return max(sizes)


def _last_error(said: str) -> str:
    if "No module named pip" in said:
        return "this Python has no pip: python -m ensurepip"
    lines = [line.removeprefix("ERROR: ").strip() for line in said.splitlines() if line.startswith("ERROR: ")]
    return lines[-1][:200] if lines else "no reason given"
