"""Transforms of LEMUR's: the one that equals a trial's preprocessing or is written for it, and the reverse.

LEMUR's ``norm_<s>`` resizes the shorter side to ``s`` (bilinear, antialiased), crops the centre square,
and normalises with the data set's constants; ``_flip`` mirrors at random before that. On square images the crop
does nothing, and nngen's preprocessing (resize, normalise, mirror, which commute) is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nngen.errors import LemurError
from nngen.text import one_line
from nngen.types import Shape, shift_of

SIZES = (32, 64, 128, 256, 299, 512)
"""Sides for which both 2.1.2 and 2.2.11 have ``norm_<s>`` and ``norm_<s>_flip``."""

OWN = "nngen-"
"""Prefix of the names of transforms written by nngen."""

_FILE = '''"""Written by nngen: images of {stored}, brought to {shape}{changed}."""
from torchvision import transforms


def transform(norm):
    return transforms.Compose([
{steps}
    ])
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """A transform by LEMUR's name."""

    name: str  # stem of the transform's file
    source: str | None = None  # source of a file that must be added to LEMUR's own; None if LEMUR has the transform


def matching_transform(stored: Shape, shape: Shape, *, augment: str = "none", own: bool = False) -> Transform:
    """Find the transform of LEMUR's that equals a trial's preprocessing, or write one; with ``own`` one is written."""
    own = own or augment not in ("none", "flip")
    mirrored = "_flip" if augment == "flip" else ""
    square = stored.height == stored.width and shape.height == shape.width
    if not own and stored == shape:
        return Transform(name=f"norm{mirrored}")
    if not own and stored.channels == shape.channels and square and shape.height in SIZES:
        return Transform(name=f"norm_{shape.height}{mirrored}")
    steps = []
    if augment == "crop-flip":
        padding = tuple(shift_of(side) for side in (stored.width, stored.height))
        steps.append(f"transforms.RandomCrop(({stored.height}, {stored.width}), padding={padding})")
    if augment == "trivial":
        steps.append("transforms.TrivialAugmentWide()")
    if (stored.height, stored.width) != (shape.height, shape.width):
        steps.append(f"transforms.Resize(({shape.height}, {shape.width}))")
    if augment.endswith("flip"):
        steps.append("transforms.RandomHorizontalFlip()")
    steps += ["transforms.ToTensor()", "transforms.Normalize(*norm)"]
    if stored.channels != shape.channels:
        steps.append(f"transforms.Lambda(lambda image: image.repeat({shape.channels}, 1, 1))")
    source = _FILE.format(
        stored=stored,
        shape=shape,
        changed="" if augment == "none" else f", augmented by {augment}",
        steps=",\n".join(f"        {step}" for step in steps),
    )
    return Transform(name=f"{OWN}{stored}-to-{shape}" + ("" if augment == "none" else f"-{augment}"), source=source)


CONSTANTS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar-100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}
"""Means and deviations by which LEMUR's loaders of 2.1.2 normalize each data set."""

_RECORDED = re.compile(r"(?P<kind>norm|echo|complex)(?:_(?P<side>[1-9]\d{1,3}))?(?P<flip>_flip)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTransform:
    """A transform of LEMUR's as settings of a training on square images."""

    side: int | None  # side to which images are resized; None where they keep theirs
    augment: str  # ``flip`` where training images are mirrored at random, else ``none``
    mean: tuple[float, ...]  # mean per channel that is subtracted
    std: tuple[float, ...]  # deviation per channel that is divided by


def read_transform(name: str, dataset: str) -> KnownTransform:
    """Read the name of a transform that nngen's own preprocessing equals.

    ``norm`` normalizes with the constants of LEMUR's loader, ``echo`` leaves values in [0, 1].

    Raises:
        LemurError: If it is another one; the message gives the reason.
    """
    found = _RECORDED.fullmatch(name)
    if found is None:
        raise LemurError(f"transform {one_line(name, 60)} has no equal in nngen")
    if found["kind"] == "complex":
        raise LemurError("its transform makes images complex")
    mean, std = CONSTANTS[dataset]
    if found["kind"] == "echo":
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    return KnownTransform(
        side=int(found["side"]) if found["side"] else None,
        augment="flip" if found["flip"] else "none",
        mean=mean,
        std=std,
    )
