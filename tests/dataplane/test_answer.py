"""The proxy's own answers: short, explained, in the form the client prefers, and nothing of the inside."""

from __future__ import annotations

import json
import re

import pytest

from proxy.dataplane import faults
from proxy.dataplane.answer import NOBODYS, OwnAnswers, https_place, own_answer
from proxy.errors import Fault
from proxy.http1.message import RequestHead
from proxy.model import WHOLE, HeaderRules, Hold, Page, Redirect, Route, Timeouts
from proxy.stats import FAILURE_KINDS
from tests.dataplane.box import Box, Peer, Scripted
from tests.e2e.wire import request_bytes

FAULTS = [fault for fault in vars(faults).values() if isinstance(fault, Fault)]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
WALL = 1_795_500_000.0


def head_of(accept: str = "", method: bytes = b"GET") -> RequestHead:
    fields = [b"Accept", b": ", accept.encode(), b"\r\n"] if accept else []
    head = RequestHead(method, b"/", fields)
    head.host = b"a"
    return head


def answer(
    fault: Fault,
    head: RequestHead | None = None,
    *,
    keep_alive: bool = True,
    own: OwnAnswers = NOBODYS,
    request_id: bytes = b"abc",
) -> tuple[list[bytes], bytes]:
    whole = own_answer(fault, request_id, head, keep_alive=keep_alive, wall=WALL, own=own)
    lines, _, body = whole.partition(b"\r\n\r\n")
    return lines.split(b"\r\n"), body


# ---- what every answer has ----


