"""Access log lines: made when an exchange is over, written by a thread in batches.

Nothing here can block traffic: what waits is bounded, what does not fit is dropped and
counted. Lines are written whole, and to a pipe in pieces it takes at once, so that the
lines of several workers do not mix. They are made on the loop, since a second thread
that makes them costs more in changes of the interpreter's lock than the lines (measured:
8 us a request against 3).
"""

from __future__ import annotations

import os
import queue
import re
import stat
import threading
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from proxy import stats
from proxy.model import AccessLog

if TYPE_CHECKING:
    from proxy.dataplane.downstream import Downstream
    from proxy.dataplane.exchange import Exchange
    from proxy.errors import Fault

MAX_WAITING = 65_536
"""Lines that wait for the disk before further ones are dropped."""
PIECE = 4096
"""What a pipe takes as one (PIPE_BUF of Linux)."""
LARGE_PIECE = 256 * 1024
BATCH = 500
"""Lines handed to the thread at once, if the sweep does not hand them over before."""
LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
"""Not to block: a pipe without a reader is refused at once instead of waited for."""
LOG_MODE = 0o640

Entry = tuple[Any, ...]


class AccessLogWriter:
    def __init__(self, spec: AccessLog, words: memoryview) -> None:
        self._words = words
        self._encode = encode_json if spec.format == "json" else encode_combined
        self._fd = 1 if spec.path == "stdout" else _open(spec.path)
        self._piece = PIECE if stat.S_ISFIFO(os.fstat(self._fd).st_mode) else LARGE_PIECE
        # on the loop
        self._lines: list[bytes] = []
        self._handed = 0
        self._told = (0, 0)
        # by the thread
        self._written = 0
        self._failed = 0
        self._batches: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def add(self, exchange: Exchange, duration_s: float) -> None:
        """Note a finished exchange."""
        pool, head, client = exchange.pool, exchange.head, exchange.client
        self.note(
            (
                exchange.plane.clock.wall,
                client.origin.address,
                head.method,
                head.host,
                head.target,
                head.version_1_0,
                exchange.status,
                exchange.bytes_in,
                exchange.bytes_out,
                duration_s,
                pool,
                exchange.decision,
                exchange.request_id,
                head.fields,
                exchange.trail,
            )
        )

    def add_refused(self, client: Downstream, fault: Fault, request_id: bytes) -> None:
        """Note a request that was refused before it was read."""
        plane, address, nothing = client.plane, client.origin.address, b""
        head = (plane.clock.wall, address, nothing, nothing, nothing, False)
        self.note((*head, fault.status, 0, 0, 0.0, None, None, request_id, [], None))

    def note(self, entry: Entry) -> None:
        """Make the line of an entry, unless too many wait already."""
        if self._handed - self._written - self._failed > MAX_WAITING:
            self._words[stats.W_LOG_DROPPED] += 1
            return
        line = self._encode(entry)
        if len(line) > PIECE:  # a pipe would let another worker's lines into it
            line = self._encode(_shortened(entry))
        self._lines.append(line)
        if len(self._lines) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Hand the lines to the thread, and publish what it has done; called by the sweep."""
        lines = self._lines
        if lines:
            self._lines = []
            self._handed += len(lines)
            self._batches.put(lines)
        done = (self._written, self._failed)
        if done != self._told:
            self._words[stats.W_LOG_WRITTEN] += done[0] - self._told[0]
            self._words[stats.W_LOG_DROPPED] += done[1] - self._told[1]
            self._told = done

    def close(self) -> None:
        """Write what waits (for two seconds at most) and close the file."""
        self.flush()
        self._batches.put(None)
        self._thread.join(2.0)
        self.flush()
        if self._fd != 1 and not self._thread.is_alive():
            os.close(self._fd)

    # ---- the thread ----

    def _run(self) -> None:
        while (lines := self._batches.get()) is not None:
            piece: list[bytes] = []
            size = 0
            for line in lines:
                if size + len(line) > self._piece and piece:
                    self._write(piece)
                    piece, size = [], 0
                piece.append(line)
                size += len(line)
            self._write(piece)

    def _write(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # a full disk or a closed pipe must not stop traffic
            self._failed += len(lines)
        else:
            self._written += len(lines)


def _open(path: str) -> int:
    descriptor = os.open(path, LOG_FLAGS, LOG_MODE)
    os.set_blocking(descriptor, True)  # only the thread waits
    return descriptor


def _shortened(entry: Entry) -> Entry:
    """The same with what strangers chose cut, so that its line fits into PIECE in either format."""
    wall, address, method, host, target = entry[:5]
    request_id, fields, trail = entry[12:]
    read = (b"user-agent", b"referer")
    kept = [
        item[:256]
        for index in range(0, len(fields), 4)
        if fields[index].lower() in read
        for item in fields[index : index + 4]
    ]
    cut = (wall, address, method, host[:255], target[:600])
    return (*cut, *entry[5:12], request_id[:128], kept, trail)


def _header(fields: list[bytes], name: bytes) -> bytes:
    for index in range(0, len(fields), 4):
        if fields[index].lower() == name:
            return fields[index + 2]
    return b""


@lru_cache(maxsize=256)
def _pool_part(service: str, pool: str, release: str | None) -> bytes:
    return orjson.dumps({"service": service, "pool": pool, "release": release})[1:-1]


_NEEDS_ESCAPE = re.compile(rb"[^ !#-\[\]-~]").search
"""What JSON would write in another way, or is no ASCII."""
_JSON = (
    b'{"time":"%b","client":"%b","method":"%b","host":"%b","target":"%b","status":%d,'
    b'"bytes_in":%d,"bytes_out":%d,"duration_ms":%.3f,%b,"bucket":%d,'
    b'"request_id":"%b","user_agent":"%b"}\n'
)


def encode_json(entry: Entry) -> bytes:
    """One JSON object a line.

    Nearly every line is plain text between fixed words: filling them in costs a third of
    what a dict and an encoder cost under load. The others take the long way.
    """
    (
        wall, address, method, host, target, _, status,
        bytes_in, bytes_out, duration_s, pool, decision, request_id, fields, trail,
    ) = entry  # fmt: skip
    agent = _header(fields, b"user-agent")
    has_failed = trail is not None and trail.fault is not None
    if (
        pool is not None
        and not has_failed
        and _NEEDS_ESCAPE(b"%b%b%b%b" % (host, target, request_id, agent)) is None
    ):
        return _JSON % (
            _iso(wall), address.encode(), method, host, target, status,
            bytes_in, bytes_out, duration_s * 1000,
            _pool_part(pool.service, pool.name, pool.release), decision.bucket,
            request_id, agent,
        )  # fmt: skip
    record = {
        "time": _iso(wall).decode(),
        "client": address,
        "method": str(method, "latin-1"),
        "host": str(host, "latin-1"),
        "target": str(target, "latin-1"),
        "status": status,
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "duration_ms": round(duration_s * 1000, 3),
        "service": pool.service if pool is not None else None,
        "pool": pool.name if pool is not None else None,
        "release": pool.release if pool is not None else None,
        "bucket": decision.bucket if decision is not None else None,
        "request_id": str(request_id, "latin-1"),
        "user_agent": str(agent, "latin-1"),
    }
    if has_failed:
        first = {"endpoint": trail.address, "error": trail.fault.error}
        record |= {"attempts": trail.attempts, "first_failure": first}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def encode_combined(entry: Entry) -> bytes:
    """The combined format of Apache and nginx."""
    wall, address, method, _, target, old, status, _, bytes_out = entry[:9]
    fields = entry[13]
    when = _day_and_time(int(wall))
    request = f"{method.decode('latin-1')} {target.decode('latin-1')} HTTP/1.{0 if old else 1}"
    line = '{} - - [{}] "{}" {} {} "{}" "{}"\n'.format(
        address or "-",
        when,
        _quoted(request if method else "-"),
        status,
        bytes_out,
        _quoted(str(_header(fields, b"referer"), "latin-1") or "-"),
        _quoted(str(_header(fields, b"user-agent"), "latin-1") or "-"),
    )
    return line.encode("latin-1", "replace")


_ESCAPES = {
    **{code: f"\\x{code:02x}" for code in (*range(32), 127)},
    ord("\\"): "\\\\",
    ord('"'): '\\"',
}


def _quoted(text: str) -> str:
    return text.translate(_ESCAPES)


@lru_cache(maxsize=16)
def _day_and_time(wall: int) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


@lru_cache(maxsize=64)
def _iso(wall: float) -> bytes:
    # The wall clock is a coarse one: all lines of a tenth of a second have the same time.
    text = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z").encode()
