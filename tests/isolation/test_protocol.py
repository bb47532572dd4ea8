"""Frames: independent of the chunks of the stream, and limited in length."""

import itertools
import json
import os
import struct

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from nngen.isolation.protocol import MAX_MESSAGE, MESSAGE, Channel, Frame, FrameError, FrameReader

EXACT, BOUNDED = 2, 3
SIZES = {EXACT: range(6, 7), BOUNDED: range(5)}


def _written(frames):
    reader, writer = os.pipe()
    channel = Channel(writer)
    for frame in frames:
        channel.send_bytes(frame.kind, frame.body)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        return file.read()


FRAMES = st.lists(
    st.one_of(
        st.builds(Frame, st.just(MESSAGE), st.binary(max_size=200)),
        st.builds(Frame, st.just(EXACT), st.binary(min_size=6, max_size=6)),
        st.builds(Frame, st.just(BOUNDED), st.binary(max_size=4)),
    ),
    max_size=6,
)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 300)))
def test_any_cut_of_the_stream_gives_the_same_frames(frames, cuts):
    data = _written(frames)
    marks = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    reader = FrameReader(SIZES)
    parts = [data[start:end] for start, end in itertools.pairwise(marks)]
    assert [frame for part in parts for frame in reader.feed(part)] == frames


@pytest.mark.parametrize(
    ("kind", "length"),
    [(0, 1), (9, 1), (MESSAGE, MAX_MESSAGE + 1), (EXACT, 5), (EXACT, 8), (BOUNDED, 5), (BOUNDED, 2**32 - 1)],
)
def test_a_wrong_head_is_refused_before_its_body_comes(kind, length):
    with pytest.raises(FrameError):
        list(FrameReader(SIZES).feed(struct.pack("<B3xI", kind, length)))


def test_a_message_has_65_536_bytes_at_most():
    body = b"x" * 65_536
    assert list(FrameReader({}).feed(struct.pack("<B3xI", MESSAGE, 65_536) + body)) == [Frame(MESSAGE, body)]
    with pytest.raises(FrameError, match=r"^a frame of kind 1 with 65537 bytes$"):
        list(FrameReader({}).feed(struct.pack("<B3xI", MESSAGE, 65_537)))


def test_a_kind_that_the_job_did_not_declare_is_refused():
    with pytest.raises(FrameError, match="unknown kind 2"):
        list(FrameReader({}).feed(struct.pack("<B3xI", EXACT, 0)))


@pytest.mark.parametrize("body", [b"", b"[1]", b"nonsense", b"\xff", b"[" * 60_000, b"1" * 60_000])
def test_a_message_is_a_json_object(body):
    with pytest.raises(FrameError):
        Frame(MESSAGE, body).message()
    with pytest.raises(FrameError, match="where a message was expected"):
        Frame(EXACT, b"{}").message()


def test_numbers_that_json_does_not_have_become_none():
    assert Frame(MESSAGE, b'{"a": NaN, "b": -Infinity}').message() == {"a": None, "b": None}
    with pytest.raises(ValueError, match="JSON compliant"):
        Channel(0).send({"a": float("nan")})
    assert json.loads('{"a": 1}') == Frame(MESSAGE, b'{"a": 1}').message()


@fuzz(200)
@given(data=st.binary(max_size=200), head=st.sampled_from([b"", *(struct.pack("<B3xI", kind, 6) for kind in range(4))]))
def test_any_bytes_are_frames_and_messages_or_are_refused(data, head):
    try:
        for frame in FrameReader(SIZES).feed(head + data):
            assert len(frame.body) in (*SIZES.get(frame.kind, ()), *(range(193) if frame.kind == MESSAGE else ()))
            assert isinstance(frame.message(), dict)
    except FrameError as error:
        assert "\n" not in str(error)
