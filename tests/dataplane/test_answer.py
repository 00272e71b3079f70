"""The proxy's own answers: short, explained, and in the form the client prefers."""

from __future__ import annotations

import json

import pytest

from proxy.dataplane import faults
from proxy.dataplane.answer import own_answer
from proxy.errors import Fault
from proxy.stats import FAILURE_KINDS

FAULTS = [fault for fault in vars(faults).values() if isinstance(fault, Fault)]


def answer(fault: Fault, **changed: bool) -> tuple[list[bytes], bytes]:
    how = {"is_head": False, "keep_alive": True, "json_wanted": False, **changed}
    head, _, body = own_answer(fault, b"abc", **how).partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.error)
def test_every_fault_is_told_with_its_token_and_the_requests_id(fault: Fault) -> None:
    head, body = answer(fault)
    assert head[0].startswith(b"HTTP/1.1 %d " % fault.status)
    assert b"Proxy-Status: turnout; error=%b" % fault.error.encode() in head
    assert b"X-Request-ID: abc" in head
    assert b"Content-Length: %d" % len(body) in head
    assert fault.sentence.encode() in body
    assert (b"Retry-After: 1" in head) == (fault.status in {429, 503})
    assert fault.kind is None or fault.kind in FAILURE_KINDS


def test_json_is_a_problem_document_of_the_same_content() -> None:
    head, body = answer(faults.NO_POOL, json_wanted=True)
    assert b"Content-Type: application/problem+json" in head
    problem = json.loads(body)
    assert problem["status"] == 503
    assert problem["detail"] == faults.NO_POOL.sentence
    assert problem["request_id"] == "abc"


def test_head_gets_the_length_but_no_body() -> None:
    head, body = answer(faults.NO_ROUTE, is_head=True)
    assert body == b""
    assert b"Content-Length: %d" % len(answer(faults.NO_ROUTE)[1]) in head


def test_the_last_answer_of_a_connection_says_so() -> None:
    assert b"Connection: close" in answer(faults.NO_ROUTE, keep_alive=False)[0]
    assert b"Connection: close" not in answer(faults.NO_ROUTE)[0]


def test_what_is_malformed_is_told_as_a_sentence() -> None:
    fault = faults.malformed(431, "there are too many headers")
    assert fault.sentence == "There are too many headers."
    assert answer(fault)[0][0] == b"HTTP/1.1 431 Request Header Fields Too Large"
