from __future__ import annotations

import pytest

from proxy.control.admin.duration import seconds


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172800),
        ("0", 0),
    ],
)
def test_durations_are_read_as_people_write_them(written: str, expected: float) -> None:
    assert seconds(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        "",
        "30",
        "s",
        "-30s",
        "+30s",
        "5m?3s",
        "5m 3s",
        "1.2.3s",
        "1mm",
        "1y",
        "\u0663s",
        "1S",
        "30s\n",
    ],
)
def test_anything_else_is_refused_with_what_was_expected(written: str) -> None:
    with pytest.raises(ValueError, match='expected a duration such as "30s"'):
        seconds(written)


def test_a_duration_beyond_all_time_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        seconds("9" * 30 + "d")
