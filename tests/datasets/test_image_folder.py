"""Folders of images as people have them: each gives known pixels, labels and splits, or one line that says why not."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nngen.datasets import load_dataset
from nngen.datasets.batches import Batches, Preparation
from nngen.datasets.image_files.decoding import ImageFiles
from nngen.datasets.image_files.image_file import read_header
from nngen.datasets.image_files.image_folder import FolderSource
from nngen.errors import DataError
from nngen.isolation import Isolation
from nngen.training import TrainJob
from nngen.training.orders import TrainOrder
from nngen.types import Candidate, Shape, TrialSpec

CLASSES = ("diagonal", "lying", "standing")

LINEAR = """\
import torch
from torch import nn


def supported_hyperparameters():
    return {"lr", "momentum"}


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.device = device
        self.fc = nn.Linear(in_shape[1] * in_shape[2] * in_shape[3], out_shape[0])

    def forward(self, x):
        return self.fc(x.flatten(1))

    def train_setup(self, prm):
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data):
        for images, labels in train_data:
            self.optimizer.zero_grad()
            self.criterion(self(images), labels).backward()
            self.optimizer.step()
"""


def bar(label: int, number: int = 0) -> np.ndarray:
    """Draw a bright bar on dark: 0 a diagonal, 1 lies, 2 stands; (16, 16) uint8."""
    image = np.full((16, 16), 20, np.uint8)
    shift = number % 6 + 4
    if label == 0:
        rows = np.arange(12)
        image[rows + 2, (rows + shift) % 12 + 2] = 235
    elif label == 1:
        image[shift, 2:14] = 235
    else:
        image[2:14, shift] = 235
    return image


def write(root: Path, *, save=None, count: int = 4, suffix: str = "png") -> None:
    """Write ``count`` images of each class; ``save(image, path, number)`` replaces the plain PNG."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = root / name / f"{number:03d}.{suffix}"
            (save or (lambda image, path, _: Image.fromarray(image).save(path)))(bar(label, number), path, number)


def expected(count: int = 4) -> np.ndarray:
    return np.stack([bar(label, number) for label in range(3) for number in range(count)])


def decoded(root: Path) -> np.ndarray:
    """Decode a folder; ``(N, H, W)`` brightness."""
    raw = FolderSource(root).decode()
    assert raw.class_names == CLASSES
    assert list(np.bincount(raw.labels)) == [len(raw.labels) // 3] * 3
    return pixels(raw.images).astype(float).mean(axis=1)


def pixels(images: ImageFiles) -> np.ndarray:
    """Decode the images of a split in this process, ``(N, C, H, W)``."""
    return np.stack([images.decode(place) for place in range(len(images))])


def rotated(image: np.ndarray, path: Path, number: int) -> None:
    exif, plain = Image.Exif(), Image.fromarray(image)
    if number % 2:
        plain, exif[0x0112] = plain.transpose(Image.Transpose.ROTATE_90), 6
    plain.save(path, exif=exif)


def transparent(image: np.ndarray, path: Path, number: int) -> None:
    # Black everywhere; the bar is a hole.
    layers = np.zeros((16, 16, 4), np.uint8)
    layers[..., 3] = 255 - image
    Image.fromarray(layers).save(path)


def palette_hole(image: np.ndarray, path: Path, number: int) -> None:
    indexed = Image.fromarray((image > 100).astype(np.uint8), "P")
    indexed.putpalette([20, 20, 20, 7, 7, 7])
    indexed.save(path, transparency=1)


def grey_hole(image: np.ndarray, path: Path, number: int) -> None:
    plain = Image.fromarray(np.where(image > 100, 3, 20).astype(np.uint8))
    plain.save(path, transparency=3)


def sixteen_bits(image: np.ndarray, path: Path, number: int) -> None:
    Image.fromarray(image.astype(np.uint16) * 257).save(path)


def twelve_bits(image: np.ndarray, path: Path, number: int) -> None:
    Image.fromarray(np.rint(image / 255 * 4095).astype(np.uint16)).save(path)


def floats(image: np.ndarray, path: Path, number: int) -> None:
    Image.fromarray((image / 255).astype(np.float32)).save(path.with_suffix(".tif"))


def cmyk(image: np.ndarray, path: Path, number: int) -> None:
    Image.fromarray(image).convert("RGB").convert("CMYK").save(path.with_suffix(".tif"))


def animated(image: np.ndarray, path: Path, number: int) -> None:
    frames = [Image.fromarray(image), Image.fromarray(255 - image)]
    frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    "save", [rotated, sixteen_bits, twelve_bits, floats, cmyk, animated], ids=lambda save: save.__name__
)
def test_pixels_are_those_that_a_viewer_shows(save, tmp_path):
    write(tmp_path, save=save)
    assert np.abs(decoded(tmp_path) - expected()).max() <= 2


