"""Download of the wheel: complete or refused. The real pip runs, with a folder as its index."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nngen.errors import LemurError
from nngen.families.catalogue import load_families
from nngen.lemur import fetch as module
from nngen.lemur.fetch import SHA256, SIZE, WHEEL, cached_wheel, fetch, install_wheel
from nngen.lemur.source import install, open_lemur

KEPT = {WHEEL, f"{WHEEL}.verified.json"}


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pip find the wheel in a folder only."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_fetch_leaves_the_wheel_and_nothing_else(cache: Path, index: None) -> None:
    path = fetch()
    assert path == cache / "lemur" / WHEEL == cached_wheel()
    assert names(cache / "lemur") == KEPT


def test_pip_shows_its_progress_on_stderr(cache: Path, index: None, capfd: pytest.CaptureFixture[str]) -> None:
    fetch(show_progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "nn_dataset-2.1.2" in err


@pytest.mark.parametrize("path", [None, "", os.pathsep + "/nowhere", "."])
def test_modules_of_the_current_folder_are_not_run(
    cache: Path, index: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/__init__.py").touch()
    for file in ("pip/__main__.py", "json.py"):
        (tmp_path / file).write_text("open('TAKEN', 'w'); raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path)
    fetch()
    assert not (tmp_path / "TAKEN").exists()


def test_fetch_replaces_a_half_wheel(cache: Path, index: None, wheel: Path) -> None:
    half = cache / "lemur" / WHEEL
    half.parent.mkdir(parents=True)
    with wheel.open("rb") as whole:
        half.write_bytes(whole.read(SIZE // 2))
    with pytest.raises(LemurError, match=r"truncated \(51,452,050 of 102,904,100 bytes\): run nngen lemur fetch"):
        cached_wheel()
    assert fetch() == half
    assert half.stat().st_size == SIZE


def test_an_altered_wheel_is_found_out_though_its_size_is_right(cache: Path, wheel: Path) -> None:
    altered = cache / "lemur" / WHEEL
    altered.parent.mkdir(parents=True)
    shutil.copyfile(wheel, altered)
    assert cached_wheel() == altered
    with altered.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"nngen was here")
    with pytest.raises(LemurError, match="broken"):
        cached_wheel()


def test_a_hash_is_computed_once(cache: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "lemur").mkdir(parents=True)
    shutil.copyfile(wheel, cache / "lemur" / WHEEL)
    seen: list[Path] = []

    def counted(path: Path) -> str:
        seen.append(path)
        return SHA256

    monkeypatch.setattr(module, "_sha256", counted)
    assert cached_wheel() == cached_wheel()
    assert len(seen) == 1


@pytest.mark.long
def test_without_a_network_the_message_names_the_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(LemurError, match="nngen lemur fetch --from PATH"):
        fetch()
    assert names(cache / "lemur") == set()


def test_another_file_under_the_same_name_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    served = tmp_path / "index"
    shutil.make_archive(str(served / "wheel"), "zip", checkout)
    (served / "wheel.zip").rename(served / WHEEL)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(served))
    with pytest.raises(LemurError):
        fetch()
    assert names(cache / "lemur") == set()
    with pytest.raises(LemurError, match="truncated"):
        install_wheel(served / WHEEL)


def test_remains_of_a_killed_run_are_removed(cache: Path, wheel: Path) -> None:
    home = cache / "lemur"
    dead, alive = home / "fetch-99999999-abc", home / f"fetch-{os.getpid()}-abc"
    dead.mkdir(parents=True)
    alive.mkdir()
    install(wheel)
    assert names(home) == KEPT | {alive.name}


def test_a_new_wheel_drops_what_was_derived_from_the_old(cache: Path, wheel: Path) -> None:
    load_families(open_lemur(install(wheel)))
    assert len(names(cache / "lemur")) == len(KEPT) + 1
    install(wheel)
    assert names(cache / "lemur") == KEPT


def test_nothing_fetched_says_what_to_run(cache: Path) -> None:
    with pytest.raises(LemurError, match="run nngen lemur fetch"):
        cached_wheel()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.write_text("a file where the folder should be")
    monkeypatch.setenv("NNGEN_CACHE", str(occupied))
    with pytest.raises(LemurError, match="set NNGEN_CACHE"):
        install_wheel(wheel)
