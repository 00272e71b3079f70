from __future__ import annotations

from decimal import Decimal

import pytest

from proxy.control.admin.body import parse_object
from proxy.control.admin.desk import Step
from proxy.control.admin.problem import Problem


def errors_of(body: bytes) -> tuple[str, ...]:
    """Read a body of weights and all the common keys; return what is wrong with it."""
    try:
        fields = parse_object(body)
        fields.weights()
        fields.reason()
        fields.ttl_s()
        fields.flag("force")
        fields.done()
    except Problem as problem:
        return problem.errors
    return ()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "the body is not JSON: line 1, column 2: Expecting property name"),
        (b'{"weights":\n {"blue": 1,}}', "line 2, column 13"),
        (b'{"a": 1} x', "line 1, column 10: Extra data"),
        (b"\xff", "the body is not UTF-8: byte 0"),
        (b"[1]", "the body is an array (expected an object)"),
        (b"null", "the body is null (expected an object)"),
        (b'"x"', "the body is a string"),
        (b"[" * 30_000, "nested too deeply"),
        (b'{"weights": {"blue": NaN}}', "NaN is not JSON"),
        (b'{"weights": {"blue": -Infinity}}', "-Infinity is not JSON"),
        (b'{"reason": "a", "reason": "b"}', "reason: given twice"),
        (b'{"reason": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_what_is_no_object_is_refused_with_its_position(body: bytes, error: str) -> None:
    (found,) = errors_of(body)
    assert error in found


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ("{}", "weights: wrong: an object (expected an object of percentages by pool, not empty)"),
        ("[]", "weights: wrong: an array"),
        ('{"blue": "90"}', "weights.blue: wrong: a string (expected a number, percent)"),
        ('{"blue": true}', "weights.blue: wrong: a boolean"),
        ('{"blue": null}', "weights.blue: wrong: null"),
        ('{"blue": 0.001}', "weights.blue: too precise (expected two decimals at most)"),
        ('{"blue": 33.333}', "too precise"),
        ('{"blue": 10.00000000000000000000000000000000000001}', "too precise"),
        ('{"blue": -0.01}', "weights.blue: out of range (expected 0 to 100)"),
        ('{"blue": 100.01}', "out of range"),
        ('{"blue": 1e999999}', "out of range"),
    ],
)
def test_weights_are_percent_with_two_decimals(weights: str, error: str) -> None:
    (found,) = errors_of(f'{{"weights": {weights}}}'.encode())
    assert error in found


def test_a_number_of_ten_thousand_digits_is_out_of_range_not_a_failure() -> None:
    (found,) = errors_of(b'{"weights": {"blue": ' + b"9" * 10_000 + b"}}")
    assert "out of range" in found


@pytest.mark.parametrize("written", ["37.5", "37.50", "37.500", "3750e-2", "3.75E1"])
def test_the_same_share_may_be_written_in_many_ways(written: str) -> None:
    fields = parse_object(f'{{"weights": {{"blue": {written}}}}}'.encode())
    assert fields.weights() == {"blue": Decimal("37.5")}
    fields.done()


def test_a_surrogate_pair_is_one_character() -> None:
    fields = parse_object(b'{"reason": "\\ud83d\\ude80"}')
    assert fields.reason() == "\U0001f680"


def test_all_that_is_wrong_is_said_at_once() -> None:
    body = b'{"weihgts": {"blue": 1}, "ttl": 5, "force": "yes", "reason": 1, "guard": {}}'
    assert errors_of(body) == (
        'weights: missing (expected an object such as {"blue": 90})',
        "reason: wrong: a number (expected a string)",
        'ttl: wrong: a number (expected a duration such as "2h")',
        "force: wrong: a string (expected true or false)",
        "weihgts: unknown key (did you mean weights?)",
        "guard: unknown key (known: force, reason, ttl, weights)",
    )


@pytest.mark.parametrize(
    ("ttl", "error"),
    [
        ("soon", "ttl: 'soon' is no duration"),
        ("", "ttl: '' is no duration"),
        ("0", "ttl: 0 is out of range"),
        ("0s", "out of range"),
        ("367d", "ttl: 367d is out of range"),
        ("-5m", "is no duration"),
    ],
)
def test_a_ttl_is_a_duration_in_reason(ttl: str, error: str) -> None:
    (found,) = errors_of(f'{{"weights": {{"blue": 1}}, "ttl": "{ttl}"}}'.encode())
    assert error in found


