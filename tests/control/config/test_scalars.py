from __future__ import annotations

from typing import Annotated, Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.control.config import scalars
from proxy.control.config.scalars import Kind, choice, integer

WRITTEN: list[tuple[Any, Any, Any]] = [
    (scalars.Duration, "90m", 5400.0),
    (scalars.Size, "64KiB", 65_536),
    (scalars.Percent, 12.5, 1250),
    (scalars.Switch, True, True),
    (scalars.Name, "blue", "blue"),
    (scalars.Address, "unix:/run/a", "unix:/run/a"),
    (scalars.Release, "", None),
    (Annotated[int, *integer(1, 5, "a number")], 3, 3),
    (Annotated[str, choice("a", "b")], "a", "a"),
]


@pytest.mark.parametrize(("kind", "written", "value"), WRITTEN)
def test_a_written_value_becomes_one_ready_for_use(kind: Any, written: Any, value: Any) -> None:
    assert TypeAdapter(kind).validate_python(written) == value


@pytest.mark.parametrize("kind", [kind for kind, _, _ in WRITTEN if kind is not scalars.Release])
def test_nothing_at_all_is_no_value(kind: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(None)


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        (scalars.Duration, 5400.0, "1h30m"),
        (scalars.Size, 65_536, "64KiB"),
        (scalars.Percent, 50, 0.5),
    ],
)
def test_the_view_writes_a_value_as_people_do(kind: Any, value: Any, written: Any) -> None:
    assert TypeAdapter(kind).dump_python(value, mode="json") == written
    assert TypeAdapter(kind).dump_python(value) == value


@pytest.mark.parametrize(("secret", "shown"), [("hunter2", "***"), ("", "")])
def test_a_secret_is_only_shown_to_be_there(secret: str, shown: str) -> None:
    adapter = TypeAdapter(scalars.Secret)
    assert adapter.dump_python(adapter.validate_python(secret), mode="json") == shown


def test_an_optional_secret_that_is_empty_is_none() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(scalars.OptionalSecret)
    assert adapter.validate_python("") is None
    assert adapter.validate_python(None) is None
    assert adapter.dump_python(None, mode="json") is None


def test_types_are_called_by_a_name_with_its_article() -> None:
    assert Kind("a size") in get_args(scalars.Size)
