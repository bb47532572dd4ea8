"""Folders of images as people have them: each has a known answer, which a linear net must reach or a line must name.

Every folder shows bars on a dark ground: diagonal, lying and standing. The pixels are written in another way each time
(orientation in EXIF data, transparency, depth, palette, suffix, sizes), or the folder is arranged in another way
(splits, system files, names). A folder passes in one of two ways:

- learned: the classes and splits are the known ones, and a linear net trained in an isolated worker is right on at
  least 95 % of the validation and test images;
- refused: the one line names what is wrong.

Everything else is a silent loss.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _page import Evaluation, note, table
from PIL import Image, PngImagePlugin

from nngen.datasets import Dataset, load_dataset
from nngen.errors import DataError
from nngen.isolation import Isolation
from nngen.training import LocalEngine, TrainJob, accuracy
from nngen.training.candidate_files import read_candidate
from nngen.types import Shape, TrialSpec

CLASSES = ("diagonal", "lying", "standing")
COUNT = 30
REACHED = 0.95
Pixels = npt.NDArray[np.uint8]
Save = Callable[[Pixels, Path, int], object]

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
            self.criterion(self(images.to(self.device)), labels.to(self.device)).backward()
            self.optimizer.step()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A folder with its answer.

    Attributes:
        make: Writes the folder.
        refused: Words of the line that refuses it; empty for one that is learned.
        sizes: Images of train, validation and test; those of a folder of classes by default.
        classes: Names of its classes.
        noted: Words of a note that must be shown.
        skip: Whether unreadable images are left out, as ``--skip-unreadable`` does.
        shape: Shape of the training.
        augment: Random changes of the training images.
    """

    make: Callable[[Path], object]
    refused: str = ""
    sizes: tuple[int, int, int] = (57, 15, 18)
    classes: tuple[str, ...] = CLASSES
    noted: str = ""
    skip: bool = False
    shape: str = ""
    augment: str = "none"


CASES: dict[str, Case] = {}


def folder(name: str, **answer: Any) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Add a folder that a function writes."""

    def add(make: Callable[[Path], object]) -> Callable[[Path], object]:
        CASES[name] = Case(make=make, **answer)
        return make

    return add


def pictures(name: str, **answer: Any) -> Callable[[Save], Save]:
    """Add a folder with one folder per class whose images a function saves."""

    def add(save: Save) -> Save:
        CASES[name] = Case(make=lambda root: write(root, save), **answer)
        return save

    return add


def bar(label: int, number: int, side: int = 16) -> Pixels:
    """Draw a bright bar on dark: 0 a diagonal, 1 lies, 2 stands; ``(side, side)``, different for each number."""
    image = np.full((16, 16), 20, np.uint8)
    shift, bright = number % 6 + 4, 235 - number // 6
    if label == 0:
        rows = np.arange(12)
        image[rows + 2, (rows + shift) % 12 + 2] = bright
    elif label == 1:
        image[shift, 2:14] = bright
    else:
        image[2:14, shift] = bright
    return image.repeat(side // 16, 0).repeat(side // 16, 1)


def png(image: Pixels, path: Path, _: int = 0) -> None:
    """Save as PNG."""
    Image.fromarray(image).save(path.with_suffix(".png"), "PNG")


def write(root: Path, save: Save = png, count: int = COUNT, names: Sequence[str] = CLASSES) -> None:
    """Write ``count`` images of each class."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            save(bar(label, number), root / name / f"{number:03d}", number)


def rgb(image: Pixels) -> Image.Image:
    """Return grey pixels as a colour image."""
    return Image.fromarray(image).convert("RGB")


def with_alpha(image: Pixels, mode: str) -> Image.Image:
    """Return black everywhere; what shall be bright is a hole."""
    hole = Image.fromarray(255 - image)
    black = Image.new("L", hole.size)
    return Image.merge(mode, [black] * (len(mode) - 1) + [hole])


# Pixels


@pictures("PNG, grey")
def _(image: Pixels, path: Path, _: int) -> None:
    png(image, path)


@pictures("JPEG, colour")
def _(image: Pixels, path: Path, _: int) -> None:
    rgb(image).save(path.with_suffix(".jpg"), quality=90)


@pictures("JPEG, progressive, suffix .JPEG")
def _(image: Pixels, path: Path, _: int) -> None:
    rgb(image).save(path.with_suffix(".JPEG"), "JPEG", quality=90, progressive=True)


