"""The door: counts over all workers, exact, and forgotten with the worker that wrote them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import door
from proxy.door import Door

SECRET = bytes(range(32))


def block(workers: int) -> memoryview:
    words = memoryview(bytearray(door.size(workers))).cast("Q")
    door.prepare(words, SECRET)
    return words


@pytest.fixture
def doors() -> list[Door]:
    words = block(3)
    return [Door(words, worker, 3) for worker in range(3)]


def test_a_limit_holds_over_all_workers_together(doors: list[Door]) -> None:
    key = doors[0].key(b"a")
    assert [each.enter(key, 3) for each in doors] == [True, True, True]
    assert [each.enter(key, 3) for each in doors] == [False, False, False]
    assert [each.count(key) for each in doors] == [3, 3, 3]
    doors[1].add(key, -1)
    assert doors[2].enter(key, 3)
    assert not doors[1].enter(key, 3)


def test_keys_do_not_count_for_each_other(doors: list[Door]) -> None:
    keys = [doors[0].key(b"%d" % number) for number in range(2_000)]
    assert all(doors[n % 3].enter(key, 1) for n, key in enumerate(keys))
    assert not any(doors[(n + 1) % 3].enter(key, 1) for n, key in enumerate(keys))


def test_every_worker_has_the_same_key_for_a_name_and_others_cannot_know_it() -> None:
    words = block(2)
    first, second = Door(words, 0, 2), Door(words, 1, 2)
    assert first.key(b"a") == second.key(b"a") != first.key(b"b")
    other = memoryview(bytearray(door.size(1))).cast("Q")
    door.prepare(other, b"x" * 32)
    assert Door(other, 0, 1).key(b"a") != first.key(b"a")


def test_what_a_dead_worker_had_counted_is_forgotten_and_nothing_else() -> None:
    words = block(2)
    first, second = Door(words, 0, 2), Door(words, 1, 2)
    key = first.key(b"a")
    first.add(key, 5)
    second.add(key, 2)
    door.clear(words, 0)
    assert second.count(key) == 2
    assert Door(words, 0, 2).count(key) == 2
    assert Door(words, 0, 2).key(b"a") == key, "the secret stays"


def test_a_full_bucket_counts_in_its_own_worker_only(doors: list[Door]) -> None:
    keys = [(each << 30) | 7 for each in range(1, door.WAYS + 2)]
    for key in keys:
        assert doors[0].enter(key, 1)
    assert [doors[1].count(key) for key in keys] == [1] * door.WAYS + [0]
    assert not doors[0].enter(keys[-1], 1), "in its own worker it does count"
    doors[0].add(keys[0], -1)
    doors[0].add(keys[-1], 1)
    assert doors[1].count(keys[-1]) == 2, "a place that has become free is taken"


NAMES = st.integers(0, 5)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), NAMES, st.integers(0, 4), st.booleans()), max_size=80))
def test_counts_are_those_of_a_plain_table(steps: list[tuple[int, int, int, bool]]) -> None:
    words = block(3)
    doors = [Door(words, worker, 3) for worker in range(3)]
    keys = [doors[0].key(b"%d" % name) for name in range(6)]
    plain = {(worker, name): 0 for worker in range(3) for name in range(6)}
    for worker, name, most, leaves in steps:
        total = sum(plain[each, name] for each in range(3))
        if leaves and plain[worker, name]:
            doors[worker].add(keys[name], -1)
            plain[worker, name] -= 1
        elif not leaves:
            assert doors[worker].enter(keys[name], most) == (total < most)
            plain[worker, name] += total < most
        assert all(
            each.count(keys[name]) == sum(plain[other, name] for other in range(3))
            for each in doors
        )
