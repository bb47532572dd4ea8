"""Compressed tar files that are resumed after their writer was killed."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from pathlib import Path

import pytest
import zstandard

from nngen.assembly.output import TarWriter
from nngen.errors import UsageError
from nngen.types import Candidate

CANDIDATES = [Candidate(id=f"MoE4-{n:032x}", source=f"x = {n}\n" * (40 * n + 1), canonical=str(n)) for n in range(9)]


def write(path: Path, *, stop: int | None = None, passed_over: int | None = None) -> TarWriter:
    """Write the missing candidates; ``stop`` ends the writer before that candidate."""
    with TarWriter(path, "order", batch=2) as writer:
        for position, candidate in list(enumerate(CANDIDATES, 1))[writer.position :]:
            if position - 1 == stop:
                return writer
            if position - 1 != passed_over:
                writer.add(candidate)
            writer.reach(position)
        if not writer.finished:
            writer.finish()
    return writer


def read(path: Path) -> dict[str, str]:
    stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes()), read_across_frames=True)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        found = {}
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read().decode()
        return found


def test_it_is_a_tar_that_any_decoder_reads(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "all.tar.zst"
    writer = write(path)
    assert writer.finished and writer.count == 9
    assert read(path) == {f"{candidate.id}.py": candidate.source for candidate in CANDIDATES}


def test_cut_off_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.zst"
    write(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        write(path)
        assert path.read_bytes() == whole, length


def test_a_finished_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.zst"
    write(path)
    before = path.read_bytes()
    writer = write(path)
    assert (writer.position, writer.count, writer.finished) == (9, 9, True)
    assert path.read_bytes() == before


def test_what_was_passed_over_stays_out(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.zst"
    write(path, stop=6, passed_over=3)
    writer = write(path)
    assert (writer.position, writer.count) == (9, 8)
    assert len(read(path)) == 8


def test_an_error_loses_the_last_frame_only(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.zst"
    with pytest.raises(ZeroDivisionError), TarWriter(path, "order", batch=2) as writer:
        for position, candidate in enumerate(CANDIDATES[:3], 1):
            writer.add(candidate)
            writer.reach(position)
        raise ZeroDivisionError
    with TarWriter(path, "order", batch=2) as writer:
        assert writer.position == 2


def test_another_order_and_another_s_file_are_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.zst"
    write(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"all.tar.zst was begun with other families or another plan"):
        TarWriter(path, "another order")
    assert path.read_bytes() == before
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="was not written by nngen"):
        TarWriter(path, "order")
    assert path.read_bytes() == b"mine"
    with pytest.raises(UsageError, match=r"cannot write .*; choose another place with --out"):
        TarWriter(tmp_path, "order")


@pytest.mark.parametrize(
    "head",
    [
        '{"order": "order", "bytes": -50, "position": 1, "members": 1}',
        '{"order": "order", "bytes": 0, "position": "x", "members": 1}',
        '{"order": ["order"], "bytes": 0, "position": 1, "members": 1}',
        "[" * 4000,
        "[]",
        "7",
    ],
)
def test_a_head_that_nngen_did_not_write_ends_the_reading(tmp_path: Path, head: str) -> None:
    path = tmp_path / "all.tar.zst"
    path.write_bytes(struct.pack("<II", 0x184D2A50, len(head)) + head.encode())
    with TarWriter(path, "order") as writer:
        assert (writer.position, writer.count) == (0, 0)


def test_a_fifo_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "all.tar.zst")
    with pytest.raises(UsageError, match="cannot write"):
        TarWriter(tmp_path / "all.tar.zst", "order")
