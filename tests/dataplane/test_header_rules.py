"""Header rules and left-out prefixes, as the bytes on both sides show them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy import stats
from proxy.dataplane.header_rules import AnswerRules, RequestRules, answer_rules, request_rules
from proxy.http1.message import RequestHead
from proxy.model import WHOLE, HeaderRules, Hold, Pool, Retries, Route, Service, Sticky
from tests.dataplane.box import OK, Box, Peer, until
from tests.e2e.wire import request_bytes


class Recording:
    """Answers every request with `answer`, and keeps what it read."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.heads: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.heads.append(await peer.request())
            await peer.send(self.answer)

    def lines(self, index: int = -1) -> list[bytes]:
        return self.heads[index].partition(b"\r\n\r\n")[0].split(b"\r\n")

    def values(self, name: bytes, index: int = -1) -> list[bytes]:
        split = [line.partition(b": ") for line in self.lines(index)[1:]]
        return [value for key, _, value in split if key.lower() == name]


def rules(*remove: str, **set_: str) -> HeaderRules:
    lines = tuple((name.replace("_", "-"), value) for name, value in set_.items())
    return HeaderRules(set=lines, remove=remove)


async def serving(box: Box, answer: bytes = OK, **service: Any) -> Recording:
    recording = Recording(answer)
    await box.serve(await box.endpoint(recording), **service)
    return recording


# ---- requests ----


async def test_a_requests_headers_are_removed_and_set_whatever_their_case(box: Box) -> None:
    recording = await serving(
        box, request_headers=rules("x-secret", "ACCEPT-ENCODING", X_Mode="front", User_Agent="me")
    )
    wire = await box.client()
    for _ in range(3):  # from the third on the head is a known one
        await wire.request(
            "/",
            headers={
                "X-SECRET": "1",
                "Accept-Encoding": "gzip",
                "x-mode": "client",
                "X-Kept": "yes",
                "user-agent": "curl",
            },
        )
        assert recording.values(b"x-secret") == []
        assert recording.values(b"accept-encoding") == []
        assert recording.values(b"x-mode") == [b"front"]
        assert recording.values(b"user-agent") == [b"me"]
        assert recording.values(b"x-kept") == [b"yes"]


async def test_every_field_of_a_name_goes_and_its_look_alikes_too(box: Box) -> None:
    recording = await serving(box, request_headers=rules("X-User-Id", X_Group="staff"))
    wire = await box.client()
    await wire.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-User-Id: 1\r\nX_User_Id: 2\r\nx-user_id: 3\r\n"
        b"X-User-Id: 4\r\nX_GROUP: root\r\nX-User-Ids: kept\r\n\r\n"
    )
    await wire.answer()
    text = b"\n".join(recording.lines()).lower().replace(b"_", b"-")
    assert b"x-user-id:" not in text
    assert text.count(b"x-group:") == 1
    assert recording.values(b"x-group") == [b"staff"]
    assert recording.values(b"x-user-ids") == [b"kept"]


async def test_host_may_be_set_while_the_client_s_own_is_told_beside_it(box: Box) -> None:
    recording = await serving(
        box, request_headers=rules(Host="inside.example:81"), routes=(Route(host="shop.example"),)
    )
    wire = await box.client()
    assert (await wire.request("/", headers={"Host": "shop.example"})).status == 200
    assert recording.values(b"host") == [b"inside.example:81"]
    assert recording.values(b"x-forwarded-host") == [b"shop.example"]
    assert (await wire.request("/", headers={"Host": "inside.example:81"})).status == 404


async def test_removed_cookies_are_still_good_for_stickiness(box: Box) -> None:
    sticky = Sticky(by="cookie", name="turnout", keys=("00" * 32,))
    recording = await serving(box, request_headers=rules("Cookie", "Authorization"), sticky=sticky)
    wire = await box.client()
    first = await wire.request("/", headers={"Cookie": "a=b", "Authorization": "Basic x"})
    bound = (first.header("set-cookie") or "").partition(";")[0]
    assert bound.startswith("turnout=")
    again = await wire.request("/", headers={"Cookie": f"a=b; {bound}"})
    assert again.header("set-cookie") is None
    for index in (0, 1):
        assert recording.values(b"cookie", index) == []
        assert recording.values(b"authorization", index) == []


