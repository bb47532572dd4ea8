"""Decoding of image files: on all cores, resumed, in bounded memory; damaged images are named or left out."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nngen.datasets import load_dataset
from nngen.datasets.array_files import WORKER_FILES, content_of
from nngen.datasets.image_files import decoding
from nngen.datasets.image_files.decoding import ImageFiles, decode_files, on_all_cores, remove_images
from nngen.datasets.image_files.image_file import read_header
from nngen.datasets.loading import store_dataset
from nngen.datasets.source import Raw
from nngen.errors import DataError
from nngen.files import one_process
from nngen.isolation.limits import MIB


def photos(folder: Path, count: int = 12, kind: str = "jpg") -> Path:
    """Write images of two classes whose mean tells their number."""
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number:02d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.RandomState(number).randint(0, 8, (60, 72, 3)) + 8 * number
        Image.fromarray(noise.astype(np.uint8)).save(path)
    return folder


def number_of(image: np.ndarray) -> int:
    """Return the number of an image, by its brightness."""
    return round((float(image.mean()) - 3.5) / 8)


def cut(file: Path) -> None:
    """Cut the pixels of an image, so that its header can still be read."""
    file.write_bytes(file.read_bytes()[:-30])
    assert read_header(file) is not None


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> list[Path]:
    """Interrupt decoding after a number of images, in one thread; return the list of those that are decoded."""
    seen: list[Path] = []
    plain = decoding.decode

    def decode(file: Path, *size: object, **options: object) -> np.ndarray:
        if len(seen) == count:
            raise KeyboardInterrupt
        seen.append(file)
        return plain(file, *size, **options)

    monkeypatch.setattr(decoding, "decode", decode)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    return seen


def test_an_interrupted_decoding_goes_on_where_it_ended(tmp_path, cache, monkeypatch):
    name = f"folder:{photos(tmp_path / 'data', 40)}"
    whole = load_dataset(name)
    arrays = {part: np.array(np.load(whole.file(part))) for part in WORKER_FILES}
    monkeypatch.setenv("NNGEN_CACHE", str(tmp_path / "other"))
    with monkeypatch.context() as patch:
        first = stop_after(patch, 30)
        with pytest.raises(KeyboardInterrupt):
            load_dataset(name)
        (part,) = (tmp_path / "other" / "data").glob(".*.part")
        assert not list((tmp_path / "other" / "data").glob("folder-*"))
    with monkeypatch.context() as patch:
        rest = stop_after(patch, 100)
        again = load_dataset(name)
    # What waited when the first call ended was decoded and not recorded: four images for each thread, here one.
    assert len(rest) <= 40 - len(first) + 5
    assert len({*first, *rest}) == 40
    assert again.fingerprint == whole.fingerprint
    assert all((np.load(again.file(part)) == pixels).all() for part, pixels in arrays.items())
    assert not part.exists()
    assert len(list(again.folder.iterdir())) == 7


def test_a_part_of_the_images_is_chosen_like_one_of_an_array(tmp_path):
    files = sorted(photos(tmp_path, 6).rglob("*.jpg"))
    images = ImageFiles(files=files, size=(72, 60), grey=False)
    assert images[:2].files == files[:2]
    assert images[np.array([3, 1])].files == [files[3], files[1]]
    assert images[:2].shape == (2, 3, 60, 72)


def test_pixels_that_were_damaged_meanwhile_are_decoded_again(tmp_path):
    files = sorted(photos(tmp_path / "data").rglob("*.jpg"))
    images, out = ImageFiles(files=files, size=(72, 60), grey=False), tmp_path / "images.npy"
    decode_files(images, out, lambda _: None)
    whole = out.read_bytes()
    with out.open("r+b") as file:
        file.seek(4000)
        file.write(bytes(100))
    decode_files(images, out, lambda _: None)
    assert out.read_bytes() == whole


def test_images_that_turn_out_to_be_cut_are_named_together_or_left_out(tmp_path, cache):
    folder = photos(tmp_path / "data", 30)
    sound = load_dataset(f"folder:{folder}")
    for name in ("a/04.jpg", "b/07.jpg"):
        cut(folder / name)
    with pytest.raises(DataError) as caught:
        load_dataset(f"folder:{folder}")
    assert "2 images cannot be read" in str(caught.value)
    assert all(name in str(caught.value) for name in ("a/04.jpg cannot be read", "b/07.jpg", "--skip-unreadable"))
    assert not list((cache / "data").glob(".*.part"))
    rest = load_dataset(f"readable-folder:{folder}")
    left = [note for note in rest.notes if note.startswith("left out: ")]
    assert [note[:19] for note in sorted(left)] == ["left out: a/04.jpg ", "left out: b/07.jpg "]
    stored = [np.concatenate([data.train_images, data.validation_images, data.test_images]) for data in (sound, rest)]
    assert [len(images) for images in stored] == [30, 28]
    numbers = [{number_of(image) for image in images} for images in stored]
    assert numbers[0] - numbers[1] == {4, 7}
    for kind in ("train", "validation", "test"):
        images, labels = getattr(rest, f"{kind}_images"), getattr(rest, f"{kind}_labels")
        assert [number_of(image) % 2 for image in images] == list(labels)


def test_a_class_of_which_nothing_can_be_read_is_an_error(tmp_path, cache):
    folder = photos(tmp_path / "data", 20)
    for file in (folder / "b").iterdir():
        cut(file)
    with pytest.raises(DataError, match="can be read"):
        load_dataset(f"readable-folder:{folder}")


@pytest.mark.parametrize("places", [(), (0,), (5,), (1, 2, 4), (0, 1, 2, 3, 4)])
def test_images_are_removed_in_place(places, tmp_path):
    images = np.random.RandomState(0).randint(0, 256, (6, 3, 4, 5), np.uint8)
    np.save(tmp_path / "x.npy", images)
    (tmp_path / "x.digests").write_bytes(bytes(48))  # of these images, and of no others that are decoded later
    remove_images(tmp_path / "x.npy", places)
    assert (np.load(tmp_path / "x.npy") == np.delete(images, places, 0)).all()
    assert not (tmp_path / "x.digests").exists()


def test_a_disk_without_room_is_named_before_anything_is_decoded(tmp_path, cache, monkeypatch):
    folder = photos(tmp_path / "data")
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(decoding, "decode", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"need 0.0 GiB, and .* has 0.0 GiB free: set NNGEN_CACHE"):
        load_dataset(f"folder:{folder}")


def test_a_disk_that_is_full_is_one_line(tmp_path, cache, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoding.os, "pwrite", full)
    with pytest.raises(DataError, match=r"cannot be stored in .*No space left on device; set NNGEN_CACHE"):
        load_dataset(f"folder:{photos(tmp_path / 'data')}")
    assert not list((cache / "data").glob(".*.part"))


def test_few_items_are_taken_ahead_and_results_come_in_order():
    taken = itertools.count()
    results = on_all_cores(lambda item: item * item, taken)
    assert list(itertools.islice(results, 100)) == [number**2 for number in range(100)]
    assert next(taken) < 110 + 4 * len(os.sched_getaffinity(0))
    results.close()


def test_an_error_in_a_thread_is_raised_and_ends_the_others():
    def fail(item: int) -> int:
        if item == 5:
            raise OSError("x")
        return item

    with pytest.raises(OSError, match="x"):
        list(on_all_cores(fail, itertools.count()))


def test_a_second_process_waits_for_the_first_and_says_so(tmp_path, caplog):
    order, entered = [], threading.Event()

    def second() -> None:
        entered.wait()
        with one_process(tmp_path / "x", "waiting for it"):
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with caplog.at_level(logging.WARNING), one_process(tmp_path / "x"):
        entered.set()
        while "waiting for it" not in caplog.text:
            pass
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_a_disk_without_locks_is_used_without_them(tmp_path, cache, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("nngen.files.fcntl.flock", fail)
    assert load_dataset(f"folder:{photos(tmp_path / 'data', 30)}").classes == 2


class _Large:
    """150 MiB of images in memory."""

    name = "large"
    default_shape = None

    def key(self) -> str:
        return "1"

    def decode(self) -> Raw:
        labels = np.arange(800, dtype=np.int64) % 2
        return Raw(classes=2, images=np.zeros((800, 3, 256, 256), np.uint8), labels=labels)


@pytest.mark.long
def test_the_fingerprint_of_a_large_data_set_is_computed_in_little_memory(cache):
    def mapped() -> int:
        return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE") // MIB

    data = store_dataset(_Large(), cache / "data" / "large")
    before, most = mapped(), []
    content = content_of(data.folder, 2, lambda *_: most.append(mapped()))
    assert content["fingerprint"] == data.fingerprint
    assert max(most) - before < 20
