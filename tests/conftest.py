"""Fixtures for all tests: LEMUR's families, an engine, the command line; marks and groups that follow from them."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import json_contract
import psutil
import pytest
import torch

from nngen.cli import run
from nngen.datasets import Dataset, load_dataset
from nngen.families import shipped
from nngen.families.catalogue import load_families
from nngen.isolation import Isolation
from nngen.lemur.fetch import fetch
from nngen.lemur.reader import Lemur
from nngen.lemur.source import open_lemur
from nngen.training import LocalEngine, TrainJob
from nngen.types import Candidate, Family, Shape, TrialSpec

TESTS = Path(__file__).parent
MARK = f"/nngen-test-{os.getpid()}"
"""Part of PATH by which the processes of the tests' engine are told from the rest of the machine."""


MARKS_BY_FIXTURE = {"wheel": "network", "smollm": "network", "engine": "engine"}
MARKS_BY_FILE = {
    "cli/test_check.py": "engine",
    "cli/test_train.py": "engine",
    "families/test_hostile_families.py": "engine",
    "families/test_probe.py": "engine",
    "lemur/test_source.py": "network",
}
"""Files whose tests start workers or read LEMUR by a command, a probe or a fixture by name."""

SPREAD = ("test_hostile.py", "test_rehearsal.py")
"""Files whose tests may run in several processes at once."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use, and keep those of one file in one process."""
    for item in items:
        for fixture, mark in MARKS_BY_FIXTURE.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)
        file = item.path.relative_to(TESTS).as_posix()
        if file in MARKS_BY_FILE:
            item.add_marker(MARKS_BY_FILE[file])
        if item.path.name not in SPREAD and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(file))


def pytest_configure() -> None:
    """Limit each test process to one thread, because they share the cores, and let tables be as wide as in a pipe."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("COLUMNS", None)  # set in the processes that run tests side by side
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Result:
    """Exit code, stdout and stderr of a command, and the command that its last line suggests, if any."""

    code: int
    out: str
    err: str
    next: str


@pytest.fixture(scope="session")
def wheel() -> Path:
    """LEMUR's real wheel, downloaded once into the user's cache by nngen."""
    # Concurrent test processes wait for the one that downloads.
    with (Path(tempfile.gettempdir()) / f"nngen-test-wheel-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return fetch()


@pytest.fixture(scope="session")
def lemur(wheel: Path) -> Lemur:
    return open_lemur(wheel)


@pytest.fixture(scope="session")
def families(lemur: Lemur) -> dict[str, Family]:
    """LEMUR's 34 base families by name."""
    return load_families(lemur)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty cache folder of this test."""
    folder = tmp_path / "cache"
    # What ships with the package would stand in for the measurements that tests ask for.
    for name in ("profile", "same_channels"):
        monkeypatch.setattr(shipped, name, lambda *_: None)
    monkeypatch.setenv("NNGEN_CACHE", str(folder))
    monkeypatch.delenv("NNGEN_LEMUR", raising=False)
    return folder


@pytest.fixture
def nngen(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run one command in this process: ``nngen("families", "--json")``."""

    def call(*tokens: str | Path) -> Result:
        capfd.readouterr()
        code = run([str(token) for token in tokens])
        out, err = capfd.readouterr()
        lines, following = err.splitlines(keepends=True), ""
        if lines and lines[-1].startswith("next: "):
            following = lines.pop().removeprefix("next: ").strip()
        if "--json" in tokens and "--help" not in tokens and code in (0, 3):
            json_contract.check(json_contract.name_of([str(token) for token in tokens]), out)
        return Result(code=code, out=out, err="".join(lines), next=following)

    return call


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    """Local engine with ``MARK`` in the environment of its processes and with separate scratch folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{os.environ['PATH']}:{MARK}")
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("scratch")))
        with LocalEngine() as engine:
            engine.warm_up()
            yield engine


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def candidate() -> Callable[[str], Candidate]:
    return lambda source: Candidate(id="0" * 32, source=source, canonical="")


@pytest.fixture(scope="session")
def spec() -> Callable[..., TrialSpec]:
    """Return settings of a one-second trial on digits at 8x8, with the given changes."""
    base: dict[str, object] = {"dataset": "digits", "shape": Shape(1, 8, 8), "lr": 0.05, "time_limit_s": 60.0}
    return lambda **changes: TrialSpec(**{**base, **changes})


@pytest.fixture(scope="session")
def job(
    candidate: Callable[[str], Candidate], spec: Callable[..., TrialSpec], digits: Dataset
) -> Callable[..., TrainJob]:
    """Return a one-second training on digits; further arguments are fields of ``TrialSpec``."""

    make_spec = spec

    def make(
        source: str | Candidate,
        *,
        spec: TrialSpec | None = None,
        dataset: Dataset = digits,
        isolation: Isolation = Isolation.PROCESS,
        **changes: Any,
    ) -> TrainJob:
        return TrainJob(
            candidate=candidate(source) if isinstance(source, str) else source,
            spec=spec or make_spec(**changes),
            dataset=dataset,
            isolation=isolation,
        )

    return make


@pytest.fixture(scope="session")
def mark() -> str:
    """Entry of PATH by which ``marked`` recognizes a process."""
    return MARK


@pytest.fixture(scope="session")
def marked() -> Callable[[], list[psutil.Process]]:
    """Return the living processes that have the mark."""
    return lambda: [process for process in psutil.process_iter() if _marked(process)]


@pytest.fixture(scope="session")
def left_over(marked: Callable[[], list[psutil.Process]]) -> Callable[[], tuple[list[str], list[Path]]]:
    """Return processes other than the server, and scratch folders, that the engine's jobs left."""

    def look() -> tuple[list[str], list[Path]]:
        others = [str(process) for process in marked() if process.ppid() != os.getpid()]
        return others, [*Path(tempfile.gettempdir()).glob("nngen-scratch-*/*")]

    return look


def _marked(process: psutil.Process) -> bool:
    try:
        return MARK in process.environ().get("PATH", "") and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
