"""What one scalar may say: durations, sizes, percents, names, secrets; pure, and without pydantic.

Every parser takes what YAML or JSON gave and returns the value the program works
with, or raises `Wrong`. The admin API and the command line read their arguments
with the same functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import durationpy

from proxy.control.config.problem import Wrong, either, nearest, quoted

DURATION = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+"
SHARE = r"[0-9]{1,3}(\.[0-9]{1,2})?%"
SIZE = r"[0-9]+(B|KiB|MiB|GiB|TiB)?"
NAME = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar of RFC 9110, no password
STICKY = rf"none|cookie|client_ip|header:{TOKEN}"

STATUSES = r"[2-5][0-9]{2}(-[2-5][0-9]{2})?( *, *[2-5][0-9]{2}(-[2-5][0-9]{2})?)*"

REDIRECTIONS = (301, 302, 307, 308)
MOST_WORKERS = 256
LONGEST_DURATION_S = 10 * 365 * 86_400.0
_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_LARGEST_SIZE = 2**63 - 1
_SWITCH_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


class Expanded(str):
    """Text that came out of an environment variable: it may stand for a number or a boolean too."""

    __slots__ = ()


def kind_of(value: Any) -> str:
    """How to call a value in a message: `a list`, `the number 3`."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"the number {quoted(repr(value))[1:-1]}"
    plain = {"NoneType": "empty", "list": "a list", "tuple": "a list", "dict": "a mapping"}
    return plain.get(type(value).__name__, str(value).lower())


def text(value: Any, expected: str = "a string") -> str:
    """One line of text, not empty, without control characters."""
    if isinstance(value, (bool, int, float)):
        raise Wrong(f"is {kind_of(value)}", f"{expected}, in quotes")
    if not isinstance(value, str):
        raise Wrong(f"is {kind_of(value)}", expected)
    if not value:
        raise Wrong("is empty", expected)
    if not value.isprintable():
        raise Wrong(f"has a control character in {quoted(value)}", expected)
    return str(value)


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, Expanded) and value in {"true", "false"}:
        return value == "true"
    meant = _SWITCH_WORDS.get(value.lower(), "") if isinstance(value, str) else ""
    raise Wrong(f"is {kind_of(value)}", "true or false", meant)


def on_or_off(value: Any) -> bool:
    """`on` or `off`; YAML 1.1 tools write them as true and false, which is the same."""
    if isinstance(value, bool):
        return value
    return choice(value, ("on", "off")) == "on"


def on_or_off_text(is_on: bool) -> str:  # noqa: FBT001 - pydantic gives the value alone
    return "on" if is_on else "off"


def integer(value: Any, *, least: int, most: int) -> int:
    number = _expanded_integer(value)
    expected = f"a whole number from {least} to {most}"
    if isinstance(number, bool) or not isinstance(number, int):
        digits = value if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else ""
        raise Wrong(f"is {kind_of(value)}", expected, f"{digits} without quotes" if digits else "")
    if not least <= number <= most:
        raise Wrong(f"is {kind_of(number)}", expected)
    return number


def choice(value: Any, options: Sequence[str]) -> str:
    if isinstance(value, str) and value in options:
        return str(value)
    if isinstance(value, str):
        meant = nearest(value, options)
    else:  # YAML reads 1.2 as a number
        meant = f'"{value}", in quotes' if str(value) in options else ""
    raise Wrong(f"is {kind_of(value)}", either(options), meant)


def workers(value: Any) -> int | str:
    """A number of processes, or `auto`."""
    if value == "auto":
        return "auto"
    if isinstance(value, str) and not isinstance(_expanded_integer(value), int):
        raise Wrong(f"is {kind_of(value)}", "auto or a whole number", nearest(value, ["auto"]))
    return integer(value, least=1, most=MOST_WORKERS)


def duration(value: Any) -> float:
    """Seconds of `250ms`, `30s`, `5m`, `1h30m`, `2d`."""
    expected = "a duration such as 250ms, 30s, 5m or 1h30m"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        meant = f"{value}s" if math.isfinite(value) and 0 <= value < 10**6 else ""
        raise Wrong(f"is {kind_of(value)}, without a unit", expected, meant)
    if not isinstance(value, str):
        raise Wrong(f"is {kind_of(value)}", expected)
    if re.fullmatch("-" + DURATION, value):
        raise Wrong(f"is {quoted(value)}, less than nothing", expected, str(value[1:]))
    if not re.fullmatch(DURATION, value):
        raise Wrong(f"is {kind_of(value)}", expected, _nearest_duration(value))
    return _seconds(value)


def positive_duration(value: Any) -> float:
    """A duration where nothing at all would make no sense."""
    seconds = duration(value)
    if seconds <= 0:
        raise Wrong(f"is {kind_of(value)}", "a duration longer than 0s")
    return seconds


