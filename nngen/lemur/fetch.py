"""The pinned wheel of LEMUR in the user's cache: downloaded through pip and verified by its SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from nngen.errors import LemurError
from nngen.files import cache_dir, write_atomically

REQUIREMENT = "nn-dataset==2.1.2"
WHEEL = "nn_dataset-2.1.2-py3-none-any.whl"
SHA256 = "1f0b66a4f4de80a27b44a502112d4436eac1f97361ea3aae3266a550f01b07de"
SIZE = 102_904_100
"""Bytes of the wheel as PyPI serves it."""

SOURCE_NOTE = "source.json"
"""File of the cache that remembers the checkout or the database given with ``--from``."""

_WAY_OUT = "get the wheel elsewhere and run: nngen lemur fetch --from PATH"
_PREFIX = "fetch-"


def lemur_dir() -> Path:
    """Return the folder of the cache with the wheel and what is derived from it."""
    return cache_dir() / "lemur"


def fetch(*, show_progress: bool = False) -> Path:
    """Download the wheel of nn-dataset 2.1.2 into the cache, unless it is there and whole.

    pip downloads it, so pip's settings (mirrors, proxies, its cache) hold. A broken or half file found in its place is
    replaced. The file appears under its name only when its SHA-256 is the pinned one.

    Raises:
        LemurError: If pip cannot download it, or serves another file; the message names the way out.
    """
    try:
        return cached_wheel()
    except LemurError:
        with _draft_folder() as draft:
            _download(draft, show_progress=show_progress)
            return _place(draft / WHEEL)


def install_wheel(path: Path) -> Path:
    """Copy a wheel that the user has into the cache.

    Raises:
        LemurError: If it is not the pinned wheel, byte for byte.
    """
    found = _sha256(path)
    if found != SHA256:
        size = path.stat().st_size
        state = f"only {size:,} of {SIZE:,} bytes, truncated" if size < SIZE else f"its SHA-256 is {found[:12]}..."
        raise LemurError(f"{path} is not {WHEEL} as PyPI serves it ({state}): get it again")
    with _draft_folder() as draft:
        shutil.copyfile(path, draft / WHEEL)
        return _place(draft / WHEEL)


def cached_wheel() -> Path:
    """Return the wheel in the cache.

    The size is compared at each call; the hash is computed once and remembered beside the wheel, for as long as size
    and time of change stay the same.

    Raises:
        LemurError: If the wheel is missing, truncated or altered.
    """
    wheel = lemur_dir() / WHEEL
    try:
        size = wheel.stat().st_size
    except OSError:
        raise LemurError("LEMUR is not here yet: run nngen lemur fetch") from None
    if size != SIZE:
        raise LemurError(f"{wheel} is truncated ({size:,} of {SIZE:,} bytes): run nngen lemur fetch")
    try:
        verified = _verified_file(wheel).read_bytes() == _verified_note(wheel)
    except OSError:
        verified = False
    if not verified:
        if _sha256(wheel) != SHA256:
            raise LemurError(f"{wheel} is broken (its SHA-256 is not the pinned one): run nngen lemur fetch")
        write_atomically(_verified_file(wheel), _verified_note(wheel))
    return wheel


def _verified_file(wheel: Path) -> Path:
    return wheel.with_name(f"{wheel.name}.verified.json")


def _verified_note(wheel: Path) -> bytes:
    stat = wheel.stat()
    return json.dumps({"sha256": SHA256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}).encode()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LemurError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _draft_folder() -> Iterator[Path]:
    """Make a folder inside the cache, so that the last step is a rename; remove those that killed runs left."""
    home = lemur_dir()
    try:
        home.mkdir(parents=True, exist_ok=True)
        for left in home.glob(f"{_PREFIX}*"):
            pid = left.name.removeprefix(_PREFIX).split("-")[0]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=home) as folder:
            yield Path(folder)
    except OSError as error:
        raise LemurError(f"{home} cannot be written ({error.strerror}): set NNGEN_CACHE to another folder") from error


def _place(draft: Path) -> Path:
    wheel = lemur_dir() / WHEEL
    draft.replace(wheel)
    for stale in wheel.parent.glob("*.json"):
        if stale.name != SOURCE_NOTE:  # derived from another file
            stale.unlink(missing_ok=True)
    write_atomically(_verified_file(wheel), _verified_note(wheel))
    return wheel


def _download(folder: Path, *, show_progress: bool) -> None:
    # -P: no module of the current folder is imported in pip's place.
    command = [sys.executable, "-P", "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), REQUIREMENT]
    pip = subprocess.run(
        command if show_progress else [*command, "--quiet"],
        stdin=subprocess.DEVNULL,
        # pip's bar goes to its stdout, its errors to its stderr.
        stdout=2 if show_progress else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        # A killed pip leaves its half download in our folder, which the next run removes.
        env={**os.environ, "TMPDIR": str(folder), "PYTHONSAFEPATH": "1", "PYTHONPATH": _packages_path()},
        check=False,
    )
    if pip.returncode != 0:
        raise LemurError(f"pip could not download {REQUIREMENT} ({_last_error(pip.stderr)}): {_WAY_OUT}")
    wheel = folder / WHEEL
    if not wheel.exists() or _sha256(wheel) != SHA256:
        raise LemurError(f"the index served another {WHEEL} than the pinned one: {_WAY_OUT}")


def _packages_path() -> str:
    """Return ``PYTHONPATH`` without the entries that stand for the current folder."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if entry not in ("", "."))


def _last_error(output: str) -> str:
    if "No module named pip" in output:
        return "this Python has no pip: python -m ensurepip"
    lines = [line.removeprefix("ERROR: ").strip() for line in output.splitlines() if line.startswith("ERROR: ")]
    return lines[-1][:200] if lines else "no reason given"
