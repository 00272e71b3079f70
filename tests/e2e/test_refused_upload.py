"""Endpoints that refuse an upload and hang up: the client sees their answer, and nobody else pays."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.e2e.stage import Stage, Turnout

REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
SIZE = 100_000
TIMEOUT_S = 30


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Socket of an endpoint that the test plays itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_S)
        yield server


def _in_front_of(listener: socket.socket, stage: Stage) -> Turnout:
    host, port = listener.getsockname()
    return stage.turnout([f"{host}:{port}"], [], workers=1)


def _failures(turnout: Turnout) -> float:
    return turnout.metric("turnout_upstream_failures_total", pool="blue")


def test_a_refusal_reaches_the_client_though_the_rest_of_the_upload_meets_a_reset(
    stage: Stage, listener: socket.socket
) -> None:
    turnout = _in_front_of(listener, stage)
    head = b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n" % SIZE
    with socket.create_connection(("127.0.0.1", turnout.port), timeout=TIMEOUT_S) as client:
        client.sendall(head + b"x" * 100)
        endpoint, _ = listener.accept()
        endpoint.settimeout(TIMEOUT_S)
        while not endpoint.recv(4096, socket.MSG_PEEK).endswith(b"xx"):
            pass
        worker = turnout.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)  # it shall read the upload's rest before the refusal
        try:
            client.sendall(b"x" * 10_000)
            endpoint.sendall(REFUSAL)
            endpoint.close()  # with bytes unread: a reset
        finally:
            os.kill(worker, signal.SIGCONT)
        assert client.recv(4096).startswith(b"HTTP/1.1 403 ")
    assert _failures(turnout) == 0


def test_a_connection_that_refused_an_upload_serves_no_other_request(
    stage: Stage, listener: socket.socket
) -> None:
    turnout = _in_front_of(listener, stage)
    endpoint = threading.Thread(target=_refuse_once_each, args=(listener, 2))
    endpoint.start()
    statuses = []
    for _ in range(2):
        client = HTTPConnection("127.0.0.1", turnout.port, timeout=TIMEOUT_S)
        client.request("POST", "/", body=b"x" * SIZE)
        statuses.append(client.getresponse().status)
        client.close()
    endpoint.join()
    assert statuses == [403, 403]
    assert _failures(turnout) == 0


def _refuse_once_each(listener: socket.socket, count: int) -> None:
    """Refuse one upload on each connection; hang up on another one, though none was forbidden."""
    for _ in range(count):
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return
        with connection:
            left = SIZE
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            left -= len(received.partition(b"\r\n\r\n")[2])
            while left:
                left -= len(connection.recv(65536))
            connection.sendall(REFUSAL)
            connection.recv(1)
