"""Sandbox: the files of the machine that it shows, and helper processes that import nothing of the current folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nngen.isolation.mounts import PYTHON, Mounts, machine_mounts, search_path


@pytest.fixture
def mounts():
    """Find the mounts anew, and forget them afterwards."""
    machine_mounts.cache_clear()
    yield machine_mounts
    machine_mounts.cache_clear()


def places(mounts: Mounts, path: Path) -> list[Path]:
    """Return where a sandbox shows a file of the machine."""
    found = []
    for number, (inside, outside) in enumerate(mounts.folders):
        if outside is not None and path.resolve().is_relative_to(outside.resolve()):
            place = inside / path.resolve().relative_to(outside.resolve())
            later = [name for name, _ in mounts.folders[number + 1 :]]
            if not any(place.is_relative_to(name) for name in later):
                found.append(place)
    return found


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("content")
    return path


@pytest.mark.long
@pytest.mark.parametrize("libraries", [2, 100])
def test_a_sandbox_shows_python_and_torch_and_nothing_beside_them(libraries, mounts, tmp_path, monkeypatch):
    project = tmp_path / "project"
    python, chosen, packages = project / "python", project / "chosen", project / ".venv" / "lib" / "site-packages"
    standard = python / "lib" / "python3"
    hidden = [
        write(project / ".env"),
        write(project / "nngen.db"),
        write(packages / "sklearn" / "datasets" / "data" / "digits.csv.gz"),
        write(standard / "site-packages" / "sklearn" / "datasets" / "data" / "digits.csv.gz"),
        write(standard / "dist-packages" / "digits.csv.gz"),
        write(python / "pkgs" / "scikit-learn" / "digits.csv.gz"),
        write(python / "lib" / "R" / "labels"),
        write(chosen / "below" / "labels"),
    ]
    if libraries == 2:
        # One of many libraries lies in a folder of libraries alone.
        hidden += [write(chosen / ".env"), write(chosen / "digits.csv.gz")]
    needed = [
        write(standard / "os.py"),
        *(write(folder / f"lib{n}.so.{n}") for n in range(libraries) for folder in (python / "lib", chosen)),
        write(packages / "torch" / "__init__.py"),
        write(packages / "einops" / "__init__.py"),
    ]
    for name in ("torch", "einops"):
        write(packages / f"{name}-1.0.dist-info" / "RECORD").write_text(f"{name}/__init__.py,,\n../../bin/{name},,\n")
        write(packages / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [str(standard), str(packages), str(project)])
    monkeypatch.setattr(sys, "base_prefix", str(python))
    monkeypatch.setattr(os, "__file__", str(standard / "os.py"))
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{chosen}:lib")
    found = mounts()
    assert {path: places(found, path) for path in hidden} == {path: [] for path in hidden}
    assert all(places(found, path) for path in needed)
    assert not any(str(project) in str(inside) for inside, _ in found.folders)


def test_the_interpreter_is_shown_with_its_own_libraries(mounts):
    found = mounts()
    assert (PYTHON, Path(os.path.realpath(sys._base_executable))) in found.folders
    assert [path for path in found.search_path if path.name == "lib-dynload"]
    assert not [inside for inside, _ in found.folders if inside.name in ("sklearn", "scipy", "pandas", "transformers")]


@pytest.mark.long
def test_the_shown_packages_suffice_for_the_workers(tmp_path):
    for inside, outside in machine_mounts().folders:
        if outside is not None and inside.parent == Path("/packages"):
            (tmp_path / inside.name).symlink_to(outside)
    modules = "torchvision, nngen.training.worker, nngen.families.measure, nngen.isolation.fork_server"
    # -I and -S: nothing but the standard library, and what is shown.
    start = f"import sys; sys.path.append({str(tmp_path)!r}); import {modules}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_modules_of_the_current_folder_are_not_found(tmp_path, monkeypatch):
    here, link = tmp_path / "here", tmp_path / "link"
    here.mkdir()
    link.symlink_to(here)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", ["", ".", "lib", str(here), str(link), *sys.path])
    assert not {"", ".", "lib", str(here), str(link)} & set(search_path())
