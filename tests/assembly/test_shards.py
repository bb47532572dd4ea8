"""Compressed tar files that are resumed after their writer was killed."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from assembly_toys import GOLDEN

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


def test_cut_off_by_one_byte_a_frame_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.zst"
    write(path)
    whole = path.read_bytes()
    magic = struct.pack("<I", 0x184D2A50)
    starts = [place for place in range(len(whole)) if whole[place : place + 4] == magic]
    assert len(starts) == 6  # of four frames of two candidates, one of the last, and the end
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(whole)], strict=True)):
        for length, kept, position in ((end, end, 2 * number + 2), (end - 1, start, 2 * number)):
            path.write_bytes(whole[:length])
            with TarWriter(path, "order") as writer:
                assert (path.stat().st_size, writer.position) == (kept, min(position, 9))
                assert (writer.count, writer.finished) == (min(position, 9), kept == len(whole))
            assert path.read_bytes() == whole[:kept]


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


def test_its_bytes_are_those_of_a_tar_file(tmp_path: Path) -> None:
    path, expected = tmp_path / "all.tar.zst", io.BytesIO()
    write(path)
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for candidate in CANDIDATES:
            info = tarfile.TarInfo(f"{candidate.id}.py")
            info.size = len(candidate.source)
            tar.addfile(info, io.BytesIO(candidate.source.encode()))
        length = tar.offset
    stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes()), read_across_frames=True)
    assert stream.read() == expected.getvalue()[:length] + bytes(1024)


def test_its_frames_are_pairs_of_a_head_and_of_data_compressed_at_level_6(tmp_path: Path) -> None:
    """A writer that was killed goes on to the same bytes in a later version, too, if heads and level stay."""
    path, source = tmp_path / "all.tar.zst", (GOLDEN / "hetero.py").read_text()
    with TarWriter(path, "order", batch=1) as writer:
        writer.add(Candidate(id="MoE4-1", source=source, canonical=""))
        writer.reach(3)
        writer.reach(4)
        writer.finish()
    content, heads, compressor = path.read_bytes(), [], zstandard.ZstdCompressor(level=6)
    while content:
        magic, length = struct.unpack("<II", content[:8])
        assert magic == 0x184D2A50
        heads.append(json.loads(content[8 : 8 + length]))
        end = 8 + length + heads[-1].pop("bytes")
        frame, content = content[8 + length : end], content[end:]
        assert frame == compressor.compress(zstandard.ZstdDecompressor().decompress(frame))
    common = {"order": "order"}
    assert heads == [
        common | {"position": 3, "members": 1},
        common | {"position": 4, "members": 0},
        common | {"position": 4, "members": 0, "finished": True},
    ]


def test_a_full_frame_is_in_the_file_at_once_and_no_part_of_one(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.zst"
    with TarWriter(path, "order") as writer:
        for position in range(1, 258):
            assert writer.add(CANDIDATES[0]) is True
            writer.reach(position)
            assert (writer.position, writer.count) == ((0, 0) if position < 256 else (256, 256))
            assert (path.stat().st_size > 0) == (position >= 256)
    assert (writer.position, writer.count, writer.finished) == (257, 257, False)


def test_an_interrupted_writer_keeps_all_that_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.zst"
    with pytest.raises(KeyboardInterrupt), TarWriter(path, "order") as writer:
        writer.add(CANDIDATES[0])
        writer.reach(1)
        raise KeyboardInterrupt
    with TarWriter(path, "order") as writer:
        assert (writer.position, writer.count) == (1, 1)


def test_a_walk_that_passed_over_everything_is_not_walked_again(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.zst"
    with TarWriter(path, "order") as writer:
        writer.reach(3)
    with TarWriter(path, "order") as writer:
        assert (writer.position, writer.count) == (3, 0)


@pytest.mark.parametrize(("length", "position"), [(4096, 5), (4097, 0)])
def test_a_head_is_read_up_to_4096_bytes(tmp_path: Path, length: int, position: int) -> None:
    path = tmp_path / "all.tar.zst"
    head: dict[str, Any] = {"order": "", "bytes": 0, "position": 5, "members": 0}
    head["order"] = "o" * (length - len(json.dumps(head)))
    path.write_bytes(struct.pack("<II", 0x184D2A50, length) + json.dumps(head).encode())
    with TarWriter(path, head["order"]) as writer:
        assert writer.position == position


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Files that were opened by their paths."""
    files: list[Any] = []
    opener = Path.open

    def recorded(path: Path, *arguments: Any, **names: Any) -> Any:
        files.append(opener(path, *arguments, **names))
        return files[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", recorded)
        yield files


def test_the_file_is_closed_whatever_happens(tmp_path: Path, opened: list[Any]) -> None:
    path = tmp_path / "all.tar.zst"
    with TarWriter(path, "order") as writer:
        writer.reach(1)
        assert not opened[0].closed
    with pytest.raises(ZeroDivisionError), TarWriter(path, "order"):
        raise ZeroDivisionError
    with pytest.raises(UsageError):
        TarWriter(path, "another order")
    assert [file.closed for file in opened] == [True, True, True]
