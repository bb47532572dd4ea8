"""The wire: any cut of the stream gives the same frames, and nothing longer than allowed is ever held."""

import itertools
import json
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nngen.isolation.protocol import MAX_JSON, Channel, Frame, FrameError, FrameReader, Kind

SIZES = {Kind.VALIDATION: 6, Kind.TEST: 4}


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
        st.builds(Frame, st.just(Kind.MESSAGE), st.binary(max_size=200)),
        st.builds(Frame, st.just(Kind.VALIDATION), st.binary(min_size=6, max_size=6)),
        st.builds(Frame, st.just(Kind.TEST), st.binary(min_size=4, max_size=4)),
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
    [(0, 1), (9, 1), (Kind.MESSAGE, MAX_JSON + 1), (Kind.VALIDATION, 5), (Kind.VALIDATION, 8), (Kind.TEST, 2**32 - 1)],
)
def test_a_wrong_head_is_refused_before_its_body_comes(kind, length):
    with pytest.raises(FrameError):
        list(FrameReader(SIZES).feed(struct.pack("<B3xI", kind, length)))


def test_predictions_that_nobody_waits_for_are_refused():
    with pytest.raises(FrameError, match="validation frame"):
        list(FrameReader({}).feed(struct.pack("<B3xI", Kind.VALIDATION, 0)))


@pytest.mark.parametrize("body", [b"", b"[1]", b"nonsense", b"\xff", b"[" * 60_000, b"1" * 60_000])
def test_a_message_is_a_json_object(body):
    with pytest.raises(FrameError):
        Frame(Kind.MESSAGE, body).message()


def test_numbers_that_json_does_not_have_become_none():
    assert Frame(Kind.MESSAGE, b'{"a": NaN, "b": -Infinity}').message() == {"a": None, "b": None}
    with pytest.raises(ValueError, match="JSON compliant"):
        Channel(0).send({"a": float("nan")})
    assert json.loads('{"a": 1}') == Frame(Kind.MESSAGE, b'{"a": 1}').message()
