"""How the admin API is spoken to, and what every way of not answering is called."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.address import parse_address
from proxy.cli.client import (
    CHANGE_TIMEOUT_S,
    AdminClient,
    RefusedError,
    actor,
    service_path,
)
from proxy.cli.exits import CommandError, ExitCode
from proxy.control.ledger import APPLY_S

Build = Callable[..., Any]


def client(url: str, token: str | None = None) -> AdminClient:
    return AdminClient(parse_address(url), token)


def test_every_call_says_who_gives_the_order(admin: Any) -> None:
    admin.set("GET /v1/status", 200, {})
    client(admin.url).get("/v1/status")
    assert admin.calls[0].headers["X-Turnout-Actor"] == actor()
    assert actor().startswith("cli:")
    assert "@" in actor()


def test_the_token_goes_as_bearer_and_is_absent_without_one(admin: Any) -> None:
    admin.set("GET /v1/status", 200, {})
    client(admin.url, "s3cret").get("/v1/status")
    client(admin.url).get("/v1/status")
    assert admin.calls[0].headers["Authorization"] == "Bearer s3cret"
    assert "Authorization" not in admin.calls[1].headers


def test_a_token_read_from_a_file_may_end_with_a_line_end(admin: Any) -> None:
    admin.set("GET /v1/status", 200, {})
    client(admin.url, "s3cret\n").get("/v1/status")
    assert admin.calls[0].headers["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("token", ["s3cret\nX: y", "s3crét", "s3 cret"])
def test_an_unfit_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(CommandError) as caught:
        client("127.0.0.1:1", token)
    assert caught.value.code == ExitCode.USAGE
    assert "cret" not in caught.value.sentence


def test_a_unix_socket_is_spoken_to_alike(unix_admin: Any) -> None:
    unix_admin.set("POST /v1/config/reload", 200, {"applied": True})
    assert client(unix_admin.url).post("/v1/config/reload", {}).value == {"applied": True}
    assert unix_admin.calls[0].body == {}


def test_an_address_with_a_path_is_a_prefix(admin: Any) -> None:
    admin.set("GET /ops/v1/status", 200, {})
    client(admin.url + "/ops").get("/v1/status")
    assert admin.calls[0].path == "/ops/v1/status"


def test_names_are_quoted_in_paths() -> None:
    assert service_path("a/b ü", "drain") == "/v1/services/a%2Fb%20%C3%BC/drain"


@pytest.mark.parametrize(
    ("status", "code"), [(401, 1), (404, 1), (409, 1), (412, 1), (422, 2), (500, 1), (503, 1)]
)
def test_a_problem_becomes_its_sentence_and_exit_code(
    admin: Any, refusal: Build, status: int, code: int
) -> None:
    admin.set("GET /v1/status", status, refusal(status, "because of this"))
    with pytest.raises(RefusedError) as caught:
        client(admin.url).get("/v1/status")
    assert caught.value.code == code
    assert caught.value.sentence.startswith("because of this")


def test_without_a_token_the_sentence_says_how_to_give_one(admin: Any, refusal: Build) -> None:
    admin.set("GET /v1/status", 401, refusal(401, "a token is needed"))
    with pytest.raises(RefusedError, match="TURNOUT_ADMIN_TOKEN"):
        client(admin.url).get("/v1/status")


def test_several_errors_are_all_told(admin: Any, refusal: Build) -> None:
    admin.set("PUT /x", 422, refusal(422, "two errors", errors=["one", "two"]))
    with pytest.raises(RefusedError) as caught:
        client(admin.url).put("/x", {})
    assert caught.value.details == ("one", "two")


def test_nobody_there_is_unreachable_and_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        with pytest.raises(CommandError) as caught:
            client(f"127.0.0.1:{taken.getsockname()[1]}").get("/v1/status")
    assert caught.value.code == ExitCode.UNREACHABLE
    assert "connection refused" in caught.value.sentence
    assert "turnout run" in caught.value.sentence


def test_a_missing_socket_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no such file") as caught:
        client(f"unix:{tmp_path}/none.sock").get("/v1/status")
    assert caught.value.code == ExitCode.UNREACHABLE


@pytest.fixture
def talker() -> Iterator[Callable[[bytes], str]]:
    """A listener that says some bytes to whoever comes, and then nothing more."""
    listener = socket.create_server(("127.0.0.1", 0))
    peers: list[socket.socket] = []

    def say(greeting: bytes) -> str:
        def serve() -> None:
            peer = listener.accept()[0]
            peers.append(peer)
            peer.recv(65536)
            peer.sendall(greeting)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield say
    for peer in peers:
        peer.close()
    listener.close()


def test_an_admin_that_stays_silent_is_given_up(talker: Callable[[bytes], str]) -> None:
    with pytest.raises(CommandError, match=r"no answer within 0\.2 s") as caught:
        client(talker(b"")).get("/v1/status", timeout_s=0.2)
    assert caught.value.code == ExitCode.UNREACHABLE


def test_a_change_that_is_not_answered_in_time_may_still_be_going_on(
    talker: Callable[[bytes], str],
) -> None:
    with pytest.raises(
        CommandError, match=r"took the order.* within 0\.2 s.*turnout status"
    ) as caught:
        client(talker(b"")).post("/v1/config/reload", {}, timeout_s=0.2)
    assert caught.value.code == ExitCode.TIMED_OUT


def test_a_change_is_waited_for_longer_than_the_proxy_may_take() -> None:
    assert CHANGE_TIMEOUT_S > 2 * APPLY_S


@pytest.mark.parametrize(
    "greeting",
    [b"220 mail.example.com ESMTP\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>"],
)
def test_another_program_on_that_port_is_not_taken_for_turnout(
    talker: Callable[[bytes], str], greeting: bytes
) -> None:
    with pytest.raises(CommandError) as caught:
        client(talker(greeting)).get("/v1/status", timeout_s=30)
    assert caught.value.code == ExitCode.UNREACHABLE