def test_the_size_of_a_turned_photo_is_the_one_that_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_header(tmp_path / "turned.jpg").size == (20, 30)


@pytest.mark.parametrize("save", [transparent, palette_hole, grey_hole], ids=lambda save: save.__name__)
def test_transparency_is_laid_on_white(save, tmp_path):
    write(tmp_path, save=save)
    found = decoded(tmp_path)
    bright = expected() > 100
    assert found[bright].min() >= 230
    assert found[~bright].max() <= 25


@pytest.mark.parametrize(("suffix", "kind"), [("jfif", "JPEG"), ("avif", "AVIF"), ("dat", "WEBP"), ("png", "BMP")])
def test_the_content_counts_and_not_the_suffix(suffix, kind, tmp_path):
    write(tmp_path, suffix=suffix, save=lambda image, path, _: Image.fromarray(image).save(path, kind))
    assert np.abs(decoded(tmp_path) - expected()).mean() < 12


def test_files_without_a_suffix_are_read(tmp_path):
    write(tmp_path, save=lambda image, path, _: Image.fromarray(image).save(path.with_suffix(""), "PNG"))
    assert (decoded(tmp_path) == expected()).all()


def test_what_systems_leave_in_folders_is_passed_over_at_every_level(tmp_path):
    write(tmp_path)
    junk = struct.pack(">I", 0x00051607) + bytes(60)
    for name in (
        "lying/._000.png",
        "__MACOSX/lying/._000.png",
        "lying/Thumbs.db",
        ".DS_Store",
        "standing/@eaDir/x.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(junk)
    (tmp_path / "lying" / "notes.txt").write_text("ours")
    raw = FolderSource(tmp_path).decode()
    assert len(raw.images) == 12
    assert "left out, since not images: notes.txt" in raw.notes
    assert any(note.endswith("hidden, system or special files are left out") for note in raw.notes)


@pytest.mark.skipif(os.name != "posix", reason="FIFOs are of POSIX")
def test_fifos_are_not_opened_and_links_to_files_are_followed(tmp_path):
    write(tmp_path / "data")
    os.mkfifo(tmp_path / "data" / "lying" / "pipe.png")
    (tmp_path / "data" / "lying" / "000.png").rename(tmp_path / "blob")
    (tmp_path / "data" / "lying" / "000.png").symlink_to(tmp_path / "blob")
    assert (decoded(tmp_path / "data") == expected()).all()


def test_a_name_that_is_not_utf8_is_read_like_any_other(tmp_path):
    write(tmp_path)
    (tmp_path / "lying" / "000.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/lying/000\xe9.png"))
    source = FolderSource(tmp_path)
    assert len(source.key()) == 64
    assert len(source.decode().images) == 12


def test_a_class_whose_name_is_not_utf8_is_shown_with_a_mark_in_place_of_the_byte(tmp_path):
    write(tmp_path, count=5)
    (tmp_path / "lying").rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    raw = FolderSource(tmp_path).decode()
    assert len(raw.class_names) == 3
    for text in (*raw.class_names, *raw.notes):
        text.encode("utf-8")  # no lone surrogate, which a terminal, JSON or the archive would refuse
    assert sum(name.startswith("caf") for name in raw.class_names) == 1
    assert any("caf" in note for note in raw.notes)


