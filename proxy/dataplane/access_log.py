"""Access log lines: noted on the loop as tuples, encoded and written by a thread.

Nothing here can block traffic: the queue is bounded, what does not fit is dropped
and counted. Lines are written whole, in pieces a pipe takes at once, so that the
lines of several workers do not mix.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
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
FLUSH_S = 0.25
LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
LOG_MODE = 0o640

Entry = tuple[Any, ...]


class AccessLogWriter:
    def __init__(self, spec: AccessLog, words: memoryview) -> None:
        self._words = words
        self._encode = encode_json if spec.format == "json" else encode_combined
        self._fd = 1 if spec.path == "stdout" else _open(spec.path)
        self._entries: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def add(self, exchange: Exchange, duration_s: float) -> None:
        """Note a finished exchange."""
        entries = self._entries
        if entries.qsize() > MAX_WAITING:
            self._words[stats.W_LOG_DROPPED] += 1
            return
        pool, head, client = exchange.pool, exchange.head, exchange.client
        entries.put(
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
            )
        )

    def add_refused(self, client: Downstream, fault: Fault, request_id: bytes) -> None:
        """Note a request that was refused before it was read."""
        if self._entries.qsize() > MAX_WAITING:
            self._words[stats.W_LOG_DROPPED] += 1
            return
        wall = client.plane.clock.wall
        address = client.origin.address
        self._entries.put(
            (
                wall,
                address,
                b"",
                b"",
                b"",
                False,
                fault.status,
                0,
                0,
                0.0,
                None,
                None,
                request_id,
                [],
            )
        )

    def close(self) -> None:
        """Write what waits (for two seconds at most) and close the file."""
        self._entries.put(None)
        self._thread.join(2.0)
        if self._fd != 1 and not self._thread.is_alive():
            os.close(self._fd)

    # ---- the thread ----

    def _run(self) -> None:
        entries = self._entries
        while True:
            entry = entries.get()
            batch: list[bytes] = []
            size = 0
            while entry is not None:
                line = self._encode(entry)
                if len(line) > PIECE:  # a pipe would let another worker's lines into it
                    line = self._encode(_shortened(entry))
                if size + len(line) > PIECE and batch:
                    self._write(batch)
                    batch, size = [], 0
                batch.append(line)
                size += len(line)
                try:
                    entry = entries.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._write(batch)
            if entry is None:
                return
            time.sleep(FLUSH_S)  # gather lines: one write for many requests

    def _write(self, batch: list[bytes]) -> None:
        data = memoryview(b"".join(batch))
        with contextlib.suppress(OSError):  # a full disk or a closed pipe must not stop traffic
            while data:
                data = data[os.write(self._fd, data) :]
            self._words[stats.W_LOG_WRITTEN] += len(batch)
            return
        self._words[stats.W_LOG_DROPPED] += len(batch)


def _open(path: str) -> int:
    return os.open(path, LOG_FLAGS, LOG_MODE)


def _shortened(entry: Entry) -> Entry:
    """The same with what strangers chose cut, so that its line fits into PIECE in either format."""
    wall, address, method, host, target = entry[:5]
    request_id, fields = entry[12:]
    read = (b"user-agent", b"referer")
    kept = [
        item[:256]
        for index in range(0, len(fields), 4)
        if fields[index].lower() in read
        for item in fields[index : index + 4]
    ]
    cut = (wall, address, method, host[:255], target[:600])
    return (*cut, *entry[5:12], request_id[:128], kept)


def _header(fields: list[bytes], name: bytes) -> str:
    for index in range(0, len(fields), 4):
        if fields[index].lower() == name:
            return fields[index + 2].decode("latin-1")
    return ""


def encode_json(entry: Entry) -> bytes:
    """One JSON object a line."""
    (
        wall, address, method, host, target, _, status,
        bytes_in, bytes_out, duration_s, pool, decision, request_id, fields,
    ) = entry  # fmt: skip
    record = {
        "time": _iso(wall),
        "client": address,
        "method": str(method, "latin-1"),
        "host": str(host, "latin-1"),
        "target": str(target, "latin-1"),
        "status": status,
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "duration_ms": int(duration_s * 1e6) / 1000,
        "service": pool.service if pool is not None else None,
        "pool": pool.name if pool is not None else None,
        "release": pool.release if pool is not None else None,
        "bucket": decision.bucket if decision is not None else None,
        "request_id": str(request_id, "latin-1"),
        "user_agent": _header(fields, b"user-agent"),
    }
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
        _quoted(_header(fields, b"referer") or "-"),
        _quoted(_header(fields, b"user-agent") or "-"),
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
def _iso(wall: float) -> str:
    # The wall clock is a coarse one: all lines of a tenth of a second have the same time.
    return (
        datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
