from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from proxy.control import codec, drains, verbs
from proxy.control.decision import Author
from proxy.control.drains import DrainRules
from proxy.control.filling import Filling, Member
from proxy.control.state import ServiceState


def test_a_full_state_reads_back_the_same(
    shop: ServiceState, ann: Author, rules: DrainRules
) -> None:
    filling = Filling(members=(Member(address="[::1]:80", weight=3),), release="v43")
    state = verbs.set_weights(shop, {"blue": 9000, "green": 1000}, ann).state
    state = verbs.set_weights(state, {"green": 10_000}, ann, until=2000.0).state
    state = drains.settle(shop, state, rules, now=1000.0, offset=7)
    state = drains.settle(
        state, verbs.set_pool(state, "blue", filling, ann).state, rules, now=1001.0, offset=8
    )
    state = drains.drain(state, "blue", "[::1]:80", rules, ann).state
    state = replace(state, epochs={"green": 2}, revision=12)
    assert state.weights
    assert state.weights.under
    assert state.leaving
    assert state.pool_drains
    assert state.endpoint_drains
    plain = json.loads(json.dumps(codec.to_plain(state)))
    assert codec.from_plain(plain) == state


@pytest.mark.parametrize(
    "plain",
    [{}, [], {"name": "shop"}, {"name": "shop", "file": 3}, None],
)
def test_nonsense_is_an_error_and_no_state(plain: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        codec.from_plain(plain)