async def test_a_cookie_that_is_set_takes_the_place_of_the_clients(box: Box) -> None:
    recording = await serving(box, request_headers=rules(Cookie="front=1"))
    await (await box.client()).request("/", headers={"Cookie": "a=b"})
    assert recording.values(b"cookie") == [b"front=1"]


async def test_a_requests_trailers_obey_as_well(box: Box) -> None:
    read: list[bytes] = []

    async def play(peer: Peer) -> None:
        read.append(await peer.reader.readuntil(b"\r\n\r\n"))
        read.append(await peer.reader.readuntil(b"\r\n\r\n"))
        await peer.send(OK)

    await box.serve(await box.endpoint(play), request_headers=rules("X-Gone", X_Set="1"))
    wire = await box.client()
    await wire.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-Gone: 1\r\nX_Set: 2\r\nX-Kept: 3\r\n\r\n"
    )
    assert (await wire.answer()).status == 200
    assert read[1] == b"2\r\nhi\r\n0\r\nX-Kept: 3\r\n\r\n"


async def test_trailers_of_a_request_that_waits_for_its_turn_obey_too(box: Box) -> None:
    read: list[bytes] = []

    async def play(peer: Peer) -> None:
        for _ in range(2):
            read.append(await peer.reader.readuntil(b"\r\n\r\n"))
            if b"chunked" in read[-1]:
                read.append(await peer.reader.readuntil(b"\r\n\r\n"))
            await peer.send(OK)

    await box.serve(await box.endpoint(play), request_headers=rules("X-Gone"))
    wire = await box.client()
    await wire.send(
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-Gone: 1\r\nX-Kept: 3\r\n\r\n"
    )
    assert [(await wire.answer()).status for _ in range(2)] == [200, 200]
    assert read[2] == b"2\r\nhi\r\n0\r\nX-Kept: 3\r\n\r\n"


async def test_a_retry_carries_the_rules_once_more_and_once_only(box: Box) -> None:
    heads: list[bytes] = []

    async def dies(peer: Peer) -> None:
        heads.append(await peer.request())
        peer.abort()

    good = Recording()
    await box.serve(
        await box.endpoint(dies),
        await box.endpoint(good),
        retry=Retries(attempts=1),
        routes=(Route(path="/api", strip_prefix=True),),
        request_headers=rules("X-Gone", X_Set="1"),
    )
    box.grant(100)
    for _ in range(40):
        wire = await box.client()
        answer = await wire.request("/api/x", headers={"X-Gone": "1"})
        assert answer.status == 200
        if heads:
            break
    assert heads, "no request has met the failing endpoint"
    for head in (heads[0], good.heads[-1]):
        assert head.startswith(b"GET /x HTTP/1.1\r\n")
        assert head.count(b"X-Set: 1\r\n") == 1
        assert head.count(b"X-Forwarded-Prefix: /api\r\n") == 1
        assert b"X-Gone" not in head


async def test_rules_are_followed_by_the_next_request_of_an_open_connection(box: Box) -> None:
    recording = Recording()
    endpoint = await box.endpoint(recording)
    await box.serve(endpoint)
    wire = await box.client()
    await wire.request("/", headers={"X-A": "1"})
    await box.serve(endpoint, request_headers=rules("X-A"), response_headers=rules(X_New="1"))
    answer = await wire.request("/", headers={"X-A": "1"})
    assert recording.values(b"x-a") == []
    assert answer.header("x-new") == "1"
    await box.serve(endpoint)
    answer = await wire.request("/", headers={"X-A": "1"})
    assert recording.values(b"x-a") == [b"1"]
    assert answer.header("x-new") is None


# ---- answers ----

