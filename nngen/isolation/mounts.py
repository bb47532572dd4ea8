"""Files of the machine that a sandbox shows: Python, torch with what it requires, and the libraries of the system.

This is a list of what workers need, not of what must be hidden: whole prefixes would hold other packages (scikit-learn
with the labels of its data sets), a project around its virtual environment, and whatever else lies there. Inside,
everything has a place that says nothing of the machine.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import Distribution
from pathlib import Path

PYTHON = Path("/python/bin/python")
"""The interpreter by its name inside."""

_PACKAGES = Path("/packages")
_NNGEN = Path(__file__).parents[1]
_DISTRIBUTIONS = (
    "torch",
    "torchvision",
    "psutil",
    "platformdirs",
    "einops",
    "timm",
    "onnx",
    "onnxscript",
    "safetensors",
)
"""Distributions that workers and nets may import, if they are installed; with all that these require."""

_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib")
_LIBRARIES_BELOW = (sysconfig.get_config_var("MULTIARCH") or "-", "*blas*", "*lapack*", "nvidia*", "wsl")
"""Folders below those of the system that hold libraries too."""

_FEW = 64
"""Number of libraries of a folder up to which each is mounted by itself; a mount costs more the more there are."""

_FACTS = ("/etc/ld.so.cache", "/etc/alternatives", "/sys/devices/system", "/proc/cpuinfo", "/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounts:
    """What to mount, and where Python and the loader then find it; paths inside are those of the sandbox."""

    # path inside, and file or folder to mount there read-only, or None for an empty one, in their order
    folders: Sequence[tuple[Path, Path | None]]
    links: Mapping[Path, str]  # targets of symbolic links, by their paths inside
    search_path: Sequence[Path]  # folders inside where Python finds modules
    library_path: Sequence[Path]  # folders inside where the loader finds libraries, besides those of the system


def search_path() -> list[str]:
    """Return the folders where this process finds packages, without the folder it happens to run in."""
    home = str(_NNGEN.parent)
    # A folder that somebody else filled must not become code by being the current one, under whatever name.
    entries = [entry for entry in sys.path if Path(entry).is_absolute() and not _is_current(Path(entry))]
    return [*dict.fromkeys(entry for entry in entries if entry != home), home]


@functools.cache
def machine_mounts() -> Mounts:
    """Find what a sandbox shows of this machine; the search is made once for each process."""
    base, standard = Path(sys.base_prefix), Path(os.__file__).parent
    home = PYTHON.parents[1]
    within = home / (standard.relative_to(base) if standard.is_relative_to(base) else f"lib/{standard.name}")
    system = [Path(folder) for folder in _SYSTEM if Path(folder).is_dir()]
    # The libraries of Python itself, where they are not among the system's, and those of the user's own choice.
    chosen = [base / "lib", *map(Path, os.environ.get("LD_LIBRARY_PATH", "").split(":"))]
    chosen = [folder for folder in chosen if folder.is_absolute() and folder.is_dir() and folder not in system]
    libraries = {Path(f"/libraries/{number}"): folder for number, folder in enumerate(chosen)}
    folders: list[tuple[Path, Path | None]] = []
    for inside, folder in [*((folder, folder) for folder in system if not folder.is_symlink()), *libraries.items()]:
        folders += _libraries(inside, folder)
    folders += [(PYTHON, Path(getattr(sys, "_base_executable", sys.executable)).resolve()), (within, standard)]
    folders += [(within / name, None) for name in _subfolders(standard) if name.endswith("-packages")]
    folders += [(_PACKAGES / name, path) for name, path in _packages().items()]
    folders += [(_PACKAGES / _NNGEN.name, _NNGEN)]
    folders += [(Path(fact), Path(fact)) for fact in _FACTS if Path(fact).exists()]
    return Mounts(
        folders=folders,
        links={folder: str(folder.readlink()) for folder in system if folder.is_symlink()},
        search_path=(within, within / "lib-dynload", _PACKAGES),
        library_path=tuple(libraries),
    )


def _is_current(folder: Path) -> bool:
    try:
        return folder.samefile(Path.cwd())
    except OSError:
        return False


def _libraries(inside: Path, folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Mount the libraries of a folder without what lies below it, which may be another Python's packages."""
    libraries = [entry.name for entry in os.scandir(folder) if ".so" in entry.name and entry.is_file()]
    few = len(libraries) <= _FEW
    if few:
        yield from ((inside / name, folder / name) for name in libraries)
    else:
        yield inside, folder
    for name in _subfolders(folder):
        if any(fnmatch(name, pattern) for pattern in _LIBRARIES_BELOW):
            yield from _libraries(inside / name, folder / name)
        elif not few:
            yield inside / name, None


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))


def _packages() -> dict[str, Path]:
    """Find the files and folders of the distributions and of all that they require, by their names."""
    path, wanted = search_path(), list(_DISTRIBUTIONS)
    found: dict[str, Path] = {}
    for name in wanted:
        distribution = next(iter(Distribution.discover(name=name, path=path)), None)
        if distribution is None:
            continue
        # Debian's packages have no RECORD. Packages of one namespace share its folder.
        listed = distribution.read_text("RECORD") or distribution.read_text("top_level.txt") or name
        for top in {re.split("[/,]", line)[0] for line in listed.splitlines()} - {"..", "__pycache__", ""}:
            found.setdefault(top, Path(str(distribution.locate_file(top))))
        for requirement in distribution.requires or ():
            needed = re.split(r"[^\w.-]", requirement)[0]
            if "extra ==" not in requirement and needed not in wanted:
                # Read by this loop later on.
                wanted.append(needed)
    return {name: path for name, path in found.items() if path.exists()}