def test_what_may_be_absent_may_be_null_where_none_makes_sense() -> None:
    fields = parse_object(b'{"ttl": null, "pool": null}')
    assert fields.ttl_s() is None
    assert fields.name_or_none("pool") is None
    fields.done()


def test_a_long_reason_is_refused() -> None:
    assert "500 characters" in errors_of(b'{"weights": {"b": 1}, "reason": "%s"}' % (b"x" * 501))[0]


@pytest.mark.parametrize(
    ("endpoints", "error"),
    [
        ('"127.0.0.1:1"', "endpoints: wrong: a string (expected an array of addresses)"),
        ("[1]", "endpoints[0]: wrong: a number"),
        ('["a:1", ""]', "endpoints[1]: wrong: a string"),
        ('["a:1", "a:1"]', "endpoints: a:1 is given twice"),
        ('[{"adress": "a:1"}]', "endpoints[0].adress: unknown key (did you mean address?)"),
        ('[{"weight": 2}]', "endpoints[0].address: wrong: null (expected an address)"),
        ('[{"address": "a:1", "weight": 0}]', "endpoints[0].weight: wrong"),
        ('[{"address": "a:1", "weight": 1.5}]', "endpoints[0].weight: wrong"),
        ('[{"address": "a:1", "weight": true}]', "endpoints[0].weight: wrong: a boolean"),
        ('[{"address": "a:1", "weight": 1e99}]', "endpoints[0].weight: wrong"),
    ],
)
def test_endpoints_are_addresses_with_whole_weights(endpoints: str, error: str) -> None:
    fields = parse_object(f'{{"endpoints": {endpoints}}}'.encode())
    fields.endpoints()
    with pytest.raises(Problem) as raised:
        fields.done()
    assert error in raised.value.errors[0]


def test_a_name_that_must_be_there_is_missed() -> None:
    for body, error in ((b"", "to: missing"), (b'{"to": ""}', "to: empty"), (b'{"to": 1}', "to: ")):
        fields = parse_object(body)
        fields.name("to")
        with pytest.raises(Problem, match=error):
            fields.done()


def steps_of(written: str) -> tuple[list[Step] | None, tuple[str, ...]]:
    """The steps of a body, or what is wrong with them."""
    fields = parse_object(f'{{"steps": {written}}}'.encode())
    found = fields.steps()
    return found, tuple(fields.errors())


def test_steps_are_weights_in_hundredths_with_their_bake() -> None:
    written = (
        '[{"weight": 0.25, "bake": "1h30m"}, {"weight": 33.3, "pause": true}, {"weight": 1E2}]'
    )
    assert steps_of(written) == ([(25, 5400.0, False), (3330, 0.0, True), (10_000, 0.0, False)], ())
    assert steps_of("null") == (None, ())


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ("[]", "steps: wrong: an array (expected an array of 1 to 100 steps)"),
        ("{}", "steps: wrong: an object"),
        ("[10]", 'steps[0]: wrong: a number (expected an object such as {"weight": 10'),
        ("[{}]", "steps[0].weight: missing (expected a number, percent)"),
        ('[{"weight": "10"}]', "steps[0].weight: wrong: a string"),
        ('[{"weight": 10.001}]', "steps[0].weight: too precise"),
        ('[{"weight": 101}]', "steps[0].weight: out of range"),
        ('[{"weight": 100, "bake": 5}]', "steps[0].bake: wrong: a number"),
        ('[{"weight": 100, "bake": "90d"}]', "steps[0].bake: 90d is out of range"),
        ('[{"weight": 100, "pause": 1}]', "steps[0].pause: wrong: a number"),
        ('[{"weight": 100, "baked": "5m"}]', "steps[0].baked: unknown key (did you mean bake?)"),
        ('[{"weight": 0}, {"weight": 100}]', "steps[0].weight: is 0, not above 0"),
        (
            '[{"weight": 10}, {"weight": 10}, {"weight": 100}]',
            "steps[1].weight: is 10, not above the step before (expected weights that rise)",
        ),
        (
            '[{"weight": 1}, {"weight": 99.5}]',
            "steps[1].weight: is 99.5, and nothing comes after it (expected 100 in the last step)",
        ),
    ],
)
def test_steps_that_do_not_rise_to_100_are_refused(steps: str, error: str) -> None:
    _, (found,) = steps_of(steps)
    assert found.startswith(error)


def test_there_are_at_most_a_hundred_steps() -> None:
    written = ", ".join(f'{{"weight": {number / 2}}}' for number in range(1, 201))
    _, (found,) = steps_of(f"[{written}]")
    assert "1 to 100 steps" in found