@pytest.mark.parametrize("accept", ["", "text/html", "application/json"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.error)
def test_every_fault_is_told_with_its_token_and_the_requests_id(fault: Fault, accept: str) -> None:
    head, body = answer(fault, head_of(accept))
    assert head[0].startswith(b"HTTP/1.1 %d " % fault.status)
    assert b"Proxy-Status: turnout; error=%b" % fault.error.encode() in head
    assert b"X-Request-ID: abc" in head
    assert b"Content-Length: %d" % len(body) in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert b"Cache-Control: no-store" in head
    assert b"Date: Tue, 24 Nov 2026 06:00:00 GMT" in head
    assert b"Via: 1.1 turnout" in head
    assert b"abc" in body
    assert fault.sentence.replace("'", "&#x27;" if accept == "text/html" else "'").encode() in body
    assert (b"Retry-After: 1" in head) == (fault.status in {429, 503})
    assert fault.kind is None or fault.kind in FAILURE_KINDS
    names = [line.partition(b":")[0].lower() for line in head[1:]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.error)
def test_no_fault_speaks_of_the_inside(fault: Fault) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z', ]*[A-Za-z]\.", fault.sentence)
    assert not re.search(r"pool|release|endpoint|worker|blue|green|python", fault.sentence.lower())


TOKENS = {
    "http_request_error": {400, 408},
    "http_request_denied": {413, 429},
    "destination_not_found": {404},
    "destination_unavailable": {503},
    "connection_limit_reached": {429, 503},
    "connection_refused": {502},
    "connection_timeout": {504},
    "dns_error": {502},
    "connection_terminated": {502, 503},
    "tls_certificate_error": {502},
    "tls_protocol_error": {502},
    "tls_alert_received": {502},
    "http_response_timeout": {504},
    "connection_read_timeout": {504},
    "http_response_incomplete": {502},
    "http_protocol_error": {502},
    "http_upgrade_failed": {502},
}
"""Of RFC 9209 section 2.3, with the statuses that we give them."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.error)
def test_the_token_is_a_registered_one_and_fits_the_status(fault: Fault) -> None:
    assert fault.error in TOKENS
    assert fault.status in TOKENS[fault.error]


# ---- its form ----


def test_json_is_a_problem_document_of_the_same_content() -> None:
    head, body = answer(faults.NO_POOL, head_of("application/json"))
    assert b"Content-Type: application/problem+json" in head
    problem = json.loads(body)
    assert problem == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": faults.NO_POOL.sentence,
        "request_id": "abc",
    }


def test_browsers_get_a_page_and_everybody_else_plain_text() -> None:
    assert b"Content-Type: text/html; charset=utf-8" in answer(faults.NO_POOL, head_of(BROWSER))[0]
    for accept in ("", "*/*", "text/*", "image/png"):
        head, body = answer(faults.NO_POOL, head_of(accept))
        assert b"Content-Type: text/plain; charset=utf-8" in head
        assert body.startswith(b"503 Service Unavailable\n")


def test_several_accept_headers_are_one_list() -> None:
    head = head_of("image/png")
    head.fields += [b"ACCEPT", b": ", b"application/json;q=0.5", b"\r\n"]
    assert b"Content-Type: application/problem+json" in answer(faults.NO_POOL, head)[0]


def test_what_could_not_be_read_is_answered_in_plain_text() -> None:
    own = OwnAnswers([Page(status=0, html="<p>")])
    assert b"Content-Type: text/plain; charset=utf-8" in answer(faults.NO_POOL, None, own=own)[0]


def test_head_gets_the_length_but_no_body() -> None:
    for accept in ("", BROWSER, "application/json"):
        head, body = answer(faults.NO_ROUTE, head_of(accept, b"HEAD"))
        assert body == b""
        assert b"Content-Length: %d" % len(answer(faults.NO_ROUTE, head_of(accept))[1]) in head


def test_the_last_answer_of_a_connection_says_so() -> None:
    assert b"Connection: close" in answer(faults.NO_ROUTE, keep_alive=False)[0]
    assert not [line for line in answer(faults.NO_ROUTE)[0] if line.startswith(b"Connection")]


def test_a_client_of_1_0_is_told_that_the_connection_stays() -> None:
    old = head_of()
    old.version_1_0 = True
    assert b"Connection: keep-alive" in answer(faults.NO_ROUTE, old)[0]
    assert b"Connection: close" in answer(faults.NO_ROUTE, old, keep_alive=False)[0]


def test_what_is_malformed_is_told_as_a_sentence() -> None:
    fault = faults.malformed(431, "there are too many headers")
    assert fault.sentence == "There are too many headers."
    assert answer(fault)[0][0] == b"HTTP/1.1 431 Request Header Fields Too Large"


def test_a_strangers_request_id_is_escaped_in_every_form() -> None:
    hostile = b'"><script>x</script>'
    for accept in ("text/html", "application/json"):
        _, body = answer(faults.NO_POOL, head_of(accept), request_id=hostile)
        if accept == "text/html":
            assert b"<script" not in body
        else:
            assert json.loads(body)["request_id"] == hostile.decode()


# ---- a service's pages ----


def test_the_closest_page_is_taken() -> None:
    pages = {502: "exact", 50: "50x", 5: "5xx", 0: "rest"}
    own = OwnAnswers([Page(status=status, html=html) for status, html in pages.items()])
    found = {status: faults.malformed(status, "x") for status in (502, 503, 511, 404)}
    bodies = {status: answer(each, head_of(), own=own)[1] for status, each in found.items()}
    assert bodies == {502: b"exact", 503: b"50x", 511: b"5xx", 404: b"rest"}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", b"text/html; charset=utf-8"),
        ("*/*", b"text/html; charset=utf-8"),
        (BROWSER, b"text/html; charset=utf-8"),
        ("application/json", b"application/problem+json"),
        ("text/plain", b"text/plain; charset=utf-8"),
    ],
)
def test_a_page_is_for_whoever_does_not_prefer_something_else(accept: str, kind: bytes) -> None:
    own = OwnAnswers([Page(status=503, html="<p>{status}</p>")])
    head, body = answer(faults.NO_POOL, head_of(accept), own=own)
    assert b"Content-Type: " + kind in head
    assert (body == b"<p>503</p>") == kind.startswith(b"text/html")


def test_a_status_without_a_page_is_answered_as_ever() -> None:
    own = OwnAnswers([Page(status=502, html="down")])
    assert answer(faults.NO_POOL, head_of(), own=own) == answer(faults.NO_POOL, head_of())


def test_what_a_service_sets_stands_in_our_answers_too_unless_it_describes_its_content() -> None:
    own = OwnAnswers(
        rules=HeaderRules(
            set=(
                ("Access-Control-Allow-Origin", "*"),
                ("Cache-Control", "public, max-age=600"),
                ("content-type", "text/css"),
                ("Content-Encoding", "gzip"),
                ("X-Content-Type-Options", "nosniff"),
                ("ETag", '"1"'),
                ("Date", "never"),
            )
        )
    )
    head, _ = answer(faults.NO_POOL, head_of(), own=own)
    assert b"Access-Control-Allow-Origin: *" in head
    plain, _ = answer(faults.NO_POOL, head_of())
    assert [line for line in head if not line.startswith(b"Access-")] == plain


# ---- on the wire ----

PAGES = (
    Page(status=502, html="<p>502 {request_id}</p>"),
    Page(status=0, html="<p>{status} {reason}</p>"),
)


async def closes_early(peer: Peer) -> None:
    await peer.request()
    peer.abort()


async def fails_itself(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(b"HTTP/1.1 502 Mine\r\nContent-Length: 3\r\n\r\nown")


async def test_a_services_page_answers_for_it_with_the_requests_id(box: Box) -> None:
    await box.serve(await box.endpoint(closes_early), pages=PAGES)
    answer = await (await box.client()).request("/")
    assert answer.status == 502
    assert answer.header("content-type") == "text/html; charset=utf-8"
    assert answer.body.decode() == f"<p>502 {answer.header('x-request-id')}</p>"
    assert answer.header("proxy-status") == "turnout; error=connection_terminated"


async def test_an_endpoints_own_error_is_left_as_it_is(box: Box) -> None:
    await box.serve(await box.endpoint(fails_itself), pages=PAGES)
    answer = await (await box.client()).request("/", headers={"Accept": BROWSER})
    assert (answer.status, answer.body) == (502, b"own")
    assert answer.header("proxy-status") is None


async def test_the_page_is_for_hold_too_much_body_and_nobody_available(box: Box) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint, pages=PAGES, max_body=10)
    wire = await box.client()
    assert (await wire.request("/", method="POST", body=b"x" * 11)).body == (
        b"<p>413 Content Too Large</p>"
    )
    await box.serve(pages=PAGES)
    assert (await (await box.client()).request("/")).body == b"<p>503 Service Unavailable</p>"
    await box.serve(endpoint, pages=PAGES, hold=Hold(since_s=0.0, timeout_s=0.0))
    held = await (await box.client()).request("/")
    assert (held.status, held.body) == (503, b"<p>503 Service Unavailable</p>")


async def test_the_page_is_for_an_answer_that_does_not_come(box: Box) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    await box.serve(await box.endpoint(silent), pages=PAGES, timeouts=Timeouts(response_s=0.1))
    answer = await (await box.client()).request("/")
    assert (answer.status, answer.body) == (504, b"<p>504 Gateway Timeout</p>")


async def test_other_services_and_nobodys_requests_know_nothing_of_the_page(box: Box) -> None:
    await box.apply(
        box.shop(box.pool("blue", [], WHOLE), pages=PAGES, routes=(Route(host="a.example"),)),
        box.shop(box.pool("red", [], WHOLE), name="other", routes=(Route(host="b.example"),)),
    )
    wire = await box.client()
    bodies = [
        (await wire.request("/", headers={"Host": host})).body
        for host in ("a.example", "b.example", "c.example")
    ]
    assert bodies[0] == b"<p>503 Service Unavailable</p>"
    assert bodies[1].startswith(b"503 Service Unavailable\n")
    assert bodies[2].startswith(b"404 Not Found\n")


async def test_a_new_page_is_for_the_next_request_of_an_open_connection(box: Box) -> None:
    await box.serve(pages=(Page(status=0, html="one"),))
    wire = await box.client()
    assert (await wire.request("/")).body == b"one"
    await box.serve(pages=(Page(status=0, html="two"),))
    assert (await wire.request("/")).body == b"two"


@pytest.mark.parametrize(
    ("data", "status", "error"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "http_request_error"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501, "http_request_error"),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n", 414, "http_request_error"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000, 431, "http_request_error"),
    ],
)
async def test_what_is_refused_for_its_own_bytes_is_told_in_plain_text_and_closed(
    box: Box, data: bytes, status: int, error: str
) -> None:
    await box.serve(await box.endpoint(), pages=PAGES)
    wire = await box.client()
    await wire.send(data.replace(b"Host: a\r\n", b"Host: a\r\nAccept: text/html\r\n"))
    answer = await wire.answer()
    assert answer.status == status
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.header("proxy-status") == f"turnout; error={error}"
    assert answer.closes
    assert await wire.is_closed()


async def test_a_body_that_is_malformed_is_told_as_the_client_likes(box: Box) -> None:
    await box.serve(await box.endpoint(), pages=PAGES)
    wire = await box.client()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n"
    await wire.send(head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.closes) == (400, True)
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json()["request_id"] == answer.header("x-request-id")


async def test_the_connection_is_kept_where_the_request_was_understood(box: Box) -> None:
    await box.apply(
        box.shop(box.pool("blue", [await box.endpoint()], WHOLE), routes=(Route(host="a.example"),))
    )
    wire = await box.client()
    assert (await wire.request("/", headers={"Host": "nobody"})).status == 404
    await wire.send(b"GET / HTTP/1.0\r\nHost: nobody\r\nConnection: keep-alive\r\n\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.header("connection")) == (404, "keep-alive")
    assert (await wire.request("/", headers={"Host": "a.example"})).body == b"ok"


# ---- redirection ----


@pytest.mark.parametrize(
    ("host", "target", "port", "place"),
    [
        (b"shop.example", b"/", 443, b"https://shop.example/"),
        (b"shop.example:8080", b"/a?b=c", 443, b"https://shop.example/a?b=c"),
        (b"shop.example:", b"/", 8443, b"https://shop.example:8443/"),
        (b"[::1]:8080", b"/", 8443, b"https://[::1]:8443/"),
        (
            b"[2001:db8::1]",
            b"//x/../%2e%2e/%0d%0a",
            443,
            b"https://[2001:db8::1]//x/../%2e%2e/%0d%0a",
        ),
        (b"shop.example", b"*", 443, b"https://shop.example"),
        (b"shop.example", b"/" + b"a" * 9000, 443, b"https://shop.example/" + b"a" * 9000),
    ],
)
def test_the_place_is_the_same_host_and_target_byte_for_byte(
    host: bytes, target: bytes, port: int, place: bytes
) -> None:
    head = RequestHead(b"GET", target, [])
    head.host = host
    assert https_place(Redirect(port=port), head) == place


async def redirecting(box: Box, **redirect: int) -> Scripted:
    endpoint = await box.endpoint()
    await box.serve(endpoint, listener={"redirect": Redirect(**redirect)})
    return endpoint


async def test_every_request_is_sent_to_https_and_none_to_an_endpoint(box: Box) -> None:
    endpoint = await redirecting(box, port=8443)
    wire = await box.client()
    for method, body in (("GET", None), ("POST", b"x" * 100_000), ("HEAD", None), ("GET", b"")):
        answer = await wire.request(
            "/a?b=%20c", method=method, body=body, headers={"Host": "shop.example:80"}
        )
        assert answer.status == 308
        assert answer.header("location") == "https://shop.example:8443/a?b=%20c"
        assert not answer.closes
        assert answer.header("strict-transport-security") is None
    assert endpoint.connections == 0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_the_status_is_the_configured_one(box: Box, status: int) -> None:
    await redirecting(box, status=status)
    assert (await (await box.client()).request("/")).status == status


async def test_upgrades_and_absolute_forms_are_redirected_as_well(box: Box) -> None:
    await redirecting(box)
    wire = await box.client()
    await wire.send(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        b"GET http://b.example:81/x HTTP/1.1\r\nHost: other\r\n\r\n"
        b"OPTIONS * HTTP/1.1\r\nHost: c\r\n\r\n"
    )
    places = [(await wire.answer()).header("location") for _ in range(3)]
    assert places == ["https://a/ws", "https://b.example/x", "https://c"]


async def test_a_request_that_names_no_host_has_nowhere_to_go(box: Box) -> None:
    await redirecting(box)
    wire = await box.client()
    await wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.header("location")) == (400, None)
    assert answer.header("proxy-status") == "turnout; error=http_request_error"
    await wire.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.header("location")) == (308, "https://a/")
    assert answer.closes


@pytest.mark.parametrize(
    "host",
    [
        b"evil@a",
        b"a/b",
        b"a\\b",
        b"a?b",
        b"a#b",
        b"a b",
        b"a,b",
        b"http://a",
        b"[::1",
        b"a:b",
        b'"a"',
        b"a\tb",
    ],
)
async def test_what_is_no_host_is_refused_and_not_redirected(box: Box, host: bytes) -> None:
    await redirecting(box)
    wire = await box.client()
    await wire.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    answer = await wire.answer()
    assert (answer.status, answer.header("location")) == (400, None)


async def test_what_others_say_of_the_host_is_not_believed(box: Box) -> None:
    await redirecting(box)
    headers = {"Host": "a.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil"}
    answer = await (await box.client()).request("/", headers=headers)
    assert answer.header("location") == "https://a.example/"


async def test_a_listener_that_redirects_from_now_on_does_so_on_open_connections(
    box: Box,
) -> None:
    endpoint = await box.endpoint()
    await box.serve(endpoint)
    wire = await box.client()
    assert (await wire.request("/")).body == b"ok"
    await box.serve(endpoint, listener={"redirect": Redirect()})
    assert (await wire.request("/")).status == 308
    await box.serve(endpoint)
    assert (await wire.request("/")).body == b"ok"


async def test_a_long_body_that_comes_behind_the_redirection_is_dropped(box: Box) -> None:
    await redirecting(box)
    wire = await box.client()
    await wire.send(request_bytes("/", method="POST", headers={"Content-Length": "3000000"}))
    assert (await wire.answer()).status == 308
    for _ in range(30):
        await wire.send(b"x" * 100_000)
    assert (await wire.request("/next")).header("location") == "https://shop.example.com/next"