RICH = (
    b"Server: app/1.0\r\nX-Powered-By: magic\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
    b"X-Frame-Options: SAMEORIGIN\r\nX-Server: kept\r\n"
)
ANSWER_RULES = rules("server", "X-POWERED-BY", "Set-Cookie", x_frame_options="DENY", X_New="1")
WHOLE_ANSWER = b"HTTP/1.1 200 OK\r\n" + RICH + b"Content-Length: 2\r\n\r\nok"
CHUNKED_ANSWER = (
    b"HTTP/1.1 200 OK\r\n" + RICH + b"Transfer-Encoding: chunked\r\n\r\n"
    b"2\r\nok\r\n0\r\nServer: late\r\nX-Sum: 1\r\n\r\n"
)
TO_END_ANSWER = b"HTTP/1.0 200 OK\r\n" + RICH + b"\r\nok"


@pytest.mark.parametrize("answer", [WHOLE_ANSWER, CHUNKED_ANSWER])
async def test_an_answers_headers_are_removed_and_set_however_it_is_framed(
    box: Box, answer: bytes
) -> None:
    await serving(box, answer, response_headers=ANSWER_RULES)
    wire = await box.client()
    for _ in range(3):  # the second is an answer whose head is known
        got = await wire.request("/")
        assert (got.status, got.body) == (200, b"ok")
        assert got.header("server") is None
        assert got.header("x-powered-by") is None
        assert got.header("set-cookie") is None
        assert got.all("x-frame-options") == ["DENY"]
        assert got.all("x-new") == ["1"]
        assert got.header("x-server") == "kept"
        assert got.trailers == ([("x-sum", "1")] if got.framing == "chunked" else [])


async def test_so_are_those_of_an_answer_until_the_end_and_for_old_clients(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.send(TO_END_ANSWER)

    await box.serve(await box.endpoint(play), response_headers=ANSWER_RULES)
    wire = await box.client()
    await wire.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    got = await wire.answer()
    assert got.header("server") is None
    assert got.all("x-frame-options") == ["DENY"]
    assert got.body == b"ok"


async def test_an_answer_without_anything_to_remove_is_still_added_to(box: Box) -> None:
    await serving(box, response_headers=rules(X_New="1"))
    got = await (await box.client()).request("/")
    assert got.headers[-2:] == [("x-new", "1"), ("via", "1.1 turnout")]


async def test_the_cookie_that_binds_the_client_is_ours_and_stays(box: Box) -> None:
    sticky = Sticky(by="cookie", name="turnout", keys=("00" * 32,))
    await serving(box, WHOLE_ANSWER, response_headers=rules("Set-Cookie"), sticky=sticky)
    cookies = (await (await box.client()).request("/")).all("set-cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["turnout"]


async def test_the_101_of_an_upgrade_obeys_and_interim_answers_are_left_alone(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 103 Early Hints\r\nServer: hint\r\n\r\n"
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n"
            b"Server: app\r\nX-Kept: 1\r\n\r\nhello"
        )
        await peer.gone()

    await box.serve(await box.endpoint(play), response_headers=rules("Server", X_New="1"))
    wire = await box.client()
    await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
    got = await wire.answer()
    assert got.status == 101
    assert got.interim[0].header("server") == "hint"
    assert got.interim[0].header("x-new") is None
    assert (got.header("server"), got.header("x-kept"), got.header("x-new")) == (None, "1", "1")
    assert await wire._reader.readexactly(5) == b"hello"


async def test_an_event_stream_obeys_too(box: Box) -> None:
    async def play(peer: Peer) -> None:
        await peer.head()
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nServer: app\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\nServer: x\r\n\r\n"
        )
        await peer.gone()

    await box.serve(await box.endpoint(play), response_headers=rules("Server", X_New="1"))
    got = await (await box.client()).request("/")
    assert (got.header("server"), got.header("x-new"), got.body) == (None, "1", b"data: 1\n\n")
    assert got.trailers == []


async def test_what_is_set_is_in_our_own_answers_but_for_nobodys(box: Box) -> None:
    set_ = rules(Access_Control_Allow_Origin="*", Cache_Control="public")
    await box.serve(response_headers=set_, routes=(Route(host="a.example"),))
    wire = await box.client()
    refused = await wire.request("/", headers={"Host": "a.example"})
    assert refused.status == 503
    assert refused.all("access-control-allow-origin") == ["*"]
    assert refused.all("cache-control") == ["no-store"]
    assert (await wire.request("/")).header("access-control-allow-origin") is None


@pytest.mark.parametrize(
    ("block", "kept"),
    [
        (b"", b""),
        (b"A: 1\r\nServer: x\r\nB: 2\r\n", b"A: 1\r\nB: 2\r\n"),
        (b"SERVER:x\r\nserver: \r\n", b""),
        (
            b"A: Server: x\r\nServers: x\r\nX-Server: x\r\n",
            b"A: Server: x\r\nServers: x\r\nX-Server: x\r\n",
        ),
        (b"A+B: 1\r\nAAB: 2\r\n", b"AAB: 2\r\n"),
    ],
)
def test_lines_are_kept_or_removed_as_wholes(block: bytes, kept: bytes) -> None:
    assert AnswerRules(HeaderRules(remove=("Server", "A+B"))).kept_lines(block) == kept


def test_where_there_is_nothing_to_do_there_are_no_rules() -> None:
    pool = Pool(name="blue", endpoints=(), weight=WHOLE)
    service = Service(name="shop", routes=(Route(),), pools=(pool,), active="blue")
    assert answer_rules(HeaderRules()) is None
    assert request_rules(service) is None


# ---- prefixes ----


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/api/users?x=/api", "/users?x=/api"),
        ("/api", "/"),
        ("/api/", "/"),
        ("/api?x", "/?x"),
        ("/api//x", "/x"),
        ("/api///evil.example/x", "/evil.example/x"),
        ("/api/../x", "/../x"),
        ("/api/%2e%2e/%2Fx", "/%2e%2e/%2Fx"),
        ("/api/api/x", "/api/x"),
    ],
)
async def test_the_prefix_is_left_out_and_the_rest_begins_with_one_slash(
    box: Box, target: str, sent: str
) -> None:
    recording = await serving(box, routes=(Route(path="/api", strip_prefix=True),))
    wire = await box.client()
    for _ in range(2):
        assert (await wire.request(target)).status == 200
        assert recording.lines()[0] == f"GET {sent} HTTP/1.1".encode()
        assert recording.values(b"x-forwarded-prefix") == [b"/api"]


