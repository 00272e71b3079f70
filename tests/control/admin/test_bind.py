from __future__ import annotations

import contextlib
import errno
import socket
import stat
from pathlib import Path

import pytest

from proxy.control.admin.bind import (
    Bind,
    SocketFile,
    address_of,
    close_all,
    open_sockets,
    parse,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9900", Bind(host="127.0.0.1", port=9900)),
        ("[::1]:0", Bind(host="::1")),
        ("LocalHost:80", Bind(host="localhost", port=80)),
        ("unix:/run/turnout.sock", Bind(path="/run/turnout.sock")),
    ],
)
def test_binds_are_read(text: str, expected: Bind) -> None:
    assert parse(text) == expected
    assert parse(text).is_unix is text.startswith("unix:")


@pytest.mark.parametrize("text", ["", "9900", ":9900", "host:", "host:http", "host:65536", "unix:"])
def test_what_is_no_bind_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
def test_a_port_is_drawn_and_told(text: str) -> None:
    sockets = open_sockets(parse(text))
    try:
        addresses = [address_of(sock) for sock in sockets]
        ports = {parse(address).port for address in addresses}
        assert len(ports) == 1
        assert ports != {0}
        for sock in sockets:
            with socket.create_connection(sock.getsockname()[:2], timeout=5):
                pass
    finally:
        close_all(sockets)


def test_an_address_in_use_is_said_in_a_sentence() -> None:
    (first,) = open_sockets(parse("127.0.0.1:0"))
    with contextlib.closing(first), pytest.raises(OSError, match="in use") as raised:
        open_sockets(parse(address_of(first)))
    assert raised.value.errno == errno.EADDRINUSE
    assert "the admin API cannot listen on 127.0.0.1:" in str(raised.value)


@pytest.mark.parametrize("text", ["192.0.2.1:0", "nowhere.invalid:0"])
def test_an_address_that_is_not_ours_is_said_in_a_sentence(text: str) -> None:
    with pytest.raises(OSError, match="the admin API cannot listen on"):
        open_sockets(parse(text))


def test_a_unix_socket_is_for_its_owner_only(short: Path) -> None:
    path = short / "a.sock"
    (sock,) = open_sockets(parse(f"unix:{path}"))
    with contextlib.closing(sock):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert address_of(sock) == f"unix:{path}"


def test_a_socket_file_that_a_dead_process_left_is_replaced(short: Path) -> None:
    path = short / "a.sock"
    (dead,) = open_sockets(parse(f"unix:{path}"))
    dead.close()
    (sock,) = open_sockets(parse(f"unix:{path}"))
    with contextlib.closing(sock), contextlib.closing(socket.socket(socket.AF_UNIX)) as caller:
        caller.connect(str(path))


def test_a_socket_on_which_somebody_answers_is_left_alone(short: Path) -> None:
    path = short / "a.sock"
    (sock,) = open_sockets(parse(f"unix:{path}"))
    with contextlib.closing(sock):
        with pytest.raises(OSError, match="another process answers"):
            open_sockets(parse(f"unix:{path}"))
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as caller:
            caller.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(short: Path) -> None:
    path = short / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(OSError, match="no socket is in the way"):
        open_sockets(parse(f"unix:{path}"))
    assert path.read_text() == "dear diary"


@pytest.mark.parametrize("name", ["missing/a.sock", "x" * 120])
def test_a_path_that_cannot_be_is_said_in_a_sentence(short: Path, name: str) -> None:
    with pytest.raises(OSError, match="the admin API cannot listen on unix:"):
        open_sockets(parse(f"unix:{short / name}"))


def test_only_our_own_socket_file_is_removed(short: Path) -> None:
    path = short / "a.sock"
    path.touch()
    ours = SocketFile.of(str(path))
    path.rename(short / "kept")  # its inode stays taken, so that the next file has another
    path.touch()
    ours.remove()
    assert path.exists()
    (short / "kept").replace(path)
    ours.remove()
    assert not path.exists()
    ours.remove()
