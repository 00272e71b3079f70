from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxy.control.admin.auth import Tokens, is_loopback

if TYPE_CHECKING:
    from tests.control.admin.conftest import Admin, Serve

BOTH = Tokens(write="writer", read="reader")
SWITCH = "/v1/services/shop/switch"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("tokens", "token", "reading", "writing"),
    [
        (BOTH, None, 401, 401),
        (BOTH, "wrong", 401, 401),
        (BOTH, "reader", 200, 403),
        (BOTH, "writer", 200, 200),
        (BOTH, "", 401, 401),
        (Tokens(write="writer"), None, 401, 401),
        (Tokens(write="writer"), "", 401, 401),
        (Tokens(write="writer"), "writer", 200, 200),
        (Tokens(read="reader"), "reader", 200, 403),
        (Tokens(read="reader"), None, 401, 401),
        (Tokens(read="reader", write=""), "", 401, 401),
        (Tokens(), None, 200, 200),
        (Tokens(), "whatever", 200, 200),
        (Tokens(write="", read=""), None, 200, 200),
        (Tokens(write="sch\u00f6n"), "sch\u00f6n", 200, 200),
    ],
)
async def test_each_token_opens_what_it_is_for(
    serve: Serve, tokens: Tokens, token: str | None, reading: int, writing: int
) -> None:
    admin = await serve(tokens=tokens)
    headers = {} if token is None else bearer(token)
    for path in ("/v1/status", "/metrics", "/v1/config"):
        assert (await admin.get(path, headers=headers)).status == reading
    assert (await admin.call("HEAD", "/v1/status", headers=headers)).status == reading
    reply = await admin.post(SWITCH, {"to": "green"}, headers=headers)
    assert reply.status == writing
    assert (admin.desk.active == "green") is (writing == 200)


async def test_probes_need_no_token(serve: Serve) -> None:
    admin = await serve(tokens=BOTH)
    assert (await admin.get("/healthz")).status == 200
    assert (await admin.get("/readyz")).status == 200
    assert (await admin.get("/healthz", headers=bearer("wrong"))).status == 200


async def test_a_missing_token_is_asked_for_and_a_wrong_one_named(serve: Serve) -> None:
    admin = await serve(tokens=BOTH)
    missing = await admin.get("/v1/status")
    assert missing.headers["WWW-Authenticate"] == 'Bearer realm="turnout"'
    assert "bearer token is needed" in missing.json["detail"]
    wrong = await admin.get("/v1/status", headers=bearer("nope"))
    assert wrong.headers["WWW-Authenticate"].endswith('error="invalid_token"')
    assert "nope" not in wrong.text
    read_only = await admin.post(SWITCH, {"to": "green"}, headers=bearer("reader"))
    assert "only read" in read_only.json["detail"]


@pytest.mark.parametrize("value", ["Basic d3JpdGVyOg==", "writer", "Bearer", "Bearer writer x"])
async def test_only_a_bearer_counts(serve: Serve, value: str) -> None:
    admin = await serve(tokens=BOTH)
    assert (await admin.get("/v1/status", headers={"Authorization": value})).status == 401


async def test_the_scheme_is_not_case_sensitive(serve: Serve) -> None:
    admin = await serve(tokens=BOTH)
    headers = {"Authorization": "bearer reader"}
    assert (await admin.get("/v1/status", headers=headers)).status == 200


async def test_paths_that_do_not_exist_are_not_told_apart_without_a_token(serve: Serve) -> None:
    admin = await serve(tokens=BOTH)
    assert (await admin.get("/v1/nothing")).status == 401


async def test_tokens_are_replaced_while_it_runs(serve: Serve) -> None:
    admin = await serve(tokens=BOTH)
    admin.server.tokens = Tokens(write="new")
    assert admin.server.tokens.write == "new"
    assert (await admin.get("/v1/status", headers=bearer("writer"))).status == 401
    assert (await admin.get("/v1/status", headers=bearer("new"))).status == 200


def test_tokens_do_not_show_themselves() -> None:
    assert "writer" not in repr(BOTH)
    assert "reader" not in repr(BOTH)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:9900", 200),
        ("LOCALHOST", 200),
        ("app.localhost:1", 200),
        ("127.0.0.1", 200),
        ("127.8.8.8:80", 200),
        ("[::1]:9900", 200),
        ("evil.example", 421),
        ("evil.example:9900", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("10.0.0.1", 421),
        ("[::2]", 421),
    ],
)
async def test_without_a_token_only_our_own_names_are_answered(
    admin: Admin, host: str, status: int
) -> None:
    reply = await admin.get("/v1/status", headers={"Host": host})
    assert reply.status == status
    if status != 200:
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert "shop" not in reply.text


async def test_with_a_token_any_name_will_do(serve: Serve) -> None:
    admin = await serve(tokens=BOTH)
    headers = {"Host": "turnout.example", "Origin": "https://other.example", **bearer("reader")}
    assert (await admin.get("/v1/status", headers=headers)).status == 200


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:9900", "http://localhost:9900", 200),
        ("localhost", "http://localhost:80", 200),
        ("localhost:443", "https://localhost", 200),
        ("localhost:9900", "http://localhost:9901", 403),
        ("localhost:9900", "http://127.0.0.1:9900", 403),
        ("localhost:9900", "https://evil.example", 403),
        ("localhost:9900", "null", 403),
        ("localhost:9900", "", 403),
        ("localhost:9900", "http://[", 403),
        ("localhost:9900", "file://localhost:9900", 403),
    ],
)
async def test_without_a_token_only_our_own_pages_may_call(
    admin: Admin, host: str, origin: str, status: int
) -> None:
    headers = {"Host": host, "Origin": origin}
    reply = await admin.post(SWITCH, {"to": "green"}, headers=headers)
    assert reply.status == status
    assert (admin.desk.active == "green") is (status == 200)


async def test_on_a_unix_socket_any_host_will_do_but_no_foreign_page(
    serve: Serve, short: Path
) -> None:
    admin = await serve(bind=f"unix:{short}/a.sock")
    headers = {"Host": "turnout.example"}
    assert (await admin.get("/v1/status", headers=headers)).status == 200
    headers["Origin"] = "https://evil.example"
    assert (await admin.get("/v1/status", headers=headers)).status == 403


@pytest.mark.parametrize(
    ("said", "who"),
    [
        (None, "api"),
        ("", "api"),
        ("cli:ann@host", "cli:ann@host"),
        ("pipeline 7", "api:pipeline 7"),
        ("file", "api:file"),
        ("x" * 100, "api:" + "x" * 80),
        ("tab\there", "api:tabhere"),
        ("caf\u00e9", "api:caf"),
    ],
)
async def test_the_actor_signs_but_not_with_our_names(
    admin: Admin, said: str | None, who: str
) -> None:
    headers = {} if said is None else {"X-Turnout-Actor": said}
    await admin.post(SWITCH, {"to": "green"}, headers=headers)
    assert admin.desk.asked[0]["who"] == who


@pytest.mark.parametrize(
    ("name", "expected"),
    [("localhost", True), ("127.1.2.3", True), ("::1", True), ("example.org", False), ("", False)],
)
def test_loopback_names_are_known(name: str, *, expected: bool) -> None:
    assert is_loopback(name) is expected
