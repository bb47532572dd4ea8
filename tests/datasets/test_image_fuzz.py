"""Damaged and hostile image files: each is read, or refused with nngen's own error, in bounded time and memory."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nngen.datasets.image_files.image_file import FORMATS, decode, read_header
from nngen.errors import DataError

WRITABLE = [name for name in FORMATS if name not in ("QOI",)]
MODES = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 1, "CMYK": 4, "I;16": 1, "F": 1}


@cache
def sample(kind: str, mode: str) -> bytes:
    """Return a small image of one format and mode; empty where the format does not know the mode."""
    rng = np.random.default_rng(0)
    plain = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8))
    content = io.BytesIO()
    try:
        (plain.convert("L").convert(mode) if mode in ("I;16", "F") else plain.convert(mode)).save(content, kind)
    except (OSError, ValueError, KeyError):
        return b""
    return content.getvalue()


def read(file: Path) -> None:
    """Read a file as a data set does."""
    try:
        header = read_header(file)
        if header is not None:
            pixels = decode(file, (16, 16), grey=header.grey, span=header.span or (0, 255))
            assert pixels.shape == (1 if header.grey else 3, 16, 16)
    except DataError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.long
@fuzz(150, deadline=20_000)
@given(data=st.data())
def test_damaged_images_are_read_or_refused(data: st.DataObject, place: Path) -> None:
    kind, mode = data.draw(st.sampled_from(WRITABLE)), data.draw(st.sampled_from(sorted(MODES)))
    content = bytearray(sample(kind, mode))
    for _ in range(data.draw(st.integers(0, 8)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    file = place / data.draw(st.sampled_from(["a.png", "a.jpg", "a.tif", "a"]))
    file.write_bytes(content[: cut or len(content)] + data.draw(st.binary(max_size=40)))
    read(file)


@fuzz(150, deadline=20_000)
@given(content=st.binary(max_size=400), name=st.sampled_from(["a.png", "a.gif", "a.webp", "a"]))
def test_random_bytes_are_refused(content: bytes, name: str, place: Path) -> None:
    (place / name).write_bytes(content)
    read(place / name)


def test_a_small_file_that_declares_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="12000 x 12000: at most 64,000,000 pixels are read"):
        read_header(tmp_path / "bomb.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_large_photo_is_decoded_at_a_lower_resolution(tmp_path: Path) -> None:
    wide = Image.new("L", (9000, 8000), 10)
    wide.paste(200, (4500, 0, 9000, 8000))
    wide.save(tmp_path / "photo.jpg")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pixels = decode(tmp_path / "photo.jpg", (64, 64), grey=False)
    assert read_header(tmp_path / "photo.jpg").size == (9000, 8000)
    assert abs(int(pixels[0, 32, 5]) - 10) <= 2
    assert abs(int(pixels[0, 32, 58]) - 200) <= 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
