"""Preprocessing of a trained network: the conversion of an image to its input, and the names of its outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nngen.errors import DataError
from nngen.types import Shape

RESIZE = (
    "scale until image_shape is covered (bilinear, antialiased) and cut out the centre; divide by 255, subtract mean, "
    "divide by std; resize to input_shape (bilinear, corners not aligned, antialiased where it shrinks); repeat one "
    "channel where input_shape has more"
)
"""Rule from a decoded image to the input, in words; ``image_file.decode`` and ``batches.Preparation`` apply it."""

_GRID = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Everything besides its weights that a trained network needs to classify an image file.

    ``image_file.decode`` with ``image_shape`` and ``span`` returns the bytes of an image, and ``batches.Preparation``
    with ``input_shape``, ``mean`` and ``std`` converts them to the input.
    """

    image_shape: Shape  # shape to which an image is brought first: that of the data set's images
    input_shape: Shape  # shape of the network's input
    mean: tuple[float, ...]  # mean per channel of ``image_shape``, in [0, 1]
    std: tuple[float, ...]  # standard deviation per channel of ``image_shape``, in [0, 1]
    span: tuple[float, float] = (0, 255)  # values that become 0 and 255, for images of more than 8 bits a channel
    # names of the classes in the order of the outputs, their numbers where they have no names
    class_names: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Write the fields as JSON types, with the rule of the resize in words."""
        return {
            "image_shape": _sizes(self.image_shape),
            "input_shape": _sizes(self.input_shape),
            "resize": RESIZE,
            "mean": list(self.mean),
            "std": list(self.std),
            "span": list(self.span),
            "class_names": list(self.class_names),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the output of ``to_dict``; other keys are ignored.

        Raises:
            DataError: If a key is missing or has another type, or the numbers of channels do not fit together.
        """
        try:
            image, wanted = (Shape(*map(_positive, data[name])) for name in ("image_shape", "input_shape"))
            mean, std = (tuple(map(float, data[name])) for name in ("mean", "std"))
            low, high = map(float, data["span"])
            names = tuple(data["class_names"])
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(f"it does not describe a preprocessing: {type(error).__name__}: {error}") from error
        fits = image.channels in (1, wanted.channels) and len(mean) == len(std) == image.channels and min(std) > 0
        if not fits or low >= high or not names or not all(isinstance(name, str) for name in names):
            raise DataError("it does not describe a preprocessing: its channels, span or class names do not fit")
        return cls(image_shape=image, input_shape=wanted, mean=mean, std=std, span=(low, high), class_names=names)

    def to_metadata(self) -> dict[str, str]:
        """Write the fields as texts of JSON, for the metadata of safetensors and ONNX, which hold texts alone."""
        return {name: json.dumps(value) for name, value in self.to_dict().items()}


def _sizes(shape: Shape) -> list[int]:
    return [shape.channels, shape.height, shape.width]


def _positive(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r:.40} is not a number of channels or pixels")
    return value


def pooled_features(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """Return the mean of each channel of ``images``, ``(N, C, H, W)``, on a grid of 4 by 4: ``(N, 16 * C)``."""
    rows, columns = (np.linspace(0, side, _GRID + 1).astype(int) for side in images.shape[2:])
    parts = [
        images[:, :, top : max(bottom, top + 1), left : max(right, left + 1)].mean(axis=(2, 3), dtype=np.float32)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    return (np.concatenate(parts, axis=1) / 255).astype("<f2")
