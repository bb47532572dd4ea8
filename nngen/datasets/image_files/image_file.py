"""Opens image files as people have them: orientation, transparency, palettes and depths become plain bytes."""

from __future__ import annotations

import mimetypes
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from nngen.errors import DataError
from nngen.files import open_regular
from nngen.text import one_line

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TIFF", "WEBP")
"""Pillow's formats that are read, told by the content of a file. EPS and the like run programs and are left out."""

MAX_PIXELS = 64_000_000
"""Most pixels of an image, but for JPEG, which is read at a lower resolution. A file of 1 kB may declare gigabytes."""

_REDUCED = 1024  # side in pixels down to which large JPEGs are reduced while they are decoded

_GREY = {"1", "L", "LA", "La"}
_DEEP = {"I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
"""Modes of one channel with more than 8 bits, which Pillow clips at 255 when it converts them."""

_TURNED = {5, 6, 7, 8}  # values of the EXIF orientation that exchange width and height

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedded:
    """An image inside of another file."""

    name: str  # name for messages
    # returns the bytes of the image, as of a file of its own; it may be called from several threads at once
    read: Callable[[], bytes]

    def __str__(self) -> str:
        return self.name


ImageFile: TypeAlias = Path | Embedded
"""Place that the bytes of one image are read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Properties of an image that decide how a folder's images are brought to one form."""

    size: tuple[int, int]  # ``(width, height)`` as it is shown, after the orientation in its EXIF data
    grey: bool  # whether it has one channel of brightness
    # least and largest value of a pixel, for images of more than 8 bits a channel; None for others
    span: tuple[float, float] | None = None


def read_header(file: ImageFile) -> Header | None:
    """Read the properties of an image; None for a file that neither is an image nor is named like one.

    Raises:
        DataError: If it is an image, by its content or its suffix, and cannot be read.
    """

    def header(image: Image.Image) -> Header:
        turned = image.getexif().get(0x0112, 1) in _TURNED
        size = (image.height, image.width) if turned else image.size
        if image.mode not in _DEEP:
            return Header(size=size, grey=image.mode in _GREY)
        values = np.asarray(image)
        return Header(size=size, grey=True, span=(float(np.nanmin(values)), float(np.nanmax(values))))

    try:
        return _with_image(file, header)
    except UnidentifiedImageError:
        kind = mimetypes.guess_type(file.name)[0] or "" if isinstance(file, Path) else "image/"
        if kind.startswith("image/"):
            raise DataError(f"{file} is not an image of a format that is read: {', '.join(FORMATS)}") from None
        return None


def decode(
    file: ImageFile, size: tuple[int, int], *, grey: bool, span: tuple[float, float] = (0, 255)
) -> npt.NDArray[np.uint8]:
    """Decode an image as it is shown: turned by its EXIF orientation, transparency on white, first frame.

    An image of another size is scaled until it covers ``size``, and its centre is cut out.

    Args:
        file: File of the image.
        size: ``(width, height)`` of the result.
        grey: Whether one channel is returned, else red, green and blue.
        span: Values that become 0 and 255, for images of more than 8 bits a channel.

    Returns:
        ``(C, height, width)`` uint8.

    Raises:
        DataError: If it cannot be read.
    """

    def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
        if image.format == "JPEG" and min(image.size) > 2 * _REDUCED:
            image.draft(image.mode, (_REDUCED, _REDUCED))
        plain = _plain(ImageOps.exif_transpose(image), span).convert("L" if grey else "RGB")
        if plain.size != size:
            plain = ImageOps.fit(plain, size, Image.Resampling.BILINEAR)
        return np.asarray(plain, dtype=np.uint8)

    try:
        found = _with_image(file, pixels)
    except UnidentifiedImageError as error:
        raise DataError(f"{file} is not an image") from error
    return found[None] if grey else found.transpose(2, 0, 1)


def _plain(image: Image.Image, span: tuple[float, float]) -> Image.Image:
    """Scale more than 8 bits to 8, and lay what is transparent on white."""
    if image.mode in _DEEP:
        low, high = span
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=low)
        scaled = (values - low) * (255 / max(high - low, 1e-12))
        return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        return ground
    return image


def _with_image(file: ImageFile, use: Callable[[Image.Image], T]) -> T:
    try:
        # Threads share the filters of warnings: ``on_all_cores`` ignores them for as long as its threads run.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, odd EXIF data, palettes with transparency
            with _opened(file) as content, Image.open(content, formats=FORMATS) as image:
                # Before a pixel is unpacked: a file of a few kilobytes may hold gigabytes.
                if image.format != "JPEG" and image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{file} is {image.width} x {image.height}: at most {MAX_PIXELS:,} pixels are read")
                return use(image)
    except (UnidentifiedImageError, DataError):
        raise
    except OSError as error:
        raise DataError(f"{file} cannot be read: {one_line(str(error.strerror or error))}") from error
    except Exception as error:  # Pillow's readers raise anything on broken files: SyntaxError, KeyError, struct.error
        raise DataError(f"{file} is broken: {one_line(f'{type(error).__name__}: {error}')}") from error


def _opened(file: ImageFile) -> BinaryIO:
    return open_regular(file) if isinstance(file, Path) else BytesIO(file.read())
