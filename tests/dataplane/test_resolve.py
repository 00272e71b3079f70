"""Names of endpoints: looked up once, again in the background, never many at once, never forgotten."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from proxy import stats
from proxy.clock import ManualClock
from proxy.dataplane import resolve as module
from proxy.dataplane.resolve import HostName, Resolver, is_name, system_resolve
from tests.dataplane.box import until

Answer = list[str] | Exception


class Names:
    """A name service that answers as it is told, or not before it is told."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.now_asking = 0
        self.most_asking = 0
        self.open = asyncio.Event()
        self.open.set()

    async def resolve(self, host: str, _: int) -> list[str]:
        self.asked.append(host)
        self.now_asking += 1
        self.most_asking = max(self.most_asking, self.now_asking)
        try:
            await self.open.wait()
        finally:
            self.now_asking -= 1
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


class Desk:
    """A resolver over such a name service, its time, and what it told."""

    def __init__(self) -> None:
        self.names = Names()
        self.clock = ManualClock()
        self.words = memoryview(bytearray(8 * stats.WORKER_WORDS)).cast("q")
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.problems: list[BaseException] = []
        self.changes: list[frozenset[str]] = []
        self.resolver = Resolver(
            self.words,
            self.clock,
            self.names.resolve,
            lambda _, error: self.problems.append(error),
            lambda event, facts: self.told.append((event, facts)),
        )

    def name(self, host: str, *addresses: str) -> HostName:
        if addresses:
            self.names.answers[host] = list(addresses)
        return HostName(host, 80, self.changes.append)

    async def refreshed(self, name: HostName, after_s: float, *, is_busy: bool = True) -> bool:
        """Whether a sweep so much later looks it up again."""
        self.clock.advance(after_s)
        before = len(self.names.asked)
        self.resolver.refresh(name, is_busy=is_busy)
        await until(lambda: name.lookup is None, "the lookup ends")
        assert not self.problems
        return len(self.names.asked) > before


@pytest.fixture
async def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("localhost", True)],
)
def test_only_what_is_no_address_is_looked_up(host: str, expected: bool) -> None:  # noqa: FBT001
    assert is_name(host) is expected


async def test_only_the_first_lookup_is_waited_for(desk: Desk) -> None:
    name = desk.name("app", "10.0.0.1")
    assert await desk.resolver.addresses(name) == ["10.0.0.1"]
    desk.clock.advance(1000)
    assert await desk.resolver.addresses(name) == ["10.0.0.1"]
    assert desk.names.asked == ["app"]
    assert desk.words[stats.W_LOOKUPS] == 1


async def test_all_who_wait_share_one_lookup(desk: Desk) -> None:
    name = desk.name("app", "10.0.0.1")
    found = await asyncio.gather(*(desk.resolver.addresses(name) for _ in range(20)))
    assert found == [["10.0.0.1"]] * 20
    assert desk.names.asked == ["app"]


async def test_a_busy_name_is_looked_up_again_every_ten_seconds_or_so(desk: Desk) -> None:
    name = desk.name("app", "10.0.0.1")
    assert await desk.refreshed(name, 0)
    assert not await desk.refreshed(name, 8.9)
    assert await desk.refreshed(name, 2.2)


async def test_an_idle_name_is_looked_up_again_within_half_a_minute(desk: Desk) -> None:
    name = desk.name("app", "10.0.0.1")
    assert await desk.refreshed(name, 0, is_busy=False), "the first time at once"
    assert not await desk.refreshed(name, 23.9, is_busy=False)
    assert await desk.refreshed(name, 2.2, is_busy=False)


async def test_a_lookup_that_fails_leaves_the_last_good_addresses(desk: Desk) -> None:
    name = desk.name("app", "10.0.0.1")
    await desk.resolver.addresses(name)
    desk.names.answers["app"] = socket.gaierror(socket.EAI_AGAIN, "try again")
    assert await desk.refreshed(name, 12)
    for _ in range(3):
        assert await desk.refreshed(name, module.FAILED_AGAIN_S * 1.2), (
            "sooner than when all is well"
        )
        assert await desk.resolver.addresses(name) == ["10.0.0.1"]
    assert desk.words[stats.W_LOOKUPS_FAILED] == 4
    assert desk.told == [
        ("name not resolved", {"name": "app", "error": "try again", "kept": ["10.0.0.1"]})
    ], "told once"
    desk.names.answers["app"] = ["10.0.0.2"]
    assert await desk.refreshed(name, module.FAILED_AGAIN_S * 1.2)
    assert desk.told[1] == ("name resolved again", {"name": "app", "addresses": ["10.0.0.2"]})
    assert desk.changes == [frozenset({"10.0.0.1"}), frozenset({"10.0.0.2"})]


