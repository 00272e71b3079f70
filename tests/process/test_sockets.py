"""Listening sockets: one per slot, held open, and a sentence when they cannot be had."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.model import Listener, Snapshot
from proxy.process.sockets import SocketTable, _words, open_listener
from tests.ports import free_port


@pytest.fixture
def table() -> Iterator[SocketTable]:
    made = SocketTable(3)
    yield made
    made.close_all()


@pytest.fixture
def ipv6() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")


def snapshot(*binds: str) -> Snapshot:
    return Snapshot(revision=1, listeners=tuple(Listener(bind=bind) for bind in binds))


def answers(bind: tuple[str, int]) -> bool:
    with closing(socket.socket(socket.AF_INET6 if ":" in bind[0] else socket.AF_INET)) as sock:
        return sock.connect_ex(bind) == 0


def test_every_slot_has_a_socket_of_its_own_on_the_same_port(table: SocketTable) -> None:
    bind = f"127.0.0.1:{free_port()}"
    assert table.open_for(snapshot(bind)) == []
    sockets = [table.of_slot(slot)[bind] for slot in range(3)]
    assert len({sock.fileno() for sock in sockets}) == 3
    assert {"{}:{}".format(*sock.getsockname()) for sock in sockets} == {bind}
    assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for sock in sockets)
    assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in sockets)
    assert not any(sock.get_inheritable() for sock in sockets)


def test_what_is_open_already_is_left_alone(table: SocketTable) -> None:
    first, second = (f"127.0.0.1:{free_port()}" for _ in range(2))
    table.open_for(snapshot(first))
    before = table.of_slot(0)[first]
    assert table.open_for(snapshot(first, second)) == []
    assert table.of_slot(0)[first] is before
    assert set(table.of_slot(2)) == {first, second}


def test_sockets_that_no_snapshot_lists_are_closed_on_request(table: SocketTable) -> None:
    kept, dropped = (free_port() for _ in range(2))
    table.open_for(snapshot(f"127.0.0.1:{kept}", f"127.0.0.1:{dropped}"))
    table.close_all_but(snapshot(f"127.0.0.1:{kept}"))
    assert answers(("127.0.0.1", kept))
    assert not answers(("127.0.0.1", dropped))
    assert set(table.of_slot(0)) == {f"127.0.0.1:{kept}"}
    assert table.open_for(snapshot(f"127.0.0.1:{dropped}")) == [], "it can be opened again"


@pytest.mark.parametrize("shared", [False, True])
def test_another_program_on_the_port_is_found_even_if_it_would_share(
    table: SocketTable,
    shared: bool,  # noqa: FBT001
) -> None:
    with socket.socket() as foreign:
        if shared:
            foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        taken = f"127.0.0.1:{foreign.getsockname()[1]}"
        good = free_port()
        (problem,) = table.open_for(snapshot(f"127.0.0.1:{good}", taken))
        assert problem == f"cannot listen on {taken}: the address is in use by another program"
        assert table.of_slot(0) == {}
        assert not answers(("127.0.0.1", good)), "nothing new is kept open"


def test_a_port_whose_old_connections_are_still_closing_can_be_opened(table: SocketTable) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as before:
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = before.accept()
        accepted.close()  # the server closes first: its side stays in TIME_WAIT
        client.close()
    assert table.open_for(snapshot(f"127.0.0.1:{port}")) == []


def test_every_problem_is_told_at_once(table: SocketTable) -> None:
    problems = table.open_for(snapshot("192.0.2.1:80", "no-such-name.invalid:80"))
    assert len(problems) == 2
    assert problems[0] == "cannot listen on 192.0.2.1:80: this machine has no such address"


@pytest.mark.usefixtures("ipv6")
def test_an_address_of_version_6_is_opened_for_version_6_only(table: SocketTable) -> None:
    port = free_port()
    assert table.open_for(snapshot(f"[::1]:{port}", f"127.0.0.1:{port}")) == []
    assert answers(("::1", port))
    sock = table.of_slot(1)[f"[::1]:{port}"]
    assert sock.family == socket.AF_INET6
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@pytest.mark.usefixtures("ipv6")
def test_all_addresses_of_both_versions_may_share_a_port(table: SocketTable) -> None:
    port = free_port()
    assert table.open_for(snapshot(f"[::]:{port}", f"0.0.0.0:{port}")) == []
    assert answers(("::1", port))
    assert answers(("127.0.0.1", port))


# ---- unix sockets ----


def test_a_unix_socket_is_shared_by_all_slots_and_open_to_everybody(
    table: SocketTable, tmp_path: Path
) -> None:
    path = tmp_path / "t.sock"
    assert table.open_for(snapshot(f"unix:{path}")) == []
    assert len({table.of_slot(slot)[f"unix:{path}"] for slot in range(3)}) == 1
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o666
    inode = path.stat().st_ino
    assert table.open_for(snapshot(f"unix:{path}")) == []
    assert path.stat().st_ino == inode, "a reload leaves it alone"
    table.close_all()
    assert not path.exists()


def test_the_file_of_a_dead_listener_is_replaced(table: SocketTable, tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert table.open_for(snapshot(f"unix:{path}")) == []
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_unix_socket_that_another_program_listens_on_is_left_to_it(
    table: SocketTable, tmp_path: Path
) -> None:
    path = tmp_path / "t.sock"
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        (problem,) = table.open_for(snapshot(f"unix:{path}"))
        assert problem == f"cannot listen on unix:{path}: the address is in use by another program"
        assert path.exists()


def test_a_listener_that_is_too_busy_to_answer_is_still_a_listener(
    table: SocketTable, tmp_path: Path
) -> None:
    path = tmp_path / "t.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))  # the queue of one is full
            (problem,) = table.open_for(snapshot(f"unix:{path}"))
        assert "in use by another program" in problem
        assert path.exists()


def test_a_file_that_is_no_socket_is_never_removed(table: SocketTable, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    (problem,) = table.open_for(snapshot(f"unix:{path}"))
    assert problem == f"cannot listen on unix:{path}: the path exists and is no socket"
    assert path.read_text() == "data"


def test_a_folder_that_does_not_exist_is_told(table: SocketTable, tmp_path: Path) -> None:
    (problem,) = table.open_for(snapshot(f"unix:{tmp_path}/none/t.sock"))
    assert "no such file or directory" in problem


# ---- words ----


def test_a_port_that_only_the_system_may_have_is_told_with_the_capability() -> None:
    words = _words(PermissionError(errno.EACCES, "Permission denied"))
    assert "permission denied" in words
    assert "CAP_NET_BIND_SERVICE" in words


def test_another_problem_keeps_the_systems_words() -> None:
    assert _words(OSError(errno.EMFILE, os.strerror(errno.EMFILE))) == "too many open files"


def test_a_connection_that_nobody_accepted_yet_waits_in_the_queue() -> None:
    (sock,) = open_listener(f"127.0.0.1:{free_port()}", 1)
    with sock, socket.create_connection(sock.getsockname()) as client:
        client.sendall(b"x")
        got: list[bytes] = []

        def accept() -> None:
            peer, _ = sock.accept()
            with peer:
                got.append(peer.recv(1))

        thread = threading.Thread(target=accept)
        thread.start()
        thread.join(5)
        assert got == [b"x"]
