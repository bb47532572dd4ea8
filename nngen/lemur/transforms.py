"""Transform of LEMUR's that equals a trial's preprocessing, or one written for it where LEMUR has none.

LEMUR's ``norm_<s>`` resizes the shorter side to ``s`` (bilinear, antialiased), crops the centre square,
and normalises with the data set's constants; ``_flip`` mirrors at random before that. On square images the crop
does nothing, and nngen's preprocessing (resize, normalise, mirror, which commute) is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """A transform by LEMUR's name.

    Attributes:
        name: Stem of the transform's file.
        source: Source of a file that must be added to LEMUR's own; None if LEMUR has the transform.
    """

    name: str
    source: str | None = None


def matching_transform(stored: Shape, shape: Shape, *, augment: str = "none", own: bool = False) -> Transform:
    """Find the transform of LEMUR's that equals a trial's preprocessing, or write one.

    Args:
        stored: Shape of the data set's images.
        shape: Shape of the images in the trial.
        augment: Random changes of the images in training; LEMUR has ``none`` and ``flip``.
        own: Whether to write one even if LEMUR has an equal.
    """
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
