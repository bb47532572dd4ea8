"""Which of LEMUR's transforms does to an image what a trial did to it; one of our own where none does.

LEMUR's ``norm_<s>`` resizes the shorter side to ``s`` (bilinear, antialiased), cuts the centre square,
and normalises with the data set's constants; ``_flip`` mirrors at random before that. On square images the cut
does nothing, and ours is the same: resize, normalise, mirror, which may change places.
"""

from __future__ import annotations

from dataclasses import dataclass

from nngen.types import Shape

__all__ = ["OWN", "SIZES", "Transform", "matching_transform"]

SIZES = (32, 64, 128, 256, 299, 512)
"""Sides for which both 2.1.2 and 2.2.11 have ``norm_<s>`` and ``norm_<s>_flip``."""

OWN = "nngen-"
"""What the names of our own transforms start with."""

_FILE = '''"""Written by nngen: images of {stored}, brought to {shape}{mirrored}."""
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
        source: The file that has to stand beside LEMUR's own; None where LEMUR brings it.
    """

    name: str
    source: str | None = None


def matching_transform(stored: Shape, shape: Shape, *, flip: bool, own: bool = False) -> Transform:
    """Find the transform of LEMUR's that equals a trial's preprocessing, or write one.

    Args:
        stored: Of the data set's images.
        shape: What the trial brought them to.
        flip: Whether images were mirrored at random in training.
        own: Write one even where LEMUR has its equal.
    """
    if own:
        return _own(stored, shape, flip=flip)
    square = stored.height == stored.width and shape.height == shape.width
    if stored == shape:
        return Transform(name=_name("norm", flip))
    if stored.channels == shape.channels and square and shape.height in SIZES:
        return Transform(name=_name(f"norm_{shape.height}", flip))
    return _own(stored, shape, flip=flip)


def _own(stored: Shape, shape: Shape, *, flip: bool) -> Transform:
    steps = []
    if (stored.height, stored.width) != (shape.height, shape.width):
        steps.append(f"transforms.Resize(({shape.height}, {shape.width}))")
    if flip:
        steps.append("transforms.RandomHorizontalFlip()")
    steps += ["transforms.ToTensor()", "transforms.Normalize(*norm)"]
    if stored.channels != shape.channels:
        steps.append(f"transforms.Lambda(lambda image: image.repeat({shape.channels}, 1, 1))")
    source = _FILE.format(
        stored=stored,
        shape=shape,
        mirrored=" and mirrored at random" if flip else "",
        steps=",\n".join(f"        {step}" for step in steps),
    )
    return Transform(name=f"{OWN}{stored}-to-{shape}" + ("-flip" if flip else ""), source=source)


def _name(base: str, flip: bool) -> str:
    return f"{base}_flip" if flip else base
