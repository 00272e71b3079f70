"""Messages between processes: everything a snapshot holds comes back as it was, nothing else does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.control.fleet import InFlight
from proxy.model import (
    AccessLog,
    Drain,
    Endpoint,
    Listener,
    Pool,
    Preview,
    Route,
    Service,
    Snapshot,
    Sticky,
    Timeouts,
)
from proxy.process.messages import decode, encode, from_plain, snapshot_from

DRAIN = Drain(since_s=1.5, requests_by_s=31.5, streams_by_s=301.5, spread_s=10.0)
SNAPSHOT = Snapshot(
    revision=7,
    listeners=(
        Listener(
            bind="[::1]:8080",
            trusted_proxies=("10.0.0.0/8", "::1/128"),
            header_s=3,
            idle_s=2.5,
            max_header=1000,
            max_headers=10,
            max_connections=5,
            slot=16,
        ),
        Listener(bind="unix:/run/turnout ü.sock"),
    ),
    services=(
        Service(
            name="shop",
            routes=(Route(host="*.example.com", path="/a"), Route()),
            pools=(
                Pool(
                    name="blue",
                    release="v41",
                    endpoints=(
                        Endpoint(address="127.0.0.1:9001", weight=3, slot=40, drain=DRAIN),
                        Endpoint(address="unix:/run/blue.sock"),
                    ),
                    weight=9_000,
                    epoch=2,
                    slot=100,
                    drain=DRAIN,
                ),
                Pool(name="green", weight=1_000),
            ),
            active="blue",
            offset=1234,
            sticky=Sticky(by="cookie", name="turnout", on_zero="finish", keys=("ab", "cd")),
            preview=Preview(header="X-P", cookie="p", secret="hidden"),
            balance="hash",
            timeouts=Timeouts(connect_s=0.25),
            max_body=10,
            pass_pool=False,
            expose_pool=True,
        ),
    ),
    access_log=AccessLog(path="/var/log/a", format="combined"),
)


def plain(snapshot: Snapshot = SNAPSHOT) -> dict[str, Any]:
    message = decode(encode({"kind": "apply", "snapshot": snapshot}))
    value = message["snapshot"]
    assert isinstance(value, dict)
    return value


def test_a_snapshot_with_everything_in_it_comes_back_equal() -> None:
    assert snapshot_from(plain()) == SNAPSHOT


def test_an_empty_snapshot_comes_back_equal() -> None:
    assert snapshot_from(plain(Snapshot(revision=1))) == Snapshot(revision=1)


def test_fields_that_a_newer_version_added_are_passed_over() -> None:
    newer = plain()
    newer["colour"] = "red"
    newer["services"][0]["pools"][0]["endpoints"][0]["zone"] = {"name": "a"}
    assert snapshot_from(newer) == SNAPSHOT


def test_fields_that_an_older_version_does_not_send_have_their_defaults() -> None:
    older = plain()
    del older["access_log"]
    del older["services"][0]["timeouts"]["connect_s"]
    read = snapshot_from(older)
    assert read.access_log == AccessLog()
    assert read.services[0].timeouts.connect_s == 5.0


def test_whole_seconds_may_come_as_an_integer() -> None:
    assert from_plain(Drain, {"since_s": 1, "requests_by_s": 2, "streams_by_s": 3}) == Drain(
        since_s=1.0, requests_by_s=2.0, streams_by_s=3.0
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("revision", "7"),
        ("revision", None),
        ("revision", 7.5),
        ("revision", True),
        ("listeners", None),
        ("listeners", "abc"),
        ("listeners", {"bind": "a"}),
        ("listeners", ["a"]),
        ("listeners", [{}]),
        ("listeners", [[]]),
        ("listeners", [{"bind": 1}]),
        ("listeners", [{"bind": "a", "idle_s": "x"}]),
        ("listeners", [{"bind": "a", "trusted_proxies": "10.0.0.0/8"}]),
        ("listeners", [{"bind": "a", "trusted_proxies": [1]}]),
        ("services", [None]),
        ("access_log", None),
        ("access_log", {"format": "xml"}),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: object) -> None:
    with pytest.raises((TypeError, KeyError)):
        snapshot_from({**plain(), name: value})


def test_a_pool_without_its_name_is_refused() -> None:
    broken = plain()
    del broken["services"][0]["pools"][1]["name"]
    with pytest.raises((TypeError, KeyError)):
        snapshot_from(broken)


@pytest.mark.parametrize("data", [[], "x", 1, None, {}, {"kind": 1}, {"kind": None}])
def test_only_objects_with_a_kind_are_messages(data: object) -> None:
    with pytest.raises(TypeError):
        decode(orjson.dumps(data))


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="unexpected"):
        decode(b"{")


def test_other_frozen_values_travel_too() -> None:
    item = InFlight(kind="tunnel", age_s=1.5, pool="b", endpoint="e", route="GET /", request_id="1")
    assert from_plain(InFlight, orjson.loads(orjson.dumps(item))) == item
