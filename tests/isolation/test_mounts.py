"""Mounts of a sandbox on a small machine that the test makes: all of them, in their order."""

import os
import sys
import sysconfig
from pathlib import Path

import pytest

import nngen
from nngen.isolation import mounts
from nngen.isolation.mounts import Mounts, machine_mounts, search_path

NNGEN = Path(nngen.__file__).parent


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def distribution(folder, name, requires=(), **files):
    """Write what pip leaves of a distribution; ``files`` are those that list its parts."""
    info = folder / f"{name}-1.0.dist-info"
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}\n")
    for file, content in files.items():
        write(info / file.replace("_txt", ".txt"), content)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with two folders of system libraries, a Python of its own, and one package."""
    machine_mounts.cache_clear()
    write(tmp_path / "lib64" / "libc.so.6")
    write(tmp_path / "lib64" / "notes.txt")
    (tmp_path / "lib").symlink_to("lib64")
    write(tmp_path / "python" / "lib" / "libpython.so")
    write(tmp_path / "python" / "bin" / "python3.11")
    (tmp_path / "link").symlink_to(tmp_path / "python" / "bin" / "python3.11")
    standard = tmp_path / "python" / "lib" / "python3"
    for name in ("site-packages", "encodings", "dist-packages"):
        write(standard / name / "file")
    write(tmp_path / "chosen" / "libcuda.so")
    write(tmp_path / "site" / "alpha" / "__init__.py")
    distribution(tmp_path / "site", "alpha", RECORD="alpha/__init__.py,,\n")
    write(tmp_path / "cpuinfo")
    chosen = ["relative", tmp_path / "lib64", tmp_path / "chosen", tmp_path / "missing", tmp_path / "cpuinfo", ""]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mounts, "_SYSTEM", [str(tmp_path / name) for name in ("lib", "lib64", "lib32")])
    monkeypatch.setattr(mounts, "_FACTS", [str(tmp_path / name) for name in ("cpuinfo", "meminfo")])
    monkeypatch.setattr(mounts, "_DISTRIBUTIONS", ["alpha"])
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "python"))
    monkeypatch.setattr(sys, "_base_executable", str(tmp_path / "link"))
    monkeypatch.setattr(os, "__file__", str(standard / "os.py"))
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(map(str, chosen)))
    yield tmp_path
    machine_mounts.cache_clear()


def expected(machine, within):
    """Return the mounts of the machine whose Python is ``within`` a folder inside."""
    return Mounts(
        folders=[
            (machine / "lib64" / "libc.so.6", machine / "lib64" / "libc.so.6"),
            (Path("/libraries/0/libpython.so"), machine / "python" / "lib" / "libpython.so"),
            (Path("/libraries/1/libcuda.so"), machine / "chosen" / "libcuda.so"),
            (Path("/python/bin/python"), machine / "python" / "bin" / "python3.11"),
            (within, Path(os.__file__).parent),
            (within / "dist-packages", None),
            (within / "site-packages", None),
            (Path("/packages/alpha"), machine / "site" / "alpha"),
            (Path("/packages/nngen"), NNGEN),
            (machine / "cpuinfo", machine / "cpuinfo"),
        ],
        links={machine / "lib": "lib64"},
        search_path=(within, within / "lib-dynload", Path("/packages")),
        library_path=(Path("/libraries/0"), Path("/libraries/1")),
    )


def test_a_sandbox_has_libraries_python_packages_and_facts(machine):
    assert machine_mounts() == expected(machine, Path("/python/lib/python3"))


def test_a_standard_library_outside_its_prefix_is_shown_inside_it(machine, monkeypatch):
    for name in ("site-packages", "dist-packages"):
        write(machine / "elsewhere" / "python4" / name / "file")
    monkeypatch.setattr(os, "__file__", str(machine / "elsewhere" / "python4" / "os.py"))
    assert machine_mounts() == expected(machine, Path("/python/lib/python4"))


def test_without_a_choice_of_libraries_there_are_those_of_python(machine, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert machine_mounts().library_path == (Path("/libraries/0"),)


@pytest.mark.parametrize("count", [64, 65])
def test_few_libraries_are_mounted_one_by_one_and_many_as_their_folder(count, tmp_path):
    names = [f"lib{number}.so" for number in range(count)]
    below = ["libblas3", "nvidia-535", "wsl", "liblapack", "other"]
    if multiarch := sysconfig.get_config_var("MULTIARCH"):
        below.append(multiarch)
    for name in [*names, *(f"{folder}/libx.so.1" for folder in below), "folder.so/file", "README"]:
        write(tmp_path / name)
    (tmp_path / "wsl-link").symlink_to(tmp_path / "wsl")
    found = list(mounts._libraries(Path("/in"), tmp_path))
    shown = [(Path("/in") / folder / "libx.so.1", tmp_path / folder / "libx.so.1") for folder in below[:4] + below[5:]]
    if count == 64:
        alone = [(Path("/in") / name, tmp_path / name) for name in names]
        assert sorted(found[:64]) == sorted(alone)
        assert found[64:] == sorted(shown)
    else:
        empty = [(Path("/in/folder.so"), None), (Path("/in/other"), None)]
        assert found[0] == (Path("/in"), tmp_path)
        assert found[1:] == sorted(shown + empty)


def test_packages_are_those_of_the_distributions_and_of_what_they_require(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    needs = ["beta>=1; python_version > '3'", "gamma", "delta (==1.0)", "extra-one; extra == 'all'", "absent"]
    distribution(first, "alpha", needs, RECORD="alpha/__init__.py,,\nalpha.py,sha,1\nspace/a.py,,\n../../bin/a,,\n")
    distribution(first, "beta", ["alpha", "beta"], RECORD="space/b.py,,\n__pycache__/x.pyc,,\ngone/x.py,,\n")
    distribution(second, "gamma", top_level_txt="gamma_one\ngamma_two\n")
    distribution(second, "delta")
    distribution(second, "extra-one", top_level_txt="extra_one\n")
    distribution(second, "unasked", top_level_txt="unasked\n")
    for folder, names in {
        first: ("alpha/__init__.py", "alpha.py", "space/a.py", "space/b.py", "__pycache__/x.pyc"),
        second: ("gamma_one/x", "gamma_two/x", "delta/x", "extra_one/x", "unasked/x", "space/x"),
    }.items():
        for name in names:
            write(folder / name)
    monkeypatch.setattr(sys, "path", [str(first), str(second)])
    monkeypatch.setattr(mounts, "_DISTRIBUTIONS", ("not-installed", "alpha"))
    assert mounts._packages() == {
        **{name: first / name for name in ("alpha", "alpha.py", "space")},
        **{name: second / name for name in ("gamma_one", "gamma_two", "delta")},
    }


def test_the_search_path_has_each_folder_once_and_that_of_nngen_last(tmp_path, monkeypatch):
    home = str(NNGEN.parent)
    for name in ("one", "two", "here"):
        (tmp_path / name).mkdir()
    one, two, missing = (str(tmp_path / name) for name in ("one", "two", "missing.zip"))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", ["", two, home, str(tmp_path / "here"), one, missing, two, "relative"])
    assert search_path() == [two, one, missing, home]