@pytest.mark.parametrize(
    "answer", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("too long"), []]
)
async def test_a_name_that_was_never_known_is_an_error_and_asked_for_again(
    desk: Desk, answer: Answer
) -> None:
    name = desk.name("app")
    desk.names.answers["app"] = answer
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await desk.resolver.addresses(name)
    assert desk.names.asked == ["app", "app"]
    desk.names.answers["app"] = ["10.0.0.1"]
    assert await desk.resolver.addresses(name) == ["10.0.0.1"]


async def test_a_lookup_that_does_not_end_is_told_and_never_doubled(desk: Desk) -> None:
    name = desk.name("app", "10.0.0.1")
    await desk.resolver.addresses(name)
    desk.names.open.clear()
    desk.clock.advance(12)
    desk.resolver.refresh(name, is_busy=True)
    for _ in range(20):
        desk.clock.advance(5)
        desk.resolver.refresh(name, is_busy=True)
        await asyncio.sleep(0)
    assert desk.names.asked == ["app", "app"]
    assert [event for event, _ in desk.told] == ["name not resolved"]
    assert await desk.resolver.addresses(name) == ["10.0.0.1"], "nobody waits for it"
    desk.names.open.set()
    await until(lambda: name.lookup is None, "it ends")
    assert desk.told[-1][0] == "name resolved again"


async def test_only_a_few_lookups_run_at_once(desk: Desk) -> None:
    names = [desk.name(f"app{number}", "10.0.0.1") for number in range(20)]
    desk.names.open.clear()
    for name in names:
        desk.resolver.refresh(name, is_busy=True)
    await until(lambda: desk.names.now_asking == module.LOOKUPS_AT_ONCE, "some have begun")
    desk.names.open.set()
    await until(lambda: all(name.addresses for name in names), "all are known")
    assert desk.names.most_asking == module.LOOKUPS_AT_ONCE


async def test_a_lookup_goes_on_when_whoever_waited_has_gone(desk: Desk) -> None:
    name = desk.name("app", "10.0.0.1")
    desk.names.open.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await desk.resolver.addresses(name)
    desk.names.open.set()
    await until(lambda: name.addresses == ("10.0.0.1",), "it has ended well")
    assert desk.names.asked == ["app"]


async def test_closing_ends_the_lookups_and_those_who_wait(desk: Desk) -> None:
    name = desk.name("app", "10.0.0.1")
    desk.names.open.clear()
    waiting = asyncio.gather(desk.resolver.addresses(name), return_exceptions=True)
    await until(lambda: desk.names.now_asking, "it has begun")
    desk.resolver.close()
    (outcome,) = await waiting
    assert isinstance(outcome, OSError)


async def test_addresses_are_taken_in_turn(desk: Desk) -> None:
    name = desk.name("app", "a", "b", "c")
    firsts = [(await desk.resolver.addresses(name))[0] for _ in range(9)]
    assert sorted(firsts) == sorted("abc" * 3)
    assert all(len(set(firsts[at : at + 3])) == 3 for at in range(7))


async def test_an_address_passed_over_is_tried_last_for_a_second(desk: Desk) -> None:
    name = desk.name("app", "a", "b", "c")
    await desk.resolver.addresses(name)
    name.pass_over("b", desk.clock.monotonic())
    for _ in range(3):
        order = await desk.resolver.addresses(name)
        assert sorted(order) == ["a", "b", "c"]
        assert order[-1] == "b"
    desk.clock.advance(module.PASSED_OVER_S + 0.1)
    assert "b" in [(await desk.resolver.addresses(name))[0] for _ in range(3)]


async def test_another_order_of_the_same_addresses_is_no_change(desk: Desk) -> None:
    name = desk.name("app", "a", "b")
    name.take(["a", "b"])
    name.take(["b", "a", "b"])
    assert name.addresses == ("a", "b")
    assert desk.changes == [frozenset("ab")]


async def test_what_a_name_may_have_is_bounded(desk: Desk) -> None:
    name = desk.name("app")
    name.take([f"10.0.0.{number}" for number in range(200)])
    assert len(name.addresses) == module.MOST_ADDRESSES


async def test_the_system_knows_localhost() -> None:
    found = await system_resolve("localhost", 80)
    assert found
    assert set(found) <= {"127.0.0.1", "::1"}


def test_a_link_local_address_keeps_its_scope() -> None:
    assert module._in_words(("fe80::1", 80, 0, 2)) == "fe80::1%2"
    assert module._in_words(("fe80::1%eth0", 80, 0, 2)) == "fe80::1%eth0"
    assert module._in_words(("2001:db8::1", 80, 0, 0)) == "2001:db8::1"
    assert module._in_words(("10.0.0.1", 80)) == "10.0.0.1"