def duration_text(seconds: float) -> str:
    """The duration as one writes it: `250ms`, `75s`, `10m`, `1h30m`."""
    if 0 < seconds < 1:
        return f"{round(seconds * 1000, 3):g}ms"
    rest = round(seconds, 6)
    hours, rest = divmod(rest, 3600) if rest >= 3600 else (0, rest)
    minutes, rest = divmod(rest, 60) if rest >= 120 or hours else (0, rest)
    last = f"{rest:.6f}".rstrip("0").rstrip(".")
    parts = (f"{hours:.0f}h" * bool(hours), f"{minutes:.0f}m" * bool(minutes))
    return "".join(parts) + f"{last}s" * (last != "0") or "0s"


def size(value: Any) -> int:
    """Bytes of `512`, `64KiB`, `1MiB`."""
    expected = "a size such as 512, 64KiB or 1MiB"
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if 0 <= value <= _LARGEST_SIZE else kind_of(value)
    if not isinstance(value, str):
        raise Wrong(f"is {kind_of(value)}", expected)
    if not re.fullmatch(SIZE, value) or len(value) > len(str(_LARGEST_SIZE)):
        raise Wrong(f"is {quoted(value)}", expected, _nearest_size(value))
    digits = value.rstrip("BKMGTi")
    return int(digits) * _UNITS[value[len(digits) :]]


def positive_size(value: Any) -> int:
    count = size(value)
    if count == 0:
        raise Wrong("is 0", "a size above 0")
    return count


def size_text(count: int) -> str:
    """The size as one writes it: `0`, `1500`, `64KiB`."""
    units = [unit for unit in ("TiB", "GiB", "MiB", "KiB") if count and count % _UNITS[unit] == 0]
    return f"{count // _UNITS[units[0]]}{units[0]}" if units else str(count)


def percent(value: Any) -> int:
    """Hundredths of a percent of `90`, `12.5`, `0.05`."""
    expected = "a percentage from 0 to 100, such as 90 or 12.5"
    number = _decimal(value)
    if number is None:
        meant = value[:-1] if isinstance(value, str) and re.fullmatch(r"[0-9.]+%", value) else ""
        raise Wrong(f"is {kind_of(value)}", expected, str(meant))
    if not 0 <= number <= 100:
        raise Wrong(f"is {kind_of(value)}", expected)
    hundredths = number * 100
    if hundredths != hundredths.to_integral_value():
        raise Wrong(f"is {kind_of(value)}, more than two decimals", expected, f"{number:.2f}")
    return int(hundredths)


def share(value: Any) -> int:
    """Hundredths of a percent of `10%`, `12.5%`: a part of something, not a weight."""
    expected = "a share from 0% to 100%, such as 10%"
    match = re.fullmatch(SHARE, value) if isinstance(value, str) else None
    if match is None:
        raise Wrong(f"is {kind_of(value)}", expected, _share_meant(_decimal(value)))
    hundredths = int(Decimal(match[0][:-1]) * 100)
    if hundredths > 100 * 100:
        raise Wrong(f"is {kind_of(value)}", expected)
    return hundredths


def _share_meant(number: Decimal | None) -> str:
    """What a number without its sign was probably meant to be: 10 is `10%`, and so is 0.1."""
    if number is None or not 0 <= number <= 100:
        return ""
    return f"{(number * 100 if number < 1 else number).normalize():f}%"


def positive_share(value: Any) -> int:
    """A share above 0%."""
    hundredths = share(value)
    if not hundredths:
        raise Wrong(f"is {kind_of(value)}", "a share above 0%")
    return hundredths


def part_share(value: Any) -> int:
    """A share that leaves something: below 100%."""
    hundredths = share(value)
    if hundredths == 100 * 100:
        raise Wrong(f"is {kind_of(value)}, which leaves nothing", "a share below 100%")
    return hundredths


def share_text(hundredths: int) -> str:
    """The share as one writes it: `10%`, `12.5%`."""
    return f"{percent_number(hundredths)}%"


def share_or_off(value: Any) -> int | None:
    """A share, or None for `off`."""
    if value == "off":
        return None
    try:
        return share(value)
    except Wrong as wrong:
        expected = wrong.expected + ", or off"
        raise Wrong(wrong.what, expected, wrong.suggestion) from None


def unless_off(value: Any) -> Any:
    """A mapping that is in force by itself, or `off` as None; an empty key is neither."""
    if value == "off":
        return None
    if not isinstance(value, dict):
        raise Wrong(f"is {kind_of(value)}", "a mapping, or off")
    return value


def percent_number(hundredths: int) -> int | float:
    """Hundredths of a percent as the percentage people write: 90, 37.5."""
    return hundredths // 100 if hundredths % 100 == 0 else hundredths / 100


def name(value: Any) -> str:
    """The name of a service or a pool: it stands in paths, cookies, headers and metrics."""
    expected = "letters, digits, and inside also . _ -; 63 characters at most"
    if not re.fullmatch(NAME, text(value, expected)):
        raise Wrong(f"the name is {quoted(value)}", expected)
    return str(value)