@pytest.mark.parametrize("target", ["/apiary", "/API/x", "/%61pi", "//api", "/api%2Fx", "/"])
async def test_what_is_not_below_the_prefix_is_not_of_the_route(box: Box, target: str) -> None:
    await serving(box, routes=(Route(path="/api", strip_prefix=True),))
    assert (await (await box.client()).request(target)).status == 404


async def test_each_route_of_a_service_has_its_own_prefix_or_none(box: Box) -> None:
    routes = (
        Route(path="/a", strip_prefix=True),
        Route(path="/a/b"),
        Route(path="/a/b/c", strip_prefix=True),
        Route(host="b.example", path="/a"),
    )
    recording = await serving(box, routes=routes)
    wire = await box.client()
    for host, target, sent in (
        ("x", "/a/1", b"/1"),
        ("x", "/a/b/1", b"/a/b/1"),
        ("x", "/a/b/c/1", b"/1"),
        ("b.example:8080", "/a/1", b"/a/1"),
    ):
        await wire.request(target, headers={"Host": host})
        assert recording.lines()[0] == b"GET %b HTTP/1.1" % sent
        assert len(recording.values(b"x-forwarded-prefix")) == (sent == b"/1")


async def test_an_absolute_form_loses_its_prefix_too(box: Box) -> None:
    recording = await serving(box, routes=(Route(path="/api", strip_prefix=True),))
    wire = await box.client()
    await wire.send(b"GET http://a.example/api/x HTTP/1.1\r\nHost: b\r\n\r\n")
    await wire.answer()
    assert recording.lines()[:2] == [b"GET /x HTTP/1.1", b"Host: a.example"]


