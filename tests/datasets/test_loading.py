"""Loading: decoded once into the cache; arrays that were damaged there are decoded anew."""

import json
import os

import numpy as np
import pytest

from nngen.datasets import load_dataset
from nngen.errors import DataError


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


def test_a_changed_mean_of_the_cache_is_noticed(cache, caplog):
    data = load_dataset("digits")
    meta = json.loads((data.folder / "meta.json").read_text())
    (data.folder / "meta.json").write_text(json.dumps(meta | {"mean": [0.9]}))
    assert load_dataset("digits").mean == data.mean
    assert "their mean is another one" in caplog.text


def test_a_fingerprint_is_computed_once_for_the_same_files(cache, monkeypatch):
    first = load_dataset("digits").fingerprint
    monkeypatch.setattr("nngen.datasets.dataset.content_of", None)
    assert load_dataset("digits").fingerprint == first


def test_an_unwritable_cache_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NNGEN_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"digits cannot be stored in .*; set NNGEN_CACHE"):
        load_dataset("digits")
