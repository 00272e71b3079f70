"""Both parsers beside h11: the whole corpus, and every difference that stays shows itself."""

from __future__ import annotations

import pytest

from tests.fuzz import beside_h11
from tests.fuzz.beside_h11 import Explained, Message, Reading
from tests.fuzz.engine import Target
from tests.fuzz.targets import answers_beside_h11, requests_beside_h11

MESSAGE = Message((b"GET", b"/", b"a"), ((b"x", b"1"),), b"body")
TARGETS = (requests_beside_h11, answers_beside_h11)
EXPLAINED = [(target, each) for target in TARGETS for each in target.EXPLAINED]


@pytest.mark.parametrize("target", TARGETS)
def test_of_the_corpus_h11_accepts_what_we_accept_and_reads_the_same(target: Target) -> None:
    for data in target.seeds():
        target.run(data)


@pytest.mark.parametrize(
    "theirs",
    [
        Reading([], "illegal header line"),
        Reading([], ""),
        Reading([MESSAGE._replace(body=b"bod")], ""),
        Reading([MESSAGE._replace(fields=())], ""),
        Reading([MESSAGE._replace(start=(b"GET", b"/", b"b"))], ""),
    ],
    ids=["refused", "missing", "body", "fields", "host"],
)
def test_whatever_h11_reads_otherwise_is_a_finding(theirs: Reading) -> None:
    with pytest.raises(AssertionError):
        beside_h11.check(b"", Reading([MESSAGE], ""), theirs, ())


def test_more_messages_than_ours_are_none() -> None:
    ours, theirs = Reading([MESSAGE], "malformed"), Reading([MESSAGE, MESSAGE], "")
    assert beside_h11.check(b"", ours, theirs, ()) == ""


@pytest.mark.parametrize(("target", "each"), EXPLAINED)
def test_every_difference_that_stays_has_a_reason_and_an_example(
    target: Target, each: Explained
) -> None:
    assert each.why.endswith(".")
    shape = target.run(each.example)
    assert isinstance(shape, tuple)
    why, messages = shape[:2]
    assert why == each.why or not messages  # where we have become strict, too, nothing differs