async def test_a_client_cannot_forge_the_prefix_on_any_route(box: Box) -> None:
    recording = await serving(
        box, routes=(Route(path="/api", strip_prefix=True), Route(host="plain.example"))
    )
    wire = await box.client()
    forged = {"X-Forwarded-Prefix": "/evil", "X_Forwarded_Prefix": "/evil"}
    await wire.request("/api/x", headers=forged)
    assert recording.values(b"x-forwarded-prefix") == [b"/api"]
    await wire.request("/x", headers={**forged, "Host": "plain.example"})
    assert recording.values(b"x-forwarded-prefix") == []
    assert b"evil" not in recording.heads[-1]
    await wire.request(
        "/x",
        headers={**forged, "Host": "plain.example", "Connection": "X-Forwarded-Prefix"},
    )
    assert b"evil" not in recording.heads[-1]


async def test_a_trusted_peers_prefix_is_passed_on_before_ours(box: Box) -> None:
    recording = await serving(
        box,
        routes=(Route(path="/api", strip_prefix=True),),
        listener={"trusted_proxies": ("127.0.0.0/8",)},
    )
    await (await box.client()).request("/api/x", headers={"X-Forwarded-Prefix": "/outer"})
    assert recording.values(b"x-forwarded-prefix") == [b"/outer, /api"]


async def test_a_held_request_is_let_go_without_its_prefix(box: Box) -> None:
    recording = Recording()
    endpoint = await box.endpoint(recording)
    routes = (Route(path="/api", strip_prefix=True),)
    held = Hold(since_s=0.0, timeout_s=30.0)
    box.deal(box.service_slot(), stats.LOT_HELD, 10)
    await box.serve(endpoint, routes=routes, hold=held)
    wire = await box.client()
    await wire.send(request_bytes("/api/x"))
    await until(lambda: box.of_service(stats.S_HELD) == 1, "it is held")
    await box.serve(endpoint, routes=routes)
    assert (await wire.answer()).status == 200
    assert recording.lines()[0] == b"GET /x HTTP/1.1"


async def test_the_log_and_the_drain_name_what_the_client_asked_for(box: Box) -> None:
    waits: asyncio.Event = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.request()
        await waits.wait()
        await peer.send(OK)

    await box.serve(await box.endpoint(play), routes=(Route(path="/api", strip_prefix=True),))
    wire = await box.client()
    await wire.send(request_bytes("/api/x"))
    await until(lambda: box.plane.in_flight("shop", None), "it is in flight")
    assert box.plane.in_flight("shop", None)[0]["route"] == "GET /api/x"
    waits.set()
    assert (await wire.answer()).status == 200


def test_what_a_trusted_peer_claims_obeys_as_well_where_it_comes_back_as_a_line() -> None:
    pool = Pool(name="blue", endpoints=(), weight=WHOLE)
    removed = rules("X-Original-URL", Client_IP="1.1.1.1")
    service = Service(
        name="shop", routes=(Route(),), pools=(pool,), active="blue", request_headers=removed
    )
    head = RequestHead(b"GET", b"/", [])
    head.host = b"a"
    head.special = {b"client-ip": b"6.6.6.6", b"x-original-url": b"/admin"}
    added = b"Via: x\r\nclient-ip: 6.6.6.6\r\nx-original-url: /admin\r\nX-Kept: 1\r\n"
    sent = RequestRules(service).request_head(head, None, added)
    assert b"6.6.6.6" not in sent
    assert b"/admin" not in sent
    assert sent.count(b"Client-IP: 1.1.1.1\r\n") == 1
    assert b"Via: x\r\nX-Kept: 1\r\n" in sent


def test_a_request_is_the_same_after_it_was_written() -> None:
    pool = Pool(name="blue", endpoints=(), weight=WHOLE)
    route = Route(path="/api", strip_prefix=True)
    service = Service(
        name="shop",
        routes=(route,),
        pools=(pool,),
        active="blue",
        request_headers=rules("X-Gone", Host="inside"),
    )
    head = RequestHead(b"GET", b"/api/x", [b"X-Gone", b": ", b"1", b"\r\n"])
    head.host = b"outside"
    made = RequestRules(service)
    first = made.request_head(head, b"a=b", b"")
    assert first == made.request_head(head, b"a=b", b"")
    assert (head.target, head.host, len(head.fields)) == (b"/api/x", b"outside", 4)
