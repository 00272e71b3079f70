"""Access log: whole lines whatever is in them, bounded, and never in the way of traffic."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxy import stats
from proxy.dataplane import access_log as module
from proxy.dataplane.access_log import AccessLogWriter, encode_combined, encode_json
from proxy.model import WHOLE, AccessLog
from tests.dataplane.box import Box, until
from tests.e2e.wire import request_bytes


def entry(**changed: Any) -> tuple[Any, ...]:
    facts: dict[str, Any] = {
        "wall": 1_700_000_000.25,
        "address": "192.0.2.7",
        "method": b"GET",
        "host": b"shop.example.com",
        "target": b"/a?b=1",
        "old": False,
        "status": 200,
        "bytes_in": 1,
        "bytes_out": 2,
        "duration_s": 0.0123456,
        "pool": None,
        "decision": None,
        "request_id": b"ab" * 16,
        "fields": [b"User-Agent", b": ", b"curl/8", b"\r\n", b"referer", b": ", b"/r", b"\r\n"],
        "trail": None,
        **changed,
    }
    return tuple(facts.values())


def test_a_json_line_is_one_object_with_what_is_known() -> None:
    line = encode_json(entry())
    assert line.endswith(b"\n")
    record = json.loads(line)
    assert record["time"] == "2023-11-14T22:13:20.250Z"
    assert record["client"] == "192.0.2.7"
    assert record["target"] == "/a?b=1"
    assert (record["status"], record["bytes_in"], record["bytes_out"]) == (200, 1, 2)
    assert record["duration_ms"] == 12.346
    assert record["pool"] is None
    assert record["user_agent"] == "curl/8"


def test_a_combined_line_is_what_tools_for_apache_and_nginx_read() -> None:
    assert encode_combined(entry()) == (
        b'192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "GET /a?b=1 HTTP/1.1" 200 2 "/r" "curl/8"\n'
    )
    assert b'"GET /a?b=1 HTTP/1.0"' in encode_combined(entry(old=True))
    assert encode_combined(entry(address="", method=b"", target=b"", fields=[])).startswith(
        b'- - - [14/Nov/2023:22:13:20 +0000] "-" 200 2 "-" "-"'
    )


HOSTILE = [
    b'"',
    b"\\",
    b'\\"',
    b"\t",
    b"\x80\xff",
    b"\xc3\xbc",
    b"\x1b[2J",
    b"a\nb",
    b"a\rb",
    b"\x7f",
]


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_bytes_stay_inside_their_field(evil: bytes) -> None:
    changed = entry(
        target=b"/" + evil,
        host=evil,
        fields=[b"User-Agent", b": ", evil, b"\r\n", b"Referer", b": ", evil, b"\r\n"],
    )
    line = encode_json(changed)
    assert line.count(b"\n") == 1
    assert json.loads(line)["user_agent"] == evil.decode("latin-1")
    combined = encode_combined(changed)
    assert combined.count(b"\n") == 1
    assert not re.search(rb"[\x00-\x1f\x7f]", combined[:-1])
    quoted = re.findall(rb'"((?:[^"\\]|\\.)*)"', combined)
    assert len(quoted) == 3, "three quoted fields, whatever is in them"
    assert re.fullmatch(rb'[^"]*(?:"(?:[^"\\]|\\.)*"[^"]*){3}\n', combined)


async def test_every_exchange_is_a_line(box: Box, tmp_path: Path) -> None:
    endpoint = await box.endpoint()
    log = AccessLog(path=str(tmp_path / "log"))
    await box.apply(box.shop(box.pool("blue", [endpoint], WHOLE, release="v1")), access_log=log)
    wire = await box.client()
    await wire.request("/one?x", headers={"User-Agent": "me"})
    await wire.request("/two", method="POST", body=b"12345")
    await wire.send(b"nonsense\r\n\r\n")
    await wire.answer()
    await until(lambda: box.words[stats.W_LOG_WRITTEN] == 3, "the lines are written")
    one, two, bad = map(json.loads, (tmp_path / "log").read_bytes().splitlines())
    assert (one["target"], one["pool"], one["release"]) == ("/one?x", "blue", "v1")
    assert (two["method"], two["bytes_in"], two["bytes_out"]) == ("POST", 5, 2)
    assert (bad["status"], bad["service"]) == (400, None)
    assert len({one["request_id"], two["request_id"], bad["request_id"]}) == 3


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A named pipe's path and its reading end."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reading
    os.close(reading)


async def test_a_blocked_pipe_drops_lines_and_counts_them_but_blocks_no_request(
    box: Box, pipe: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 50)
    monkeypatch.setattr(module, "BATCH", 10)
    path, reading = pipe
    await box.apply(access_log=AccessLog(path=path))
    wire = await box.client()
    for _ in range(5):
        await wire.send(request_bytes("/" + "x" * 200) * 200)
        for _ in range(200):
            assert (await wire.answer()).status == 404
    dropped = box.words[stats.W_LOG_DROPPED]
    assert dropped > 100
    got = bytearray()
    async with asyncio.timeout(30):
        while box.words[stats.W_LOG_WRITTEN] + box.words[stats.W_LOG_DROPPED] < 1000:
            await _drain(reading, got)
    await _drain(reading, got)
    lines = bytes(got).splitlines()
    assert len(lines) == box.words[stats.W_LOG_WRITTEN]
    assert all(json.loads(line)["status"] == 404 for line in lines)


async def _drain(reading: int, got: bytearray) -> None:
    try:
        got += os.read(reading, 65536)
    except BlockingIOError:
        await asyncio.sleep(0.01)


def test_lines_of_two_workers_never_mix_however_long_they_are(pipe: tuple[str, int]) -> None:
    path, reading = pipe
    words = [memoryview(bytearray(128)).cast("q") for _ in range(2)]
    writers = [AccessLogWriter(AccessLog(path=path), each) for each in words]
    for number in range(300):
        for index, writer in enumerate(writers):
            size = (10, 900, 3_500, 20_000)[number % 4]
            agent = [b"User-Agent", b": ", (b"%d" % index) * size, b"\r\n"]
            target = b"/" + (b"%d" % index) * size
            writer.note(entry(target=target, fields=agent))
    got = bytearray()
    closing = [threading.Thread(target=writer.close) for writer in writers]
    for thread in closing:
        thread.start()
    while any(thread.is_alive() for thread in closing) or _read(reading, got):
        _read(reading, got)
    lines = bytes(got).splitlines()
    assert len(lines) == 600
    for line in lines:
        record = json.loads(line)
        assert len(set(record["user_agent"])) == 1
        assert set(record["target"]) == {"/", record["user_agent"][0]}


def _read(reading: int, got: bytearray) -> int:
    try:
        data = os.read(reading, 65536)
    except BlockingIOError:
        return 0
    got += data
    return len(data)


def test_a_pipe_that_nobody_reads_any_more_only_counts(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    words = memoryview(bytearray(128)).cast("q")
    writer = AccessLogWriter(AccessLog(path=path), words)
    os.close(reading)
    writer.note(entry())
    writer.close()
    assert words[stats.W_LOG_DROPPED] == 1
    assert words[stats.W_LOG_WRITTEN] == 0


def test_a_plain_line_and_one_that_needs_escapes_have_the_same_fields_in_the_same_order() -> None:
    known = {
        "pool": SimpleNamespace(service="shop", name="blue", release=None),
        "decision": SimpleNamespace(bucket=7),
    }
    plain = json.loads(module.encode_json(entry(target=b"/plain", **known)))
    escaped = json.loads(module.encode_json(entry(target=b'/"quoted"\\', **known)))
    assert (plain["service"], plain["release"], plain["bucket"]) == ("shop", None, 7)
    assert list(plain) == list(escaped)
    assert escaped.pop("target") == '/"quoted"\\'
    assert plain.pop("target") == "/plain"
    assert plain == escaped
