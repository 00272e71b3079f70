"""Borders of WebSocket messages: told whole, byte by byte and in any pieces, and unsure when in doubt."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from proxy.http1.frames import (
    MAX_PAYLOAD,
    SERVICE_RESTART,
    FrameBorders,
    borders_after,
    close_frame,
)

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
EXTENSIONS = b"Sec-WebSocket-Extensions"


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes((size,))
    elif size < 0x10000:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes(((0x80 if fin else 0) | rsv | opcode,)) + length + payload


sizes = st.sampled_from([0, 1, 2, 125, 126, 127, 300, 65535, 65536, 70000])
payloads = sizes.map(bytes)
controls = st.builds(
    frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), fin=st.just(True)
)


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """The frames of one message, control frames between them."""
    count = draw(st.integers(1, 4))
    frames = []
    for index in range(count):
        opcode = draw(st.sampled_from([TEXT, BINARY])) if index == 0 else CONTINUATION
        frames.append(frame(opcode, draw(payloads), fin=index == count - 1))
        if index < count - 1 and draw(st.booleans()):
            frames.append(draw(controls))
    return frames


units = st.one_of(messages(), controls.map(lambda each: [each]))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, set[int], list[int]]:
    """Bytes, the places between two messages, and where to cut them into pieces."""
    whole = [b"".join(unit) for unit in draw(st.lists(units, max_size=5))]
    data = b"".join(whole)
    borders = {0, *accumulate(map(len, whole))}
    near = sorted(
        {min(len(data), max(0, b + d)) for b in borders for d in (-1, 0, 1, 2, 3, 9, 10, 11)}
    )
    cuts = draw(st.lists(st.sampled_from(near), max_size=12))
    return data, borders, sorted({*cuts, len(data)})


@given(streams())
def test_the_borders_are_known_in_whatever_pieces_the_bytes_come(
    stream: tuple[bytes, set[int], list[int]],
) -> None:
    data, borders, cuts = stream
    follower, at = FrameBorders(), 0
    for cut in cuts:
        follower.feed(data[at:cut])
        at = cut
        assert follower.is_between == (at in borders), at
    assert not follower.is_unsure


@given(streams(), st.data())
def test_the_first_border_is_found_in_whatever_pieces_the_bytes_come(
    stream: tuple[bytes, set[int], list[int]], choice: st.DataObject
) -> None:
    data, borders, cuts = stream
    start = choice.draw(st.sampled_from([0, *cuts]))
    follower, at = FrameBorders(), start
    follower.feed(data[:start])
    expected = min((border for border in borders if border > start), default=None)
    for cut in cuts:
        if cut <= start:
            continue
        found = follower.find(data[at:cut])
        if found >= 0:
            assert at + found == expected
            assert follower.is_between
            return
        at = cut
    assert expected is None


def test_every_byte_of_a_long_message_can_come_alone() -> None:
    whole = frame(BINARY, bytes(70_000), fin=False) + frame(PING, b"x") + frame(CONTINUATION, b"y")
    follower = FrameBorders()
    seen = []
    for at in range(len(whole)):
        follower.feed(whole[at : at + 1])
        if follower.is_between:
            seen.append(at + 1)
    assert seen == [len(whole)]


def test_a_message_in_fragments_has_no_border_inside_not_even_behind_a_ping() -> None:
    follower = FrameBorders()
    follower.feed(frame(TEXT, b"a", fin=False))
    assert not follower.is_between
    assert follower.find(frame(PING, b"") + frame(CONTINUATION, b"b", fin=False)) == -1
    last = frame(CONTINUATION, b"c")
    assert follower.find(last + frame(TEXT, b"d")) == len(last)


def test_a_frame_costs_nothing_but_its_head() -> None:
    follower = FrameBorders()
    follower.feed(b"\x82\x7f" + MAX_PAYLOAD.to_bytes(8, "big"))
    chunk = bytes(65536)
    for _ in range(MAX_PAYLOAD // len(chunk) // 2**16):  # a part of it is enough
        follower.feed(chunk)
    assert follower._left == MAX_PAYLOAD - MAX_PAYLOAD // 2**16
    assert follower._head == b""


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x81\x85" + bytes(9), id="masked"),
        pytest.param(b"\x81\xfe" + bytes(9), id="masked and long"),
        pytest.param(frame(3, b"x"), id="reserved opcode"),
        pytest.param(frame(11, b"x"), id="reserved control opcode"),
        pytest.param(frame(TEXT, b"x", rsv=0x40), id="RSV1 without an extension"),
        pytest.param(frame(TEXT, b"x", rsv=0x20), id="RSV2"),
        pytest.param(frame(CONTINUATION, b"x"), id="continuation of nothing"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), id="message in a message"),
        pytest.param(frame(PING, b"x", fin=False), id="control frame in fragments"),
        pytest.param(frame(PING, bytes(126)), id="long control frame"),
        pytest.param(b"\x81\x7e\x00\x7d" + bytes(125), id="length not the shortest, 16 bits"),
        pytest.param(b"\x81\x7f" + (65535).to_bytes(8, "big"), id="length not the shortest, 64"),
        pytest.param(b"\x81\x7f\x80" + bytes(7), id="length with the highest bit"),
        pytest.param(b"\x81\x7f" + (MAX_PAYLOAD + 1).to_bytes(8, "big"), id="absurd length"),
    ],
)
def test_what_a_client_must_refuse_makes_it_unsure_for_good(data: bytes) -> None:
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        follower = FrameBorders()
        for piece in pieces:
            follower.feed(piece)
        assert follower.is_unsure
        assert not follower.is_between
        assert follower.find(frame(TEXT, b"x")) == -1
        assert not follower.is_between


@given(st.binary(max_size=40))
def test_it_is_never_surer_than_a_real_client(data: bytes) -> None:
    """Where ours says that a message has ended, the client of another author has read whole frames."""
    follower = FrameBorders()
    follower.feed(data)
    if not follower.is_between:
        return
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    while not _at_end(reader):
        parsing = Frame.parse(reader.read_exact, mask=False, max_size=None)
        with pytest.raises(StopIteration):
            next(parsing)


def _at_end(reader: StreamReader) -> bool:
    try:
        next(reader.at_eof())
    except StopIteration as stop:
        return bool(stop.value)
    raise AssertionError("it waits for bytes after the end")


def test_after_the_servers_own_close_there_is_no_border() -> None:
    follower = FrameBorders()
    follower.feed(frame(TEXT, b"x") + frame(CLOSE, b"\x03\xe8"))
    assert follower.has_closed
    assert not follower.is_between
    assert follower.find(frame(TEXT, b"y")) == -1


def test_half_of_a_close_is_one_already() -> None:
    follower = FrameBorders()
    follower.feed(frame(CLOSE, b"\x03\xe8")[:3])
    assert follower.has_closed


def test_a_border_before_the_servers_close_is_found_first() -> None:
    follower = FrameBorders()
    whole = frame(TEXT, b"x")
    follower.feed(whole[:1])
    assert follower.find(whole[1:] + frame(CLOSE, b"")) == len(whole) - 1


# ---- extensions ----


def test_without_extensions_the_framing_is_sure_and_marks_are_not() -> None:
    follower = borders_after([b"Server", b": ", b"x", b"\r\n"])
    assert follower is not None
    follower.feed(frame(TEXT, b"x", rsv=0x40))
    assert follower.is_unsure


@pytest.mark.parametrize(
    "value",
    [
        b"permessage-deflate",
        b" Permessage-Deflate ; server_max_window_bits=12; client_no_context_takeover",
    ],
)
def test_compression_marks_the_first_frame_of_a_message_and_only_that(value: bytes) -> None:
    def follower() -> FrameBorders:
        found = borders_after([EXTENSIONS, b": ", value, b"\r\n"])
        assert found is not None
        return found

    sure = follower()
    sure.feed(frame(TEXT, b"x", rsv=0x40, fin=False) + frame(CONTINUATION, b"x"))
    assert sure.is_between
    for data in (
        frame(TEXT, b"x", rsv=0x40, fin=False) + frame(CONTINUATION, b"y", rsv=0x40),
        frame(PING, b"x", rsv=0x40),
        frame(TEXT, b"x", rsv=0x60),
    ):
        unsure = follower()
        unsure.feed(data)
        assert unsure.is_unsure


@pytest.mark.parametrize(
    "fields",
    [
        [EXTENSIONS, b": ", b"x-other", b"\r\n"],
        [EXTENSIONS, b": ", b"permessage-deflate, x-other", b"\r\n"],
        [EXTENSIONS, b": ", b"permessage-deflate, permessage-deflate", b"\r\n"],
        [EXTENSIONS, b": ", b'x; a="permessage-deflate, b"', b"\r\n"],
        [
            *(EXTENSIONS, b": ", b"permessage-deflate", b"\r\n"),
            *(EXTENSIONS.lower(), b": ", b"x-other", b"\r\n"),
        ],
    ],
)
def test_with_another_extension_nothing_is_followed(fields: list[bytes]) -> None:
    assert borders_after(fields) is None


# ---- our own Close ----


def test_a_close_is_one_frame_that_ends_the_stream() -> None:
    data = close_frame(SERVICE_RESTART, b"restart")
    follower = FrameBorders()
    follower.feed(data)
    assert follower.has_closed
    assert not follower.is_unsure
    reader = StreamReader()
    reader.feed_data(data)
    parsing = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as stop:
        next(parsing)
    assert stop.value.value == Frame(Opcode.CLOSE, b"\x03\xf4restart")
