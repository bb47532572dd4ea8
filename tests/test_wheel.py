"""The built wheel in an empty environment: from a first campaign to a model that works without nngen, at 80 columns."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent
WIDTH = 80
FAMILIES = "ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,DPN68"
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")
PHOTOS = {"train": range(30), "val": range(30, 42), "test": range(42, 50)}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def needed(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Return the installed distributions that requirements need, theirs included."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        one = waiting.pop()
        if one.name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            found[one.name] = distribution(one.name)
        except PackageNotFoundError:
            pytest.fail(f"{one} is required and not installed here")
        assert one.specifier.contains(found[one.name].version, prereleases=True), one
        waiting += [Requirement(text) for text in found[one.name].requires or ()]
    return found


def environment(place: Path, requirements: Iterable[str]) -> Path:
    """Make a virtual environment with nothing but what requirements need, as links; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    for one in needed(requirements).values():
        tops = {file.parts[0] for file in one.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(one.locate_file(top))).resolve())
    return place / "bin" / "python"


class Terminal:
    """Commands in a folder, run in a pseudo-terminal of 80 columns as a user does.

    Attributes:
        seen: What was printed, without colours.
    """

    def __init__(self, folder: Path, python: Path, cache: Path) -> None:
        self.folder, self.seen = folder, ""
        self.environment = {"PATH": f"{python.parent}:/usr/bin:/bin:/usr/sbin", "TERM": "xterm", "LANG": "C.UTF-8"}
        self.environment |= {"HOME": str(folder), "NNGEN_CACHE": str(cache), "OMP_NUM_THREADS": "1"}

    def run(self, command: str) -> str:
        """Run a command; return what it printed."""
        driver, screen = pty.openpty()
        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        process = subprocess.Popen(
            command, shell=True, cwd=self.folder, env=self.environment, stdin=screen, stdout=screen, stderr=screen,
            start_new_session=True,
        )  # fmt: skip
        os.close(screen)
        parts = []
        while True:
            try:
                parts.append(os.read(driver, 65536))
            except OSError:  # the last process closed it
                break
            if not parts[-1]:
                break
        os.close(driver)
        text = ESCAPES.sub("", b"".join(parts).decode()).replace("\r\n", "\n")
        assert process.wait() == 0, f"{command}\n{text[-3000:]}"
        # A live display returns to the start of its line: what stands there last counts.
        lines = [line.split("\r")[-1] for line in text.split("\n")]
        wide = [line for line in lines if len(line) > WIDTH and not line.startswith("next: ")]
        # A path or an id may be longer than a line; a terminal breaks what has spaces anywhere, within numbers too.
        assert not [line for line in wide if " " in line.strip()[:WIDTH]], (command, wide)
        self.seen = "\n".join(lines)
        return self.seen

    def json(self, command: str) -> object:
        """Run a command in a pipe; return what it prints as JSON."""
        done = subprocess.run(
            f"{command} --json", shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode in (0, 3), done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Terminal:
    """A user who installed the built wheel, and has LEMUR's wheel in the cache."""
    place = tmp_path_factory.mktemp("user")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", place, ROOT], check=True)
    (built,) = place.glob("*.whl")
    with zipfile.ZipFile(built) as packed:
        (name,) = [name for name in packed.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = packed.read(name).decode()
    requirements = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    python = environment(place / "venv", requirements)
    install = ["install", "--no-deps", "--no-index", built]
    subprocess.run([*pip, "--python", python, *install], check=True)
    cache = place / "cache"
    (cache / "lemur").mkdir(parents=True)
    shutil.copy(wheel, cache / "lemur")
    return Terminal(place, python, cache)


def photos(folder: Path) -> list[tuple[Path, str]]:
    """Write images of three classes as people have them, 24 px in colour; return those of validation with theirs."""
    digits, validation = load_digits(), []
    for label in range(3):
        places = np.flatnonzero(digits.target == label)
        for split, numbers in PHOTOS.items():
            inside = folder / split / f"number {label}"
            inside.mkdir(parents=True)
            for number in numbers:
                image = Image.fromarray((digits.images[places[number]] * 15).astype(np.uint8))
                file = inside / f"{number:02}.jpg"
                image.resize((24, 24)).convert("RGB").save(file, quality=95)
                validation += [(file, f"number {label}")] if split == "val" else []
    return validation


def shown(rows: list[dict[str, object]], name: str, text: str) -> bool:
    """Whether a column of some rows is in a text, each number whole."""
    return all(re.search(rf"(?<![\d.]){row[name]:.4f}(?!\d)", text) for row in rows)


def test_a_new_user_goes_from_the_wheel_to_a_model_that_others_load(terminal: Terminal, tmp_path: Path) -> None:
    run, validation = terminal.run, photos(terminal.folder / "photos")
    assert "nngen" in run("nngen --version") or terminal.seen.strip()
    run("nngen lemur fetch")
    small = f"--families {FAMILIES} --lr 0.003 --threads 1"
    run(f"nngen campaign run demo --size 2 --dataset digits --batch 64 --epochs 1 {small}")
    rows = terminal.json("nngen leaderboard demo")
    assert isinstance(rows, list) and len(rows) == 2
    assert shown(rows, "validation_accuracy", run("nngen leaderboard demo"))
    run("nngen report demo --out report.html")
    assert (terminal.folder / "report.html").stat().st_size > 10_000

    own = run(f"nngen campaign run mine --size 2 --dataset folder:photos --shape 3x24x24 --batch 8 --epochs 3 {small}")
    assert "number 0" in own and "next: nngen report mine" in own
    rows = terminal.json("nngen leaderboard mine")
    assert isinstance(rows, list)
    assert shown(rows, "validation_accuracy", run("nngen leaderboard mine"))
    run(f"nngen show {rows[0]['id'][:13]}")
    assert f"{validation[0][0].name}" in run("nngen predict mine photos/val")
    predicted = terminal.json("nngen predict mine photos/val")
    assert isinstance(predicted, list)
    answers = [row["classes"][0]["class"] for row in predicted]
    right = np.mean([answer == wanted for answer, (_, wanted) in zip(answers, validation, strict=True)])
    assert right == pytest.approx(max(row["validation_accuracy"] for row in rows))

    assert "without nngen" in run("nngen export mine --format hf --out best")
    others = environment(tmp_path / "others", (terminal.folder / "best" / "requirements.txt").read_text().split())
    best = Path(shutil.copytree(terminal.folder / "best", tmp_path / "best"))
    (snippet,) = re.findall(r"```python\n(.*?)```", (best / "README.md").read_text(), re.DOTALL)
    files = [str(file) for file, _ in validation]
    code = snippet.replace('["photo.jpg"]', repr(files))
    assert code != snippet
    done = subprocess.run([others, "-c", code], cwd=best, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stdout) == (0, f"{answers}\n"), done.stderr
    blank = subprocess.run([others, "-c", "import nngen"], capture_output=True, text=True, cwd=tmp_path, env={})
    assert "No module named 'nngen'" in blank.stderr
