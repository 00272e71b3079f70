from __future__ import annotations

from proxy.control.config.problem import (
    ConfigInvalid,
    Problem,
    Wrong,
    dotted,
    either,
    nearest,
    quoted,
)


def _problem(line: int, column: int, **more: str) -> Problem:
    fields = {"file": "t.yaml", "path": "workers", "what": "is empty", **more}
    return Problem(line=line, column=column, **fields)


def test_a_problem_reads_as_place_path_what_expected_and_suggestion() -> None:
    problem = _problem(3, 7, expected="a number", suggestion="4")
    assert str(problem) == "t.yaml:3:7: workers: is empty (expected a number; did you mean 4)"


def test_a_problem_of_the_whole_file_names_no_path() -> None:
    assert str(_problem(1, 1, path="")) == "t.yaml:1:1: is empty"


def test_problems_are_sorted_by_position() -> None:
    invalid = ConfigInvalid([_problem(2, 1), _problem(1, 9), _problem(1, 2)])
    assert [(p.line, p.column) for p in invalid.problems] == [(1, 2), (1, 9), (2, 1)]
    assert len(str(invalid).splitlines()) == 3


def test_a_path_reads_like_the_way_to_a_value() -> None:
    path = ("services", "shop", "pools", "blue", "endpoints", 0)
    assert dotted(path) == "services.shop.pools.blue.endpoints[0]"
    assert dotted(("services", "a b", "active")) == 'services["a b"].active'
    assert dotted(()) == ""


def test_quoted_text_stays_on_one_short_line() -> None:
    assert quoted('a"b\n') == '"a\\"b\\n"'
    assert quoted("ü") == '"ü"'
    assert len(quoted("x" * 1000)) == 62


def test_lists_of_words_end_with_or() -> None:
    assert [either(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a or b",
        "a, b or c",
    ]


def test_the_nearest_word_is_found_whatever_its_case_and_never_a_far_one() -> None:
    assert nearest("LISTNERS", ["listeners", "services"]) == "listeners"
    assert nearest("health", ["headers", "sticky"]) == ""


def test_a_wrong_value_speaks_for_itself() -> None:
    assert str(Wrong("is 3", "4", "5")) == "is 3 (expected 4; did you mean 5)"