@pictures("EXIF orientation: all eight")
def _(image: Pixels, path: Path, number: int) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the orientation undoes
    plain, exif = Image.fromarray(image), Image.Exif()
    turn = number % 8 + 1
    if turn in back:
        plain, exif[0x0112] = plain.transpose(Image.Transpose(back[turn])), turn
    plain.save(path.with_suffix(".png"), exif=exif)


@pictures("EXIF orientation in WebP")
def _(image: Pixels, path: Path, number: int) -> None:
    plain, exif = rgb(image), Image.Exif()
    if number % 2:
        plain, exif[0x0112] = plain.transpose(Image.Transpose.ROTATE_90), 6
    plain.save(path.with_suffix(".webp"), lossless=True, exif=exif)


@pictures("transparent: RGBA PNG")
def _(image: Pixels, path: Path, _: int) -> None:
    with_alpha(image, "RGBA").save(path.with_suffix(".png"))


@pictures("transparent: grey with alpha")
def _(image: Pixels, path: Path, _: int) -> None:
    with_alpha(image, "LA").save(path.with_suffix(".png"))


@pictures("transparent: WebP")
def _(image: Pixels, path: Path, _: int) -> None:
    with_alpha(image, "RGBA").save(path.with_suffix(".webp"), lossless=True, exact=True)


@pictures("transparent: index of a palette")
def _(image: Pixels, path: Path, _: int) -> None:
    indexed = Image.fromarray((image > 100).astype(np.uint8)).convert("P")
    indexed.putpalette([20, 20, 20, 7, 7, 7])
    indexed.putdata((image > 100).astype(np.uint8).ravel().tolist())
    indexed.save(path.with_suffix(".png"), transparency=1)


@pictures("transparent: one grey value")
def _(image: Pixels, path: Path, _: int) -> None:
    Image.fromarray(np.where(image > 100, 3, 20).astype(np.uint8)).save(path.with_suffix(".png"), transparency=3)


@pictures("transparent: one colour")
def _(image: Pixels, path: Path, _: int) -> None:
    plain = Image.fromarray(np.where(image > 100, 3, 20).astype(np.uint8)).convert("RGB")
    plain.save(path.with_suffix(".png"), transparency=(3, 3, 3))


@pictures("16 bits, grey PNG")
def _(image: Pixels, path: Path, _: int) -> None:
    Image.fromarray(image.astype(np.uint16) * 257).save(path.with_suffix(".png"))


@pictures("12 bits in 16, TIFF")
def _(image: Pixels, path: Path, _: int) -> None:
    Image.fromarray(np.rint(image / 255 * 4095).astype(np.uint16)).save(path.with_suffix(".tif"))


@pictures("32 bits, whole numbers, TIFF")
def _(image: Pixels, path: Path, _: int) -> None:
    Image.fromarray(image.astype(np.int32) * 65_537).save(path.with_suffix(".tif"))


@pictures("floats in [0, 1], TIFF")
def _(image: Pixels, path: Path, _: int) -> None:
    Image.fromarray((image / 255).astype(np.float32)).save(path.with_suffix(".tif"))


@pictures("floats below zero and NaN, TIFF")
def _(image: Pixels, path: Path, _: int) -> None:
    values = (image / 127.5 - 1).astype(np.float32)
    values[0, 0] = np.nan
    Image.fromarray(values).save(path.with_suffix(".tif"))


@pictures("1 bit, PNG")
def _(image: Pixels, path: Path, _: int) -> None:
    Image.fromarray(image > 100).save(path.with_suffix(".png"))


@pictures("palette, GIF")
def _(image: Pixels, path: Path, _: int) -> None:
    Image.fromarray(image).save(path.with_suffix(".gif"))


@pictures("animated GIF, first frame")
def _(image: Pixels, path: Path, _: int) -> None:
    frames = [Image.fromarray(image), Image.fromarray(255 - image)]
    frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:])


@pictures("CMYK, JPEG")
def _(image: Pixels, path: Path, _: int) -> None:
    rgb(image).convert("CMYK").save(path.with_suffix(".jpg"), quality=95)


@pictures("YCbCr, TIFF")
def _(image: Pixels, path: Path, _: int) -> None:
    rgb(image).convert("YCbCr").save(path.with_suffix(".tif"))


@pictures("grey and colour mixed")
def _(image: Pixels, path: Path, number: int) -> None:
    (rgb(image) if number % 2 else Image.fromarray(image)).save(path.with_suffix(".png"))


