"""HTTP through a real proxy: framing, interim answers, uploads, upgrades and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect

from tests.e2e.stage import Stage, Turnout, wait_until
from tests.e2e.wire import Wire, request_bytes

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def turnout(module_stage: Stage) -> Iterator[Turnout]:
    blue = module_stage.origin("blue", "v41")
    turnout = module_stage.turnout(
        blue,
        module_stage.origin("green", "v42"),
        workers=1,
        timeouts={"client_body": "2s"},
    )
    yield turnout
    assert blue.malformed() == [], "the proxy sent its endpoint something malformed"


# ---- the request's way ----


async def test_the_endpoint_is_told_who_asked_and_by_which_way(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        answer = await wire.request(
            "/headers?a=%20b&c=//d",
            headers={
                "X-Forwarded-For": "6.6.6.6",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-Host": "evil.example",
                "X-Request-ID": "chosen-by-the-client",
                "X-Mixed-Case": "kept",
                "Connection": "X-Secret-Hop, Host, Cookie",
                "X-Secret-Hop": "1",
                "Keep-Alive": "timeout=5",
                "TE": "gzip",
                "Cookie": "c=1",
            },
        )
    got = answer.json()
    assert got["line"] == "GET /headers?a=%20b&c=//d"
    names = [name.lower() for name, _ in got["headers"]]
    values = {name.lower(): value for name, value in got["headers"]}
    assert len(names) == len(set(names)), f"a header came twice: {names}"
    assert values["host"] == "shop.example.com"
    assert values["x-forwarded-for"] == "127.0.0.1"
    assert values["x-forwarded-proto"] == "http"
    assert values["x-forwarded-host"] == "shop.example.com"
    assert values["x-forwarded-port"]
    assert values["via"] == "1.1 turnout"
    assert values["x-request-id"] not in {"", "chosen-by-the-client"}
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", values["traceparent"])
    assert values["x-turnout-pool"] == "blue"
    assert values["x-turnout-release"] == "v41"
    assert values["cookie"] == "c=1"
    assert not {"x-secret-hop", "keep-alive"} & set(names)


async def test_a_traceparent_is_passed_on(turnout: Turnout) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with await Wire.to(turnout.port) as wire:
        answer = await wire.request("/headers", headers={"traceparent": trace})
    assert ["traceparent", trace] in [[n.lower(), v] for n, v in answer.json()["headers"]]


async def test_an_absolute_target_names_the_host(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        await wire.send(b"GET http://other.example/headers?x=1 HTTP/1.1\r\nHost: wrong\r\n\r\n")
        got = (await wire.answer()).json()
    assert got["line"] == "GET /headers?x=1"
    assert ["host", "other.example"] in [[n.lower(), v] for n, v in got["headers"]]


async def test_options_star_is_passed_on_as_it_is(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        assert (await wire.request("*", method="OPTIONS")).status == 200


# ---- keep-alive, pipelining, framing of answers ----


async def test_a_connection_carries_many_requests_of_every_kind(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        for _ in range(3):
            assert (await wire.request("/who")).framing == "length"
            assert (await wire.request("/who", method="HEAD")).body == b""
            assert (await wire.request("/status?code=204")).framing == "none"
            assert (await wire.request("/status?code=304")).header("etag") == '"e"'
            assert (await wire.request("/status?code=205")).status == 205
            echoed = await wire.request("/echo", method="POST", body=b"x" * 1000)
            assert echoed.json()["length"] == 1000
            empty = await wire.request("/echo", method="POST", body=b"")
            assert empty.json()["length"] == 0


async def test_pipelined_requests_are_answered_in_order(turnout: Turnout) -> None:
    paths = ["/slow?s=0.3", "/who", "/chunked", "/status?code=204", "/big?bytes=100000", "/who"]
    posted = request_bytes("/echo", method="POST", body=b"p" * 500)
    async with await Wire.to(turnout.port) as wire:
        await wire.send(b"".join(request_bytes(path) for path in paths) + posted)
        answers = [await wire.answer() for _ in paths] + [await wire.answer("POST")]
    assert [answer.status for answer in answers] == [200, 200, 200, 204, 200, 200, 200]
    assert answers[2].body == b"hello, world"
    assert len(answers[4].body) == 100_000
    assert answers[6].json()["length"] == 500


async def test_a_request_byte_by_byte_is_one_request(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        for byte in request_bytes("/echo", method="POST", body=b"slowly"):
            await wire.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await wire.answer("POST")).json()["length"] == 6


async def test_trailers_pass_both_ways(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        answer = await wire.request("/chunked", headers={"TE": "trailers"})
        assert answer.trailers == [("x-sum", "12")]
        await wire.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n"
            b"\r\n4\r\nbody\r\n0\r\nX-Check: right\r\n\r\n"
        )
        echoed = (await wire.answer()).json()
    assert echoed["chunked"]
    assert [[n.lower(), v] for n, v in echoed["trailers"]] == [["x-check", "right"]]


async def test_a_body_to_the_end_of_the_connection_arrives_whole(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        assert (await wire.request("/close")).body == b"to the end of the connection"


async def test_http_1_0_is_answered_in_its_way(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        await wire.send(b"GET /chunked HTTP/1.0\r\nHost: a\r\n\r\n")
        raw = await wire.rest()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"chunked" not in head.lower()
    assert body == b"hello, world"


# ---- interim answers ----


async def test_early_hints_pass_before_the_answer(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        answer = await wire.request("/hints")
        assert [one.status for one in answer.interim] == [103]
        assert answer.interim[0].header("link") == "</style.css>; rel=preload"
        assert answer.status == 200
        assert (await wire.request("/who")).status == 200


async def test_expect_100_continue_is_the_endpoints_to_answer(turnout: Turnout) -> None:
    head = "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    async with await Wire.to(turnout.port) as wire:
        await wire.send(head.format("/continue").encode())
        assert (await wire.head()).status == 100
        await wire.send(b"hello")
        answer = await wire.answer("POST")
        assert (answer.status, answer.json()["length"]) == (200, 5)
        assert answer.interim == []
    async with await Wire.to(turnout.port) as wire:
        await wire.send(head.format("/unwanted").encode())
        answer = await wire.answer("POST")
        assert (answer.status, answer.interim) == (417, [])


# ---- bodies ----


async def test_an_upload_of_tens_of_megabytes_flows_with_bounded_memory(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        await wire.request("/echo", method="POST", body=b"w" * MIB)  # buffers made once
        before = turnout.rss_kib()
        block = bytes(range(256)) * 4096
        digest = hashlib.sha256()
        await wire.send(
            f"POST /late?s=1 HTTP/1.1\r\nHost: a\r\nContent-Length: {40 * MIB}\r\n\r\n".encode()
        )
        peak = before
        for _ in range(40):
            digest.update(block)
            await wire.send(block)
            peak = max(peak, turnout.rss_kib())
        echoed = (await wire.answer("POST")).json()
    assert (echoed["length"], echoed["sha256"]) == (40 * MIB, digest.hexdigest())
    assert peak - before < 8 * 1024, f"{peak - before} KiB more for one upload"


async def test_a_slow_reader_does_not_grow_the_proxy(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        await wire.request("/big?bytes=1000000")
        before = turnout.rss_kib()
        await wire.send(request_bytes(f"/big?bytes={64 * MIB}"))
        head = await wire.head()
        await asyncio.sleep(0.5)  # the reader is slow: that is what is tested, nothing is awaited
        peak = turnout.rss_kib()
        left = int(str(head.header("content-length")))
        assert left == 64 * MIB
        assert peak - before < 8 * 1024, f"{peak - before} KiB more for one slow reader"
        wire.close()


async def test_bodies_flow_both_ways_at_once(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        await wire.send(b"POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await wire.head()).status == 200
        for number in range(20):
            piece = b"piece %d" % number
            await wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            assert await wire.chunk() == piece
        await wire.send(b"0\r\n\r\n")
        assert await wire.chunk() == b""


async def test_events_arrive_one_by_one_as_they_are_sent(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        began_s = time.monotonic()
        await wire.send(request_bytes("/stream?s=1&every=0.1"))
        assert (await wire.head()).header("content-type") == "text/event-stream"
        arrived = []
        while piece := await wire.chunk():
            arrived.append(time.monotonic() - began_s)
            assert json.loads(piece.removeprefix(b"data: "))["n"] == len(arrived) - 1
        assert len(arrived) >= 9
        assert arrived[-1] - arrived[0] > 0.4, "not all of them in the end"


async def test_an_answer_before_the_end_of_the_body_reaches_the_client(turnout: Turnout) -> None:
    async with await Wire.to(turnout.port) as wire:
        await wire.send(
            b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 10_000
        )
        answer = await wire.answer("POST")
    assert (answer.status, answer.body) == (413, b"too much")
    async with await Wire.to(turnout.port) as wire:
        assert (await wire.request("/who")).status == 200


async def test_a_client_that_goes_away_frees_its_endpoint(turnout: Turnout) -> None:
    for path in ("/slow?s=60", "/stream?s=60"):
        async with await Wire.to(turnout.port) as wire:
            await wire.send(request_bytes(path))
            await asyncio.to_thread(
                wait_until, lambda: turnout.metric("turnout_in_flight") == 1, "it is in flight"
            )
        await asyncio.to_thread(
            wait_until,
            lambda: turnout.metric("turnout_in_flight") == 0,
            "nothing is in flight any more",
        )


# ---- upgrades ----


async def test_a_websocket_is_a_tunnel(turnout: Turnout) -> None:
    async with connect(f"ws://127.0.0.1:{turnout.port}/ws", proxy=None, max_size=None) as socket:
        assert json.loads(await socket.recv())["pool"] == "blue"
        for message in ("text", b"\x00\xff", "long " * 5000):
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
    assert socket.close_code == 1000


async def test_h2c_is_not_offered_to_the_endpoint(turnout: Turnout) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMA"}
    async with await Wire.to(turnout.port) as wire:
        answer = await wire.request("/headers", headers=headers)
        names = {name.lower() for name, _ in answer.json()["headers"]}
        assert not {"upgrade", "http2-settings"} & names


# ---- refusals ----

REFUSED = {
    "length and coding": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabcd",
    "a signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    "a hexadecimal length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
    "coding before chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n"
    b"\r\n0\r\n\r\n",
    "coding after chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n"
    b"\r\n0\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "coding on 1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF in headers": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n  2\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a list of Hosts": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "control byte": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "control byte in the target": b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "a request line without a version": b"GET /x\r\nHost: a\r\n\r\n",
    "no header name": b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    "a chunk size that is none": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"\r\n-1\r\n\r\n",
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_can_be_read_two_ways_is_refused_and_the_connection_closed(
    turnout: Turnout, case: str
) -> None:
    async with await Wire.to(turnout.port) as wire:
        await wire.send(REFUSED[case] + request_bytes("/who"))
        raw = await wire.rest()
    assert re.match(rb"HTTP/1\.1 (400|505|501) ", raw), raw[:200]
    assert raw.count(b"HTTP/1.1 ") == 1, "something was answered after the refusal"


async def test_over_a_limit_is_414_or_431_or_413(module_stage: Stage) -> None:
    turnout = module_stage.turnout(
        module_stage.origin("blue"), [], workers=1, limits={"max_body": "1KiB"}
    )
    long = "x" * 40_000
    cases = {
        414: request_bytes(f"/{long}"),
        431: request_bytes("/", headers={"X-Long": long}),
        413: request_bytes("/echo", method="POST", body=b"x" * 1025),
    }
    for status, raw in cases.items():
        async with await Wire.to(turnout.port) as wire:
            await wire.send(raw)
            assert (await wire.answer()).status == status
    many = {f"X-{number}": "1" for number in range(120)}
    async with await Wire.to(turnout.port) as wire:
        assert (await wire.request("/", headers=many)).status == 431
        chunks = b"400\r\n" + b"x" * 1024 + b"\r\n1\r\nx\r\n0\r\n\r\n"
    async with await Wire.to(turnout.port) as wire:
        await wire.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        )
        assert (await wire.answer()).status == 413
    async with await Wire.to(turnout.port) as wire:
        small = await wire.request("/echo", method="POST", body=b"x" * 1024)
        assert small.status == 200


async def test_too_slow_is_408(module_stage: Stage) -> None:
    turnout = module_stage.turnout(
        module_stage.origin("blue"), [], start=False, workers=1, timeouts={"client_body": "1s"}
    )
    turnout.config["listeners"][0]["timeouts"] = {"header": "1s", "idle": "2s"}
    turnout.write(turnout.config)
    turnout.start()
    async with await Wire.to(turnout.port) as wire:
        await wire.send(b"GET / HTTP/1.1\r\nHost:")
        assert (await wire.answer()).status == 408
    async with await Wire.to(turnout.port) as wire:
        await wire.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        assert (await wire.answer()).status == 408
    async with await Wire.to(turnout.port) as wire:
        await wire.request("/who")
        began_s = time.monotonic()
        assert await wire.is_closed(), "an idle connection is closed without a word"
        assert 1.8 < time.monotonic() - began_s < 12


async def test_no_route_is_404_with_the_proxys_own_words(module_stage: Stage) -> None:
    turnout = module_stage.turnout(
        module_stage.origin("blue"), [], routes=[{"host": "*.example.com", "path": "/api"}]
    )
    async with await Wire.to(turnout.port) as wire:
        assert (await wire.request("/api/who")).status == 200
        assert (await wire.request("/api")).status == 200
        for path, host in (("/apix", "shop.example.com"), ("/api", "example.org"), ("/", "x")):
            answer = await wire.request(path, headers={"Host": host})
            assert answer.status == 404
            assert str(answer.header("proxy-status")).startswith("turnout; error=")
            assert answer.header("x-request-id")
            assert not answer.closes


async def test_a_trusted_peer_is_believed(module_stage: Stage) -> None:
    turnout = module_stage.turnout(module_stage.origin("blue"), [], start=False)
    turnout.config["listeners"][0]["trusted_proxies"] = ["127.0.0.0/8"]
    turnout.write(turnout.config)
    turnout.start()
    async with await Wire.to(turnout.port) as wire:
        sent = {
            "X-Forwarded-For": "203.0.113.7",
            "X-Forwarded-Proto": "https",
            "X-Request-ID": "kept-1",
        }
        got = (await wire.request("/headers", headers=sent)).json()["headers"]
    values = {name.lower(): value for name, value in got}
    assert values["x-forwarded-for"] == "203.0.113.7, 127.0.0.1"
    assert values["x-forwarded-proto"] == "https"
    assert values["x-request-id"] == "kept-1"
