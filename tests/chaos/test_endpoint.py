"""The endpoints of chaos tests do what they are told, and come back at the same address."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.chaos.endpoint import Endpoint, Endpoints
from tests.chaos.fault_proxy import Fault
from tests.e2e.stage import wait_until
from tests.ports import free_port


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoints = Endpoints(free_port(), blue=1)
    endpoints.start()
    yield endpoints.all[0]
    endpoints.end()


def _ask(
    endpoint: Endpoint, method: str = "GET", path: str = "/", timeout_s: float = 30
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(endpoint.address, timeout=timeout_s)
    with closing(connection):
        connection.request(method, path, body=b"x" * 100 if method == "POST" else None)
        answer = connection.getresponse()
        with answer:
            return answer.status, answer.read()


def test_it_answers_with_its_pool_and_name(endpoint: Endpoint) -> None:
    assert b'"pool": "blue", "endpoint": "blue-1"' in _ask(endpoint)[1]


def test_it_obeys_and_behaves_again(endpoint: Endpoint) -> None:
    endpoint.turn_to(Fault("cut"))
    with pytest.raises(http.client.IncompleteRead):
        _ask(endpoint)
    endpoint.behave()
    assert _ask(endpoint)[0] == 200


def test_frozen_it_accepts_and_says_nothing_and_thawed_it_answers(endpoint: Endpoint) -> None:
    endpoint.freeze()
    with pytest.raises(TimeoutError):
        _ask(endpoint, timeout_s=0.3)
    endpoint.thaw()
    assert _ask(endpoint)[0] == 200


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_it_refuses_when_it_is_gone_and_comes_back_where_it_was(
    endpoint: Endpoint, how: str
) -> None:
    with closing(http.client.HTTPConnection(endpoint.address, timeout=30)) as kept:
        kept.request("GET", "/")
        kept.getresponse().read()
        getattr(endpoint, how)()
        wait_until(lambda: _refuses(endpoint), "it refuses")
        endpoint.start_again()
    assert _ask(endpoint)[0] == 200


def _refuses(endpoint: Endpoint) -> bool:
    try:
        _ask(endpoint)
    except (ConnectionError, http.client.HTTPException) as error:
        return isinstance(error, ConnectionRefusedError)
    return False


def test_a_stop_finishes_what_is_in_flight(endpoint: Endpoint) -> None:
    endpoint.turn_to(Fault("drip", seconds=0.05, size=200))
    with closing(http.client.HTTPConnection(endpoint.address, timeout=30)) as connection:
        connection.request("GET", "/")
        answer = connection.getresponse()  # its head: the rest is still to come
        endpoint.terminate()
        wait_until(lambda: _refuses(endpoint), "it refuses")
        assert answer.status == 200
        assert len(answer.read()) > 1000


def test_it_remembers_every_post_by_its_id_and_across_a_kill() -> None:
    endpoints = Endpoints(free_port(), blue=1, green=1)
    endpoints.start()
    blue, green = endpoints.all
    try:
        _ask(blue, "POST", "/order?id=a")
        _ask(green, "POST", "/order?id=b")
        blue.kill()
        blue.start_again()
        _ask(blue, "POST", "/order?id=a")
        assert endpoints.orders() == {"a": 2, "b": 1}
    finally:
        endpoints.end()
