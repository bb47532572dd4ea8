"""Image files of others: damaged ones end in one line, huge ones before they are unpacked."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nngen.datasets import load_dataset
from nngen.datasets.image_files.image_file import decode, read_header
from nngen.errors import DataError


def encoded(kind: str, mode: str = "RGB") -> bytes:
    pixels = np.random.RandomState(0).randint(0, 256, (9, 12, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, kind)
    return content.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few hundred bytes that states this size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "reason"),
    [((8_001, 8_000), "8001 x 8000: at most 64,000,000 pixels"), ((2**31 - 1, 2**31 - 1), "pixels|is broken")],
)
def test_a_huge_image_is_refused_before_it_is_unpacked(tmp_path: Path, size: tuple[int, int], reason: str) -> None:
    file = tmp_path / "huge.png"
    file.write_bytes(bomb(*size))
    for read in (lambda: read_header(file), lambda: decode(file, (8, 8), grey=False)):
        with pytest.raises(DataError, match=reason) as refused:
            read()
        assert "\n" not in str(refused.value)


def test_a_fifo_among_images_is_left_out_and_refused_by_itself(tmp_path: Path, cache: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "data" / label / f"{number}.png").write_bytes(encoded("PNG"))
    os.mkfifo(tmp_path / "data/a/pipe.png")
    assert len(load_dataset(f"folder:{tmp_path / 'data'}").train_images) == 12
    with pytest.raises(DataError, match="not a regular file"):
        read_header(tmp_path / "data/a/pipe.png")


def test_a_folder_whose_name_is_too_long_is_refused_in_one_line(cache: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset(f"folder:{'x' * 300}")