def token(value: Any) -> str:
    """The name of a cookie or a header."""
    expected = "a name of letters, digits and hyphens"
    if not re.fullmatch(TOKEN, text(value, expected)):
        raise Wrong(f"is {quoted(value)}", expected)
    return str(value)


def sticky_by(value: Any) -> str:
    """`none`, `cookie`, `client_ip`, or `header:NAME`."""
    kinds = ("cookie", "header:NAME", "client_ip", "none")
    if isinstance(value, str) and re.fullmatch(STICKY, value):
        return str(value)
    if isinstance(value, str) and value.split(":")[0].strip() == "header":
        raise Wrong(f"is {quoted(value)}", either(kinds), "header:X-User-Id")
    return choice(value, kinds)


def off_is_none(value: Any) -> Any:
    """A mapping as it is; `off`, the word for going without it, as None.

    Tools that write files by YAML 1.1 turn `off` into false, so that is the same here.
    """
    if value == "off" or value is False:
        return None
    if isinstance(value, str):
        raise Wrong(f"is {kind_of(value)}", "a mapping, or off", nearest(value, ["off"]))
    return value


def statuses(value: Any) -> tuple[tuple[int, int], ...]:
    """Ranges of status codes, first and last: `200-399`, `"200-299,401"`."""
    expected = 'final status codes such as "200-399" or "200-299,401"'
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not re.fullmatch(STATUSES, value):
        raise Wrong(f"is {kind_of(value)}", expected)
    found = []
    for part in value.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        found.append((int(first), int(last or first)))
        if found[-1][0] > found[-1][1]:
            raise Wrong(f"has {quoted(part)}, which ends before it begins", expected)
    return tuple(found)


def statuses_text(ranges: Sequence[tuple[int, int]]) -> str:
    return ",".join(f"{a}-{b}" if a != b else f"{a}" for a, b in ranges)


def redirect_status(value: Any) -> int:
    """301, 302, 307 or 308: the redirections that lead to the same place for good or for now."""
    number = _expanded_integer(value)
    if isinstance(number, bool) or number not in REDIRECTIONS:
        raise Wrong(f"is {kind_of(number)}", "301, 302, 307 or 308")
    return int(number)


def header_value(value: Any) -> str:
    """What a header may carry, perhaps a secret: what is wrong is said without showing it."""
    if not isinstance(value, str):
        kind = "empty" if value is None else "no string"
        raise Wrong(f"is {kind}", "a string, in quotes")
    if not re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", value):
        raise Wrong(
            "has a character that no header can carry",
            "plain characters, and no space at either end",
        )
    return str(value)


def release(value: Any) -> str | None:
    """A release's name, as a header may carry it; empty is none."""
    if value == "":
        return None
    expected = "the name of a release, such as v42"
    label = text(value, expected)
    if not re.fullmatch(r"[!-~]([ -~]{0,126}[!-~])?", label):
        raise Wrong(f"is {quoted(label)}", expected + ", of 128 plain characters at most")
    return label


def secret(value: Any) -> str:
    """A secret, perhaps empty. What is wrong is said without showing it."""
    expected = 'a string of visible characters without , ; " or \\'
    if not isinstance(value, str):
        kind = "empty" if value is None else "no string"
        raise Wrong(f"is {kind}", "a string, in quotes")
    if not re.fullmatch(r"[!-~]*", value) or re.search(r'[,;"\\]', value):
        raise Wrong("has a character that no header or cookie can carry", expected)
    return str(value)


def signing_secret(value: Any) -> str:
    """A secret that nobody has to send, perhaps empty: any text will do."""
    if not isinstance(value, str):
        kind = "empty" if value is None else "no string"
        raise Wrong(f"is {kind}", "a string, in quotes")
    return str(value)


def _expanded_integer(value: Any) -> Any:
    if isinstance(value, Expanded) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    return value


def _seconds(written: str) -> float:
    try:
        seconds = float(durationpy.from_str(written).total_seconds())
    except durationpy.DurationError:
        seconds = math.inf
    if seconds > LONGEST_DURATION_S:
        raise Wrong(f"is {quoted(written)}", "ten years at most")
    return seconds


def _nearest_duration(written: str) -> str:
    plain = written.replace(" ", "").lower()
    for word, unit in (("seconds", "s"), ("second", "s"), ("sec", "s"), ("minutes", "m")):
        plain = plain.replace(word, unit)
    plain = plain.replace("min", "m").replace("hours", "h").replace("hour", "h")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", plain):
        plain += "s"
    return plain if re.fullmatch(DURATION, plain) and len(plain) < 20 else ""


def _nearest_size(written: str) -> str:
    match = re.fullmatch(r"([0-9]{1,15})\s*([kmgt]?)i?b?", written.lower())
    if not match:
        return ""
    return match[1] + (f"{match[2].upper()}iB" if match[2] else "")


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, Expanded) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return number if number.is_finite() else None