def test_a_class_without_images_is_an_error_that_names_its_folder(tmp_path):
    write(tmp_path)
    (tmp_path / "sitting").mkdir()
    with pytest.raises(DataError, match="no image is read in sitting: a class without images would vanish"):
        FolderSource(tmp_path).decode()


def test_unreadable_images_are_named_together_or_left_out(tmp_path):
    write(tmp_path, count=5)
    for name in ("lying/000.png", "standing/001.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
    (tmp_path / "diagonal" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(DataError) as caught:
        FolderSource(tmp_path).decode()
    message = str(caught.value)
    assert "3 images cannot be read" in message
    assert all(name in message for name in ("lying/000.png", "standing/001.png", "phone.heic", "--skip-unreadable"))
    raw = FolderSource(tmp_path, skip_unreadable=True).decode()
    assert len(raw.images) == 13
    assert sum(note.startswith("left out: ") for note in raw.notes) == 3


def test_photos_are_brought_to_one_size_by_the_short_side_and_the_centre(tmp_path):
    def photo(image: np.ndarray, path: Path, number: int) -> None:
        wide = np.zeros((300, 500), np.uint8)
        wide[:, 100:400] = 200  # the centre square
        Image.fromarray(wide).save(path)

    write(tmp_path, save=photo)
    raw = FolderSource(tmp_path).decode()
    assert raw.images.shape[1:] == (1, 256, 256)
    assert pixels(raw.images)[..., 5:-5].min() >= 198
    assert "images are scaled to a short side of 256 px, and the centre square is taken" in raw.notes


def splits(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, count=6)
    return root


def test_three_splits_are_taken_as_named(tmp_path):
    raw = FolderSource(splits(tmp_path, "train", "val", "Test")).decode()
    assert [len(raw.labels), len(raw.validation_labels), len(raw.test_labels)] == [18, 18, 18]
    assert (raw.classes, raw.class_names) == (3, CLASSES)


@pytest.mark.parametrize("other", ["val", "test", "validation"])
def test_one_split_beside_train_is_the_test_split(other, tmp_path):
    raw = FolderSource(splits(tmp_path, "train", other)).decode()
    assert raw.validation_labels is None
    assert len(raw.test_labels) == 18
    assert f"{other} is the test split, and validation is taken from train" in raw.notes


@pytest.mark.parametrize(
    ("names", "message"),
    [(["train"], "it lacks test or val"), (["test"], "it lacks train"), (["val", "test"], "it lacks train")],
)
def test_a_split_alone_is_refused_with_the_one_it_lacks(names, message, tmp_path):
    with pytest.raises(DataError, match=message):
        FolderSource(splits(tmp_path, *names)).decode()


def test_a_class_of_the_test_split_that_train_lacks_is_refused(tmp_path):
    splits(tmp_path, "train", "test")
    (tmp_path / "train" / "lying").rename(tmp_path / "train" / "sitting")
    with pytest.raises(DataError, match="test has classes that train lacks: lying"):
        FolderSource(tmp_path).decode()


def test_a_class_may_be_named_like_a_split(tmp_path):
    for name in ("train", "bus"):
        (tmp_path / name).mkdir()
        Image.fromarray(bar(0)).save(tmp_path / name / "a.png")
    assert FolderSource(tmp_path).decode().class_names == ("bus", "train")


def test_splits_without_folders_of_classes_are_refused(tmp_path):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        Image.fromarray(bar(0)).save(tmp_path / name / "cat.0.png")
    with pytest.raises(DataError, match="has the splits test and train, but no folders of classes in them"):
        FolderSource(tmp_path).decode()


def test_splits_inside_of_classes_are_refused(tmp_path):
    for name in CLASSES:
        for split in ("train", "test"):
            (tmp_path / name / split).mkdir(parents=True)
            Image.fromarray(bar(0)).save(tmp_path / name / split / "a.png")
    with pytest.raises(DataError, match="has splits inside of its classes"):
        FolderSource(tmp_path).decode()


def test_a_folder_around_the_classes_is_named(tmp_path):
    write(tmp_path / "wrapped")
    with pytest.raises(DataError, match=f"did you mean {tmp_path / 'wrapped'}"):
        FolderSource(tmp_path).decode()


def test_images_in_two_splits_are_named(tmp_path, cache):
    splits(tmp_path / "data", "train", "test")
    for number, file in enumerate(sorted((tmp_path / "data").rglob("*.png"))):
        if file != tmp_path / "data/test/diagonal/000.png":
            Image.fromarray(np.full((16, 16), 100 + number, np.uint8)).save(file)
    shutil.copy(tmp_path / "data/test/diagonal/000.png", tmp_path / "data/train/diagonal/000.png")
    shown = [note for note in load_dataset(f"folder:{tmp_path / 'data'}").notes if " too, " in note]
    assert shown == ["1 image of test is in train too, which no accuracy on test shows: test/diagonal/000.png"]


def test_equal_images_are_named_where_the_split_that_is_drawn_parts_them(tmp_path, cache):
    write(tmp_path / "data", count=6)  # the bars repeat only after the sixth
    assert not any("equal" in note or " too" in note for note in load_dataset(f"folder:{tmp_path / 'data'}").notes)
    for name in CLASSES:
        for file in sorted((tmp_path / "data" / name).iterdir()):
            shutil.copy(file, tmp_path / "data" / name / f"again {file.name}")
    notes = load_dataset(f"folder:{tmp_path / 'data'}").notes
    assert any("images of test are in train too" in note for note in notes)


def test_splits_beside_classes_are_refused(tmp_path):
    splits(tmp_path, "train", "val")
    write(tmp_path)
    with pytest.raises(DataError, match=r"mixes splits \(train and val\) with other folders"):
        FolderSource(tmp_path).decode()


def test_splits_of_the_folder_become_those_of_the_data_set(tmp_path, cache):
    raw_names = ("train", "val", "test")
    data = load_dataset(f"folder:{splits(tmp_path / 'data', *raw_names)}")
    assert [len(data.train_labels), len(data.validation_labels), len(data.test_labels)] == [18, 18, 18]
    assert data.class_names == CLASSES


def test_a_folder_that_moves_keeps_its_split_and_fingerprint(tmp_path, cache, monkeypatch):
    write(tmp_path / "data", count=10)
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir(tmp_path)
    places = ("folder:data", f"folder:{tmp_path / 'data'}", "folder:elsewhere/moved")
    assert len({load_dataset(place).fingerprint for place in places}) == 1


def test_a_class_too_small_to_split_is_named(tmp_path, cache):
    write(tmp_path / "data")
    for number in (1, 2, 3):
        (tmp_path / "data" / "lying" / f"{number:03d}.png").unlink()
    with pytest.raises(DataError, match="class lying has 1 image;"):
        load_dataset(f"folder:{tmp_path / 'data'}")


@pytest.mark.long
def test_the_command_reports_what_it_read_and_names_unreadable_images(tmp_path, cache, nngen):
    write(tmp_path / "data", count=40)
    (tmp_path / "data" / "lying" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "Linear.py").write_text(LINEAR)
    command = ("train", str(tmp_path / "Linear.py"), "--dataset", f"folder:{tmp_path / 'data'}", "--threads", "1")
    refused = nngen(*command)
    assert refused.code == 1
    assert "1 image cannot be read: lying/broken.png" in refused.err
    done = nngen(*command, "--skip-unreadable", "--epochs", "10", "--batch", "16", "--lr", "0.01", "--json")
    assert "120 images in 3 classes: diagonal 40, lying 40 and standing 40" in done.err
    assert "left out: lying/broken.png" in done.err
    assert json.loads(done.out)["validation_accuracy"] == 1.0


def photo(width: int, height: int):
    """Return a writer of photographs with a circle in the middle; its height and width tell of a distortion."""

    def save(image: np.ndarray, path: Path, number: int) -> None:
        rows, columns = np.mgrid[:height, :width]
        inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 4) ** 2
        Image.fromarray(np.where(inside, 240, 10).astype(np.uint8)).save(path)

    return save


@pytest.mark.parametrize(
    ("shape", "stored"),
    [(None, (256, 256)), ("1x64x64", (256, 256)), ("1x300x300", (300, 300)), ("1x128x256", (128, 256))],
)
def test_photos_are_stored_as_large_as_the_shape_needs_and_with_its_proportions(shape, stored, tmp_path):
    write(tmp_path, save=photo(600, 400), count=1)
    raw = FolderSource(tmp_path, wanted=Shape.parse(shape) if shape else None).decode()
    assert raw.images.shape[2:] == stored
    circle = pixels(raw.images)[0, 0] > 128
    assert abs(int(circle.any(axis=0).sum()) - int(circle.any(axis=1).sum())) <= 2


def test_no_image_is_stored_larger_than_most_are(tmp_path):
    write(tmp_path, save=photo(150, 120), count=1)
    Image.new("L", (200, 200)).save(tmp_path / "lying" / "large.png")
    assert FolderSource(tmp_path, wanted=Shape(1, 512, 512)).decode().images.shape[2:] == (120, 120)


def test_shapes_that_need_the_same_stored_images_share_them(tmp_path, cache):
    write(tmp_path / "data", save=photo(300, 280), count=5)
    name = f"folder:{tmp_path / 'data'}"
    folders = [load_dataset(name, shape=shape and Shape.parse(shape)).folder for shape in (None, "3x32x32", "1x64x64")]
    assert len(set(folders)) == 1
    large = load_dataset(name, shape=Shape(3, 270, 270))
    assert large.folder != folders[0]
    assert large.shape == Shape(1, 270, 270)


def test_reading_reports_its_progress(tmp_path, cache):
    write(tmp_path / "data", count=5)
    seen: list[tuple[int, int]] = []
    load_dataset(f"folder:{tmp_path / 'data'}", progress=lambda done, total: seen.append((done, total)))
    steps = [(done, 15) for done in range(1, 16)]
    assert seen[:30] == [*steps, *steps]  # headers, then pixels
    assert seen[-1] == (15, 15)


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_images_are_mirrored_only_where_asked(augment, tmp_path, cache):
    for name in ("left", "right"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(9):
            image = np.full((16, 16), 20, np.uint8)
            image[3 + number, 1:7] = 235
            Image.fromarray(image if name == "left" else image[:, ::-1].copy()).save(
                tmp_path / "data" / name / f"{number}.png"
            )
    data = load_dataset(f"folder:{tmp_path / 'data'}")
    candidate = Candidate(id="linear", source=LINEAR, canonical="")
    spec = TrialSpec(dataset=data.name, shape=data.shape) if augment == "none" else None
    spec = spec or TrialSpec(dataset=data.name, shape=data.shape, augment=augment)
    order = TrainOrder.of(TrainJob(candidate=candidate, spec=spec, dataset=data, isolation=Isolation.PROCESS))
    images, labels = (torch.from_numpy(np.array(array)) for array in (data.train_images, data.train_labels))
    plain = Preparation(shape=data.shape, mean=(0.0,), std=(1.0,))
    batches = Batches(images, labels, plain, batch=len(labels), seed=0, augment=order.augment)
    ((seen, classes),) = batches
    on_the_left = (seen[:, 0, :, 1:7] > 0.5).any(dim=(1, 2))
    assert torch.equal(on_the_left, classes == 0) is (augment == "none")