@pictures("suffixes .jfif, .jpe, .avif, .jp2, none")
def _(image: Pixels, path: Path, number: int) -> None:
    kinds = ((".jfif", "JPEG"), (".jpe", "JPEG"), (".avif", "AVIF"), (".jp2", "JPEG2000"), ("", "PNG"))
    suffix, kind = kinds[number % len(kinds)]
    rgb(image).save(path.with_suffix(suffix), kind)


@pictures("content of another kind than the suffix")
def _(image: Pixels, path: Path, number: int) -> None:
    Image.fromarray(image).save(path.with_suffix(".jpg"), ("PNG", "WEBP", "BMP", "TIFF")[number % 4])


@pictures("BMP, PPM, ICO, SGI, PCX")
def _(image: Pixels, path: Path, number: int) -> None:
    kind, suffix = (("BMP", ".bmp"), ("PPM", ".pgm"), ("SGI", ".sgi"), ("PCX", ".pcx"))[number % 4]
    Image.fromarray(image).save(path.with_suffix(suffix), kind)


@pictures("PNG with a long comment")
def _(image: Pixels, path: Path, _: int) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 100_000, zip=True)
    Image.fromarray(image).save(path.with_suffix(".png"), pnginfo=text)


def _photo(width: int, height: int) -> Save:
    """Return a writer of photographs with the bar in their centre square."""

    def save(image: Pixels, path: Path, _: int) -> None:
        side = min(width, height) // 16 * 16
        ground = np.full((height, width), 20, np.uint8)
        top, left = (height - side) // 2, (width - side) // 2
        ground[top : top + side, left : left + side] = image.repeat(side // 16, 0).repeat(side // 16, 1)
        rgb(ground).save(path.with_suffix(".jpg"), quality=80)

    return save


@pictures("photos of one large size", shape="3x32x32")
def _(image: Pixels, path: Path, number: int) -> None:
    _photo(800, 600)(image, path, number)


@pictures("photos of many sizes", shape="3x32x32")
def _(image: Pixels, path: Path, number: int) -> None:
    _photo(*((400, 300), (300, 400), (640, 360), (320, 320))[number % 4])(image, path, number)


@pictures("photos at a shape above 256 px", shape="3x272x272")
def _(image: Pixels, path: Path, number: int) -> None:
    _photo(400, 300)(image, path, number)


# Arrangement


@folder("three splits", sizes=(90, 90, 90), noted="splits as the data set names them")
def _(root: Path) -> None:
    for split in ("train", "val", "test"):
        write(root / split)


@folder("train and test", sizes=(72, 18, 90), noted="validation is taken from train")
def _(root: Path) -> None:
    for split in ("train", "test"):
        write(root / split)


@folder("Training and Validation", sizes=(72, 18, 90), noted="Validation is the test split")
def _(root: Path) -> None:
    for split in ("Training", "Validation"):
        write(root / split)


@folder("train alone", refused="lacks test or val")
def _(root: Path) -> None:
    write(root / "train")


@folder("test and val without train", refused="lacks train")
def _(root: Path) -> None:
    for split in ("test", "val"):
        write(root / split)


@folder("a class that train lacks", refused="has classes that train lacks: sitting")
def _(root: Path) -> None:
    write(root / "train")
    write(root / "test", names=("diagonal", "lying", "sitting"))


@folder("splits beside classes", refused="mixes splits")
def _(root: Path) -> None:
    write(root)
    write(root / "train")
    write(root / "test")


@folder("splits without classes", refused="no folders of classes")
def _(root: Path) -> None:
    for split in ("train", "test"):
        (root / split).mkdir()
        for number in range(9):
            png(bar(number % 3, number), root / split / f"{CLASSES[number % 3]}.{number}")


@folder("splits inside of the classes", refused="splits inside of its classes")
def _(root: Path) -> None:
    for name in CLASSES:
        for split in ("train", "test"):
            (root / name / split).mkdir(parents=True)
            for number in range(9):
                png(bar(CLASSES.index(name), number), root / name / split / f"{number}")


@folder("one folder around the classes", refused="did you mean")
def _(root: Path) -> None:
    write(root / "images")


@folder("an image of test in train", sizes=(72, 18, 90), noted="1 image of test is in")
def _(root: Path) -> None:
    write(root / "train")
    write(root / "test", lambda image, path, _: png(image - 1, path))
    shutil.copy(root / "train/lying/003.png", root / "test/lying/003.png")


@folder("images in folders of folders")
def _(root: Path) -> None:
    write(
        root,
        lambda image, path, number: (
            (path.parent / f"camera {number % 3}").mkdir(exist_ok=True),
            png(image, path.parent / f"camera {number % 3}" / path.name),
        ),
    )


@folder("what systems leave", noted="hidden, system or special files are left out")
def _(root: Path) -> None:
    write(root)
    junk = struct.pack(">I", 0x00051607) + bytes(60)
    left = ("lying/._000.png", "__MACOSX/lying/._000.png", "lying/Thumbs.db", ".DS_Store", "standing/@eaDir/x.png")
    for name in (*left, ".ipynb_checkpoints/000.png", "$RECYCLE.BIN/1.png", "lying/desktop.ini", ".git/HEAD"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(junk)


@folder("tables and texts beside the images", noted="files are not images")
def _(root: Path) -> None:
    write(root)
    (root / "README.md").write_text("# Bars\n")
    (root / "lying" / "labels.csv").write_text("file,label\n")
    (root / "annotations.json").write_text("{}")


@folder("images outside of the classes", noted="outside of the folders of classes")
def _(root: Path) -> None:
    write(root)
    png(bar(0, 0), root / "cover")


@folder("names in many alphabets", classes=("a b, c", "größe\n2", "横"))
def _(root: Path) -> None:
    write(root, names=("a b, c", "größe\n2", "横"))


@folder("names that are not UTF-8", classes=("diagonal", "lying", "stand\ufffd"))
def _(root: Path) -> None:
    write(root, names=("diagonal", "lying", os.fsdecode(b"stand\xe9")))
    (root / "lying/000.png").rename(root / "lying" / os.fsdecode(b"\xff000.png"))


@folder("links to files, and a FIFO")
def _(root: Path) -> None:
    write(root)
    for file in sorted((root / "lying").iterdir())[:10]:
        blob = root.parent / f"blob {file.name}"
        file.rename(blob)
        file.symlink_to(blob)
    os.mkfifo(root / "lying" / "pipe.png")


@folder("a class that is a link to a folder", refused="no image is read in lying")
def _(root: Path) -> None:
    write(root)
    (root / "lying").rename(root.parent / "elsewhere")
    (root / "lying").symlink_to(root.parent / "elsewhere")


@folder("an empty class", refused="no image is read in sitting")
def _(root: Path) -> None:
    write(root)
    (root / "sitting").mkdir()


@folder("a class of texts", refused="no image is read in notes")
def _(root: Path) -> None:
    write(root)
    (root / "notes").mkdir()
    (root / "notes/a.txt").write_text("ours")


@folder("a class of one image", refused="class lying has 1 images")
def _(root: Path) -> None:
    write(root)
    for file in sorted((root / "lying").iterdir())[1:]:
        file.unlink()


@folder("one class", refused="holds 1 folders with images")
def _(root: Path) -> None:
    write(root, names=("diagonal",))


@folder("an empty folder", refused="holds 0 folders with images")
def _(root: Path) -> None:
    root.mkdir(exist_ok=True)


def _damaged(root: Path) -> None:
    write(root)
    for name in ("lying/000.png", "standing/001.png"):
        (root / name).write_bytes((root / name).read_bytes()[:60])
    (root / "diagonal/002.png").write_bytes(b"")
    (root / "lying/phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    head = struct.pack(">IIBBBBB", 2**20, 2**20, 8, 2, 0, 0, 0)
    (root / "lying/bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + bytes(4))


CASES["damaged images"] = Case(make=_damaged, refused="5 images cannot be read")
CASES["damaged images, left out"] = Case(make=_damaged, sizes=(54, 15, 18), skip=True, noted="left out: ")


@folder("left and right, mirrored images are others", classes=("left", "right"), sizes=(38, 10, 12))
def _(root: Path) -> None:
    _arrows(root)


def _arrows(root: Path) -> None:
    for name in ("left", "right"):
        (root / name).mkdir(parents=True)
        for number in range(COUNT):
            image = np.full((16, 16), 20, np.uint8)
            image[3 + number % 5, 1:7] = 235 - number // 5
            png(image if name == "left" else image[:, ::-1].copy(), root / name / f"{number:03d}")


# Run


def judge(name: str, case: Case, engine: LocalEngine, work: Path) -> tuple[str, str]:
    """Return what became of a folder: ``learned``, ``refused`` or ``silent loss``, and a phrase about it."""
    root = work / "data"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    root.mkdir()
    case.make(root)
    kind = "readable-folder" if case.skip else "folder"
    shape = Shape.parse(case.shape) if case.shape else None
    try:
        data = load_dataset(f"{kind}:{root}", shape=shape)
    except DataError as error:
        line = str(error)
        good = bool(case.refused) and case.refused in line and "\n" not in line
        return ("refused" if good else "silent loss"), line.replace(f"{root}", "DATA")
    if case.refused:
        return "silent loss", f"read as {data.describe()[-1]}"
    if wrong := _differences(case, data):
        return "silent loss", wrong
    reached = _learn(case, data, shape, engine, work)
    sizes = ", ".join(f"{size}" for size in case.sizes)
    phrase = f"{sizes} images of {data.shape}; accuracy {reached[0]:.2f} and {reached[1]:.2f}"
    return ("learned" if min(reached) >= REACHED else "silent loss"), phrase


def _differences(case: Case, data: Dataset) -> str:
    sizes = tuple(len(getattr(data, f"{split}_labels")) for split in ("train", "validation", "test"))
    if sizes != case.sizes:
        return f"splits of {sizes} images"
    if data.class_names != case.classes:
        return f"classes {data.class_names}"
    return "" if any(case.noted in line for line in data.notes) else f"no note of {case.noted!r}"


def _learn(case: Case, data: Dataset, shape: Shape | None, engine: LocalEngine, work: Path) -> tuple[float, float]:
    (work / "Linear.py").write_text(LINEAR)
    wanted = shape or data.default_shape
    # The bars are learned at any size by the same rate for the mean of the pixels.
    spec = TrialSpec(
        dataset=data.name,
        shape=wanted,
        epochs=30,
        batch=16,
        lr=0.01 * 256 / (wanted.height * wanted.width),
        augment=case.augment,
    )
    job = TrainJob(candidate=read_candidate(work / "Linear.py"), spec=spec, dataset=data, isolation=Isolation.PROCESS)
    trial = engine.train(job)
    if not trial.verdict.valid:
        raise RuntimeError(trial.verdict.message)
    return trial.validation_accuracy or 0.0, accuracy(trial.test_predictions, data.test_labels)


def same_content(work: Path) -> bool:
    """Return whether a folder has one fingerprint wherever it lies and however it is typed, and others if changed."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write(work / "data")
    shutil.copytree(work / "data", work / "far" / "away")
    here = Path.cwd()
    try:
        os.chdir(work)
        places = ("data", f"{work}/data/", "./far/../data", "far/away")
        found = {load_dataset(f"folder:{place}").fingerprint for place in places}
    finally:
        os.chdir(here)
    png(bar(0, 7) // 2, work / "far/away/diagonal/more")
    return len(found) == 1 and load_dataset(f"folder:{work}/far/away").fingerprint not in found


def main(argv: Sequence[str] | None = None) -> int:
    """Judge all folders and print the page."""
    evaluation = Evaluation(__file__, __doc__)
    options = evaluation.arguments(argv, only=("", "the folders whose names have this text"))
    rows, outcomes = [], []
    with tempfile.TemporaryDirectory() as place, LocalEngine() as engine, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, while files are written
        os.environ["NNGEN_CACHE"] = str(Path(place) / "cache")
        for name, case in CASES.items():
            if options.only in name:
                outcome, phrase = judge(name, case, engine, Path(place) / "work")
                outcomes.append(outcome)
                rows.append((name, "refused" if case.refused else "learned", outcome, phrase.replace("|", "/")))
                note(f"{name}: {outcome}: {phrase}")
        mirrored = replace(CASES["left and right, mirrored images are others"], augment="flip")
        chance, phrase = judge("flip", mirrored, engine, Path(place) / "work")
        stable = same_content(Path(place) / "work")
    lost = outcomes.count("silent loss")
    claims = {
        f"{lost} silent losses in {len(rows)} folders (asked: 0)": lost == 0,
        f"left and right with `--augment flip`: {phrase} (it cannot be learned, so the flip is real)": (
            chance == "silent loss"
        ),
        "one fingerprint wherever a folder lies and however it is typed": stable,
    }
    page = evaluation.page(
        "Folders of images as people have them",
        "Each folder shows bars of three kinds: a linear net learns them in an isolated worker, or a line refuses it.",
        [f"- {'holds' if good else 'FAILS'}: {claim}" for claim, good in claims.items()],
        table(("folder", "right", "found", "what became of it"), rows),
    )
    return evaluation.finish(page, good=all(claims.values()))


if __name__ == "__main__":
    raise SystemExit(main())
