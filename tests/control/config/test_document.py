from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.control.config import document
from proxy.control.config.document import Unreadable, decode, position, read
from proxy.control.config.values import Expanded


def _unreadable(text: str) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        read(text, {})
    return caught.value


def test_values_are_those_of_yaml_1_2() -> None:
    text = "{a: 1, b: 1.5, c: true, d: off, e: 12:30, f: 0o17, g: null, h: '1', i: [x, ~]}"
    expected = {"a": 1, "b": 1.5, "c": True, "d": "off", "e": "12:30", "f": 15, "g": None}
    assert read(text, {}).value == {**expected, "h": "1", "i": ["x", None]}


def test_every_value_knows_its_line_and_column_and_those_of_its_key() -> None:
    places = read("a: 1\nb:\n  - x\n  - {c: é, d: 2}\n", {}).places
    assert (places["a",].line, places["a",].column) == (1, 4)
    assert (places["b",].key_line, places["b",].key_column) == (2, 1)
    assert (places["b", 0].line, places["b", 0].column) == (3, 5)
    assert (places["b", 1, "d"].line, places["b", 1, "d"].column) == (4, 15)


def test_columns_count_characters_not_bytes() -> None:
    assert read("{é: ü, ö: x}", {}).places["ö",].column == 11


def test_the_environment_is_expanded_in_values_plain_or_quoted() -> None:
    values = read("a: ${N}\nb: '${N}'\nc: {d: \"x${N}\"}\ne: $N", {"N": "4"}).value
    assert values == {"a": "4", "b": "4", "c": {"d": "x4"}, "e": "$N"}
    assert isinstance(values["a"], Expanded)
    assert isinstance(values["b"], Expanded)


def test_an_unset_variable_is_a_finding_at_its_place() -> None:
    found = read("a:\n  - ${NOPE}", {}).findings
    assert [(finding.path, finding.what) for finding in found] == [
        (("a", 0), "the environment variable NOPE is not set")
    ]


def test_every_duplicate_key_is_found_and_points_at_the_first() -> None:
    found = read("a: 1\nb: {c: 1, c: 2}\na: 2\na: 3\n", {}).findings
    assert [(finding.path, finding.what, finding.place) for finding in found] == [
        (("b", "c"), "duplicate key, first given on line 2", (2, 11)),
        (("a",), "duplicate key, first given on line 1", (3, 1)),
        (("a",), "duplicate key, first given on line 1", (4, 1)),
    ]


@pytest.mark.parametrize(
    "text", ["1: x", "true: x", "~: x", "? [a]\n: x", "? {a: b}\n: x", "!!binary aGk=: x"]
)
def test_a_key_that_is_no_string_is_a_finding(text: str) -> None:
    (finding,) = read(text, {}).findings
    assert finding.what.endswith("is no string")


@pytest.mark.parametrize("text", ["a: !foo x", "a: !!python/name:os.system x", "a: !foo {b: c}"])
def test_tags_are_refused_and_run_nothing(text: str) -> None:
    (finding,) = read(text, {}).findings
    assert finding.what.startswith("has the tag")


@pytest.mark.parametrize("text", ["a: !!int x", "a: !!bool maybe", "a: " + "9" * 5000])
def test_a_value_that_cannot_be_read_as_its_type_is_a_finding(text: str) -> None:
    (finding,) = read(text, {}).findings
    assert finding.what.endswith("cannot be read as its type")


def test_aliases_work_and_share_nothing() -> None:
    value = read("a: &x {b: [1]}\nc: *x\n", {}).value
    assert value["c"] == value["a"]
    assert value["c"] is not value["a"]
    assert value["c"]["b"] is not value["a"]["b"]


def test_an_alias_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "more than 100000 values" in _unreadable("\n".join(lines)).what


def test_an_alias_chain_cannot_be_deeper_than_what_is_written_out() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 100)]
    assert "nested more than" in _unreadable("\n".join(lines)).what


def test_an_alias_to_itself_is_refused() -> None:
    assert _unreadable("a: &x [*x]").what == "contains itself by an alias"


@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? "])
def test_nesting_that_would_exhaust_the_stack_is_refused_before_it_does(unit: str) -> None:
    error = _unreadable(unit * 200_000)
    assert error.what == "is nested more than 32 levels deep"
    assert error.line == 1


@pytest.mark.parametrize(
    "text", ["a: {b: ${X}}", "a: [${X}]", "a:\n  - {b: 1, c: ${X:-d}}", "a: {b: x, c: ${X}, d: e}"]
)
def test_an_unquoted_variable_in_flow_style_is_told_to_be_quoted(text: str) -> None:
    error = _unreadable(text)
    assert error.what == "an environment variable stands here without quotes"
    assert text.split("\n")[error.line - 1][error.column - 2 :].startswith("${X")


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("a:\n\tb: 1", (2, 1), "a tab stands where YAML allows only spaces"),
        ("a: @x", (1, 4), "a value cannot begin with @"),
        ("a: %x", (1, 4), "a value cannot begin with %"),
        ("a: 1\n---\nb: 2", (2, 1), "a second document begins here"),
        ("host: *.example.com", (1, 8), "a value that begins with * refers to an anchor"),
        ("host: *example", (1, 7), "a value that begins with * refers to an anchor"),
        ("a: b: c", (1, 5), "mapping values are not allowed"),
        ('a: "b', (1, 6), "while scanning a quoted scalar"),
        ("a: [1, 2", (2, 1), "while parsing a flow sequence"),
        ("a: \x01", (1, 4), "has the control character U+0001"),
        ("%YAML 3.0\n---\na: 1", (1, 1), "incompatible YAML document"),
        ("a: b\nc: \ud800", (2, 4), "is not UTF-8"),
    ],
)
def test_a_text_that_is_no_yaml_is_explained_at_its_place(
    text: str, place: tuple[int, int], what: str
) -> None:
    error = _unreadable(text)
    assert what in error.what
    assert (error.line, error.column) == place


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_text_has_no_value(text: str) -> None:
    assert read(text, {}).value is None


def test_bytes_are_utf8_perhaps_with_a_byte_order_mark() -> None:
    assert decode(b"\xef\xbb\xbfa: \xc3\xa9") == "a: é"


@pytest.mark.parametrize(
    ("raw", "place"), [(b"a: 1\nb: \xc3\xa9\xff", (2, 5)), (b"\xff\xfea\x00", (1, 1))]
)
def test_bytes_that_are_not_utf8_are_found_at_their_place(
    raw: bytes, place: tuple[int, int]
) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(raw)
    assert (caught.value.line, caught.value.column) == place


def test_positions_count_from_one() -> None:
    assert [position("ab\nc", index) for index in (0, 1, 3, 4)] == [(1, 1), (1, 2), (2, 1), (2, 2)]


@settings(deadline=None)
@given(st.text() | st.text(alphabet="ab:- \n\t[]{},&*!|>'\"#%@`?${}~\r\x85\u2028\x00\ud800\ufeff1"))
def test_any_text_is_read_or_unreadable(text: str) -> None:
    try:
        read(text, {})
    except Unreadable as error:
        assert error.line >= 1  # noqa: PT017 - either outcome is right
        assert error.column >= 1  # noqa: PT017


def test_the_limits_leave_room_for_any_real_file() -> None:
    text = "\n".join(f"s{i}: {{routes: [{{path: /{i}}}]}}" for i in range(10_000))
    assert len(read(text, {}).value) == 10_000
    assert document.DEEPEST > 8
