"""Fixtures of command tests: an archive of trained files with their weights, and the images that they learned from."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from nngen.archive import Archive
from nngen.checks.rules.sample_nets import net_source
from nngen.cli import run

GOLDEN = Path(__file__).parents[1] / "golden" / "homogeneous.py"
SPLITS = {"train": range(12), "val": range(12, 17), "test": range(17, 20)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with an archive of two trained files, the second one not of nngen, and the images of digits."""
    folder = tmp_path_factory.mktemp("predict")
    digits = load_digits()
    for label in range(10):
        places = np.flatnonzero(digits.target == label)
        for split, numbers in SPLITS.items():
            inside = folder / "images" / split / f"digit {label}"
            inside.mkdir(parents=True)
            for number in numbers:
                image = Image.fromarray((digits.images[places[number]] * 15).astype(np.uint8))
                image.resize((16, 16)).save(inside / f"{number:02}.png")
    (folder / "linear.py").write_text(
        net_source(init="self.drawn = torch.rand(1)", forward="return self.head(x) + self.drawn")
    )
    shutil.copy(GOLDEN, folder / "mixture.py")
    settings = f"--dataset folder:{folder}/images --shape 1x16x16 --batch 16 --lr 0.01 --epochs 2 --threads 1"
    for name in ("mixture", "linear"):
        where = ["--archive", f"{folder}/a.db", "--name", name, "--isolation", "process"]
        assert run(["train", f"{folder}/{name}.py", *where, *settings.split()]) == 0
    return folder


@pytest.fixture
def archive(folder, monkeypatch):
    monkeypatch.setenv("NNGEN_ARCHIVE", str(folder / "a.db"))
    with Archive.open(folder / "a.db", readonly=True) as archive:
        yield archive


@pytest.fixture(scope="session")
def recorded():
    """Function that returns the id of a campaign's candidate and the classes that it predicted on validation."""

    def look(archive, campaign):
        (trial,) = archive.trials(campaign)
        places = np.frombuffer(archive.predictions(trial.id, "validation"), "<u2")
        return trial.candidate_id, [f"digit {place}" for place in places]

    return look
